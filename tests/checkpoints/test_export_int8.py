"""int8 for transformers: compressed-tensors' names, back bit for bit, and what is refused."""

import json

import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.checkpoints import convert, export, quantize_model, safetensors_file
from geex_jax.checkpoints.families import HUGGING_FACE
from geex_jax.errors import GeexError
from tests.checkpoints import helpers
from tests.checkpoints.helpers import LLAMA, same_tree


@pytest.mark.parametrize("family", ["gpt_neox", "qwen2", "glm"])
def test_there_and_back(family, tmp_path):
    config = helpers.tiny(family, helpers.seeded(5))
    tensors = helpers.outside(HUGGING_FACE[family], config)
    source = helpers.write_hf(tmp_path / "a", family, config, tensors)
    ours = quantize_model(source, tmp_path / "q", "int8")
    out = export(ours, tmp_path / "out")
    how = json.loads((out / "config.json").read_text())["quantization_config"]
    assert (how["quant_method"] == "compressed-tensors" and how["ignore"] == ["lm_head"]) or (
        family == "gpt_neox" and how["ignore"] == ["embed_out", "lm_head"]
    )
    held = safetensors_file.index(out / "model.safetensors")
    scales = [name for name in held if name.endswith(".weight_scale")]
    assert len(scales) >= 4 * config.num_layers
    for name in scales:
        weight, scale = held[name.removesuffix("_scale")], held[name]
        assert weight.dtype == np.int8 and scale.shape == (weight.shape[0], 1)
        # The very rows of the float tensor: nothing is turned or mixed on the way.
        exact = tensors[name.removesuffix("_scale")]
        error = np.abs(weight.read() * scale.read() - exact)
        assert np.all(error <= 0.5001 * scale.read())
    back = convert(out, tmp_path / "back")
    trees = [checkpoints.load_model(folder).params for folder in (ours, back)]
    assert same_tree(*trees)


def test_what_has_no_place_is_one_line(tmp_path):
    tensors = helpers.outside(HUGGING_FACE["llama"], LLAMA)
    source = helpers.write_hf(tmp_path / "a", "llama", LLAMA, tensors)
    four = quantize_model(source, tmp_path / "four", ".*attention/.*=int4,.*=int8")
    table = quantize_model(source, tmp_path / "table", "int8+embedding")
    for folder in (four, table):
        with pytest.raises(GeexError, match="holds int8 weights of linears"):
            export(folder, tmp_path / "out")
    eight = quantize_model(source, tmp_path / "eight", "int8")
    out = export(eight, tmp_path / "out")
    for change, words in (
        ({"format": "pack-quantized"}, "quantization_config of"),
        ({"quant_method": "gptq"}, "quantization_config of 'gptq'"),
        ({"config_groups": {"g": {"weights": {"num_bits": 4}}}}, "num_bits = 4"),
    ):
        values = json.loads((out / "config.json").read_text())
        values["quantization_config"] |= change
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "config.json").write_text(json.dumps(values))
        (tmp_path / "bad" / "model.safetensors").write_bytes(
            (out / "model.safetensors").read_bytes()
        )
        with pytest.raises(GeexError, match=words):
            convert(tmp_path / "bad", tmp_path / "x")
    # The official code knows one width for all linears.
    official = helpers.write_official(tmp_path / "o", [helpers.official(helpers.CODEGEEX)])
    both = quantize_model(official, tmp_path / "both", "mlp/.*=int4,attention/.*=int8", "official",
                          num_heads=2)  # fmt: skip
    with pytest.raises(GeexError, match="all linears in int8 or all in int4"):
        export(both, tmp_path / "y", format="codegeex")
