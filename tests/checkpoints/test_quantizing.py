"""From disk to disk: what memory would give, a killed run goes on, any family, GPTQ."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import converting, inspecting, quantize_model, quantizing
from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import layer_errors, quantize_params
from geex_jax.quantize.calibrate import calibrate_params
from tests.checkpoints import helpers
from tests.checkpoints.helpers import same_tree
from tests.quantize.test_gptq import batches_of

CONFIG = ModelConfig(
    vocab_size=48, context_length=32, d_model=64, num_heads=2, num_layers=3, d_ff=96
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("float") / "model"
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), tokens)["params"]
    checkpoints.save_model(folder, CONFIG, params, provenance={"steps": 3})
    return folder, params


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(converting, "SMALL", 0)


@pytest.mark.parametrize(
    ("policy", "rounding"), [("int8", "official"), ("mixed+embedding", "clean")]
)
def test_it_is_what_memory_gives(model, tmp_path, policy, rounding):
    folder, params = model
    if policy == "mixed+embedding":
        policy = '{"mlp/.*": "int4-g32", "output|value": "int8", "query|key": "float", ' \
            '"embedding/tokens": "int8"}'  # fmt: skip
    out = quantize_model(folder, tmp_path / "q", policy, rounding)
    loaded = checkpoints.load_model(out)
    expected = quantize_params(params, policy, rounding)
    assert same_tree(loaded.params, expected)
    assert loaded.config == CONFIG and loaded.provenance["steps"] == 3
    how = loaded.provenance["quantization"]
    assert how["rounding"] == rounding and how["formats"]["layers/mlp/up"].startswith("int")
    seen = inspecting.inspect(out, fingerprint=False)
    assert seen.quantization and seen.quantization["formats"] == sorted(
        {*how["formats"].values()} - {"float"}
    )
    assert seen.parameters == sum(x.size for x in jax.tree.leaves(params))
    errors = quantizing.model_errors(folder, out)
    for path, error in layer_errors(params, expected).items():
        assert errors[path] == pytest.approx(error, rel=1e-3)
    assert ("embedding/tokens" in errors) == ("embedding" in policy)


def test_a_killed_run_goes_on_and_dest_is_whole_or_absent(model, tmp_path, monkeypatch):
    folder, params = model
    calls = []
    real = quantizing._quantized

    def counted(*args):
        calls.append(args[0])
        if len(calls) == 12:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(quantizing, "_quantized", counted)
    with pytest.raises(KeyboardInterrupt):
        quantize_model(folder, tmp_path / "q", "int8+embedding")
    assert not (tmp_path / "q").exists()
    first, done = len(calls), set((tmp_path / ".q.partial" / "done").read_text().split())
    quantize_model(folder, tmp_path / "q", "int8+embedding")
    everything = sum(x.shape[0] if p.startswith("layers/") else 1
                     for p, x in quantizing.by_path(params).items())  # fmt: skip
    assert len(done) >= 10 and len(calls) - first == everything - len(done)
    loaded = checkpoints.load_model(tmp_path / "q")
    assert same_tree(loaded.params, quantize_params(params, "int8+embedding"))
    assert [p.name for p in tmp_path.iterdir()] == ["q"]
    # Another policy does not take over what this one has left.
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        quantize_model(folder, tmp_path / "r", "int8")
    again = quantize_model(folder, tmp_path / "r", "int4")
    assert same_tree(checkpoints.load_model(again).params, quantize_params(params, "int4"))


def test_calibrated_from_disk_to_disk(model, tmp_path, monkeypatch):
    folder, params = model
    batches = batches_of(0, 2)
    expected = calibrate_params(Transformer(CONFIG), params, "int4-g32+embedding", batches)
    with monkeypatch.context() as patch:

        def stop(path, *rest):
            raise KeyboardInterrupt

        patch.setattr(quantizing, "_quantized", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize_model(folder, tmp_path / "q", "int4-g32+embedding", batches=batches)
    assert len(list((tmp_path / ".q.partial" / "blocks").iterdir())) == 4
    out = quantize_model(folder, tmp_path / "q", "int4-g32+embedding", batches=batches)
    assert same_tree(checkpoints.load_model(out).params, jax.device_get(expected))
    how = json.loads((out / "config.json").read_text())["provenance"]["quantization"]
    assert how["calibration"]["method"] == "gptq" and how["calibration"]["tokens"] > 100
    assert not (out / "blocks").exists()


def test_a_folder_of_another_family_and_what_is_refused(model, tmp_path):
    config = helpers.tiny("gpt_neox", helpers.seeded(3))  # query, key and value in one matrix
    tensors = helpers.outside(HUGGING_FACE["gpt_neox"], config)
    source = helpers.write_hf(tmp_path / "hf", "gpt_neox", config, tensors)
    out = quantize_model(source, tmp_path / "q", "int8")
    floats = checkpoints.load_model(checkpoints.convert(source, tmp_path / "f")).params
    assert same_tree(checkpoints.load_model(out).params, quantize_params(floats))
    assert np.any(tensors["gpt_neox.layers.0.attention.query_key_value.weight"])
    with pytest.raises(GeexError, match="already int8"):
        quantize_model(out, tmp_path / "z", "int8")
    with pytest.raises(GeexError, match="groups of 128 do not divide"):
        quantize_model(model[0], tmp_path / "z", "int4-g128")
    with pytest.raises(GeexError, match="exists"):
        quantize_model(model[0], out, "int8")
    assert not (tmp_path / "z").exists() and not list(tmp_path.glob(".z*"))
