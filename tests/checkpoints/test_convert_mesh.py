"""The mesh does not matter: eight simulated devices, in every arrangement, equal logits."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import convert, converting
from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.models import ModelConfig
from geex_jax.parallel import make_mesh, parse_mesh, shardings, use_mesh
from tests.checkpoints import helpers
from tests.checkpoints.helpers import same_tree

MESHES = ("1x8", "2x4", "8x1")  # fsdp x tensor
# Vocabulary 263 divides over nothing; two key heads do not fill eight devices.
CONFIG = ModelConfig(
    **{**helpers.LLAMA.__dict__, "vocab_size": 263, "d_model": 32, "num_heads": 4}
    | {"num_kv_heads": 2, "d_ff": 64, "context_length": 32}
)
TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12) * 10 % 263


def logits(loaded: checkpoints.Loaded, tokens, mesh=None) -> np.ndarray:
    def forward(params):
        params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
        return loaded.model.apply({"params": params}, jnp.asarray(tokens))

    if mesh is None:
        return np.asarray(jax.jit(forward)(loaded.params))
    with use_mesh(mesh):
        return np.asarray(jax.jit(forward)(loaded.params))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The same model converted for no mesh and for each, layer by layer."""
    folder = tmp_path_factory.mktemp("mesh")
    weights = helpers.outside(HUGGING_FACE["llama"], CONFIG)
    source = helpers.write_hf(folder / "hf", "llama", CONFIG, weights)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(converting, "SMALL", 0)
        made = {mesh: convert(source, folder / mesh, mesh=parse_mesh(mesh)) for mesh in MESHES}
        made[None] = convert(source, folder / "none")
    return made


@pytest.fixture(scope="module")
def expected(models):
    return logits(checkpoints.load_model(models[None]), TOKENS)


def chunks(model, leaf: str) -> list[int]:
    return json.loads((model / "params" / leaf / ".zarray").read_text())["chunks"]


@pytest.mark.parametrize(
    ("mesh", "up", "down", "key", "tokens"),
    [
        (None, [1, 32, 64], [1, 64, 32], [1, 32, 16], [263, 32]),
        ("1x8", [1, 32, 8], [1, 8, 32], [1, 32, 2], [263, 32]),
        ("2x4", [1, 16, 16], [1, 16, 16], [1, 16, 4], [263, 16]),
        ("8x1", [1, 4, 64], [1, 64, 4], [1, 4, 16], [263, 4]),
    ],
)
def test_files_are_the_shards_of_the_mesh(models, mesh, up, down, key, tokens):
    model = models[mesh]
    assert chunks(model, "layers.mlp.up.kernel") == up
    assert chunks(model, "layers.mlp.down.kernel") == down
    assert chunks(model, "layers.attention.key.kernel") == key
    assert chunks(model, "embedding.tokens") == tokens
    files = [p.name for p in (model / "params" / "layers.mlp.up.kernel").iterdir()]
    ways = 8 if mesh else 1
    assert len(files) == 1 + 2 * ways  # .zarray, and one file for each layer and shard
    assert not any("lock" in name for name in files)


@pytest.mark.parametrize(
    ("made", "mesh"), [(None, "2x4"), ("1x8", "8x1"), ("2x4", "1x8"), ("8x1", "2x4")]
)
def test_loads_onto_any_mesh_with_equal_logits(models, expected, made, mesh):
    devices = make_mesh(parse_mesh(mesh))
    loaded = checkpoints.load_model(models[made], devices)
    wanted = shardings(devices, loaded.params, uneven=True)
    for leaf, sharding in zip(jax.tree.leaves(loaded.params), jax.tree.leaves(wanted), strict=True):
        assert leaf.sharding == sharding and len(leaf.sharding.device_set) == 8
    kernel = loaded.params["layers"]["mlp"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    words = loaded.params["embedding"]["tokens"]
    assert words.addressable_shards[0].data.shape[0] == 263  # which divides over nothing
    np.testing.assert_allclose(logits(loaded, TOKENS, devices), expected, rtol=0, atol=1e-5)


def test_bits_are_equal_whatever_the_mesh(models):
    params = [checkpoints.load_model(model).params for model in models.values()]
    assert all(same_tree(params[0], other) for other in params[1:])


@pytest.mark.parametrize(("one", "other"), [("1x8", "8x1"), ("8x1", "2x4")])
def test_saved_on_one_mesh_restored_onto_another(models, tmp_path, one, other):
    loaded = checkpoints.load_model(models["2x4"], make_mesh(parse_mesh(one)))
    checkpoints.save_model(tmp_path / "m", loaded.config, loaded.params)
    again = checkpoints.load_model(tmp_path / "m", make_mesh(parse_mesh(other)))
    assert same_tree(again.params, loaded.params)
    kernel = again.params["layers"]["attention"]["query"]["kernel"]
    assert dict(kernel.sharding.mesh.shape) == {"data": 1, "sequence": 1} | parse_mesh(other)
    back = convert(tmp_path / "m", tmp_path / "n", mesh=parse_mesh(one), dtype="bf16")
    assert chunks(back, "embedding.tokens") == [263, 32 // parse_mesh(one)["fsdp"]]


@pytest.mark.parametrize("name", ["codegeex_tiny.pt", "mp2"])
def test_the_official_fixture_on_a_mesh(shared, tmp_path, name):
    folder = shared / "fixtures" / "codegeex"
    reference = np.load(folder / "forward.npz")
    sizes = {"fsdp": 2, "tensor": 4}
    model = convert(folder / name, tmp_path / "m", num_heads=4, mesh=sizes)
    mesh = make_mesh(sizes)
    found = logits(checkpoints.load_model(model, mesh), reference["tokens_a"][:2], mesh)
    np.testing.assert_allclose(found, reference["logits_a"][:2], rtol=0, atol=2e-4)
