"""Parameters laid out for a CPU: the same tokens, and no weight is copied in a step."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.inference import Decoding, generate_tokens, prepare
from geex_jax.inference.decode import _decode
from geex_jax.inference.sampling import most_likely
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import quantize_params

CONFIG = ModelConfig(
    vocab_size=64, context_length=32, d_model=32, num_heads=2, num_layers=2, d_ff=96
)
PROMPTS = [[1, 2, 3], [5]]


@pytest.fixture(scope="module")
def trees():
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), tokens)["params"]
    return {"float": params, "int8": quantize_params(params)}


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_same_tokens_and_no_copies_of_weights(trees, kind, monkeypatch):
    monkeypatch.setenv("GEEX_KERNELS", "off")
    model, params = prepare(Transformer(CONFIG), trees[kind], least=0)
    assert not model.config.scan_layers and "layers" not in params
    up = params["layers_1"]["mlp"]["up"]
    assert up["kernel_out" if kind == "float" else "kernel_int8"].shape == (96, 32)
    again = prepare(model, params, least=0)[1]
    jax.tree.map(np.testing.assert_array_equal, again, params)
    expected = generate_tokens(Transformer(CONFIG), trees[kind], PROMPTS, max_new_tokens=6)
    assert generate_tokens(model, params, PROMPTS, max_new_tokens=6) == expected
    decoding = Decoding(model, params, PROMPTS, max_new_tokens=6)
    lowered = _decode.lower(model, params, decoding._state, decoding._request, jnp.int32(4))
    text = lowered.compile().as_text()
    weight = r"(f32|s8)\[(96,32|32,96)\]"
    assert re.search(weight, text)
    copies = [x for x in text.splitlines() if re.search(rf"= {weight}\S* (copy|fusion|dynamic)", x)]
    assert not copies


def test_16_bits_are_cast_once_and_small_trees_stay(trees):
    model = Transformer(CONFIG.replace(dtype="bfloat16"))
    assert prepare(model, trees["float"]) == (model, trees["float"])
    _, params = prepare(model, trees["float"], least=0)
    kernel = params["top_query"]["layer"]["mlp"]["down"]["kernel_out"]
    assert kernel.dtype == jnp.bfloat16 and kernel.shape == (32, 96)
    assert params["embedding"]["tokens"].dtype == jnp.float32  # sums of tables are float32


def test_most_likely_is_the_first_of_equals():
    logits = jnp.asarray([[0.0, 3, 3, 1], [-jnp.inf] * 4, [jnp.nan] * 4, [1, 2, 3, 4]])
    assert most_likely(logits).tolist() == [1, 0, 0, 3]
