"""The model store, and the reader of PyTorch files that executes nothing."""

import json
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import codegeex, torch_file
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.parallel import make_mesh
from geex_jax.quantize import quantize_params
from tests.models.running import init

CONFIG = ModelConfig(
    vocab_size=64, context_length=16, d_model=32, num_layers=2, num_heads=4, d_ff=64
)


@pytest.fixture
def params():
    return init(Transformer(CONFIG), jnp.zeros((1, 1), jnp.int32))


@pytest.mark.parametrize("bits", [0, 8, 4])
def test_what_is_saved_is_loaded(params, tmp_path, bits):
    if bits:
        params = quantize_params(params, bits)
    checkpoints.save_model(tmp_path / "m", CONFIG, params, provenance={"note": "x"})
    loaded = checkpoints.load_model(tmp_path / "m")
    assert loaded.config == CONFIG and loaded.provenance["note"] == "x"
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(loaded.params)}
    assert kinds == {0: {"float32"}, 8: {"float32", "int8"}, 4: {"float32", "uint8"}}[bits]


def test_loads_onto_a_mesh(params, tmp_path):
    checkpoints.save_model(tmp_path / "m", CONFIG, params)
    mesh = make_mesh({"fsdp": 4, "tensor": 2})
    kernel = checkpoints.load_model(tmp_path / "m", mesh).params["layers"]["mlp"]["up"]["kernel"]
    assert len(kernel.sharding.device_set) == 8
    np.testing.assert_array_equal(kernel, params["layers"]["mlp"]["up"]["kernel"])


def test_an_existing_folder_is_kept_unless_told(params, tmp_path):
    checkpoints.save_model(tmp_path / "m", CONFIG, params)
    with pytest.raises(GeexError, match="exists; choose another folder"):
        checkpoints.save_model(tmp_path / "m", CONFIG, params)
    doubled = jax.tree.map(lambda x: 2 * x, params)
    checkpoints.save_model(tmp_path / "m", CONFIG, doubled, overwrite=True)
    loaded = checkpoints.load_model(tmp_path / "m")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, doubled)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_damage_is_one_line(params, tmp_path):
    folder = checkpoints.save_model(tmp_path / "m", CONFIG, params)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(about)[:50])
    with pytest.raises(GeexError, match=r"config\.json is not readable"):
        checkpoints.load_model(folder)
    about["model"]["d_ff"] = 128
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(GeexError, match=r"layers/mlp/(up|down)/.* has shape .* the config says"):
        checkpoints.load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(GeexError, match=r"no config.json in"):
        checkpoints.load_model(folder)


def test_a_truncated_array_file_is_named(params, tmp_path):
    folder = checkpoints.save_model(tmp_path / "m", CONFIG, params)
    for file in (folder / "params").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, 100)
    with pytest.raises(GeexError, match="params is damaged or cut short") as error:
        checkpoints.load_model(folder)
    assert "\n" not in str(error.value)


def write_torch(path, pickled: bytes, storages: dict[str, bytes] | None = None):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in (storages or {}).items():
            archive.writestr(f"x/data/{name}", data)


class Evil:
    """Pickles to a call that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_a_pickle_that_calls_something_is_refused_and_not_called(tmp_path):
    write_torch(tmp_path / "evil.pt", pickle.dumps({"module": Evil(tmp_path / "harm")}))
    with pytest.raises(GeexError, match=r"asks for (posix|os|nt)\.mkdir, which is not a tensor"):
        torch_file.read(tmp_path / "evil.pt")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all"])
def test_files_that_are_no_checkpoints(tmp_path, data):
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(GeexError, match="not a PyTorch zip file, or cut short"):
        torch_file.read(tmp_path / "x.pt")


def test_a_truncated_official_checkpoint(shared, tmp_path):
    data = (shared / "fixtures" / "codegeex" / "codegeex_tiny.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(GeexError, match="cut short"):
        codegeex.load(tmp_path / "cut.pt")


def test_official_tensors_are_memory_mapped(shared):
    saved = torch_file.read(shared / "fixtures" / "codegeex" / "codegeex_tiny.pt")
    words = saved["module"]["language_model"]["embedding"]["word_embeddings"]["weight"]
    base = words
    while base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap) and words.dtype == np.float16
    with pytest.raises(ValueError, match="read-only"):
        words[0, 0] = 1
