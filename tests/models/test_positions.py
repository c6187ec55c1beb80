"""Scaled rotary frequencies and sinusoids, by golden numbers and against transformers."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, from_dict, to_dict
from geex_jax.models.layers import rotary_frequencies, rotary_tables, sinusoid

BASE = ModelConfig(position="rotary", top_query_layer=False, head_dim=16, rotary_dim=8)
LLAMA3 = {
    "rotary_scaling": "llama3", "rotary_factor": 8.0, "rotary_bounds": [1.0, 4.0],
    "rotary_original_context": 2048, "rotary_theta": 5e5,
}  # fmt: skip
YARN = {
    "rotary_scaling": "yarn", "rotary_factor": 4.0, "rotary_bounds": [1.0, 32.0],
    "rotary_original_context": 2048,
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1.0, 0.1, 0.01, 0.001]),
        ({"rotary_factor": 4.0}, [0.25, 0.025, 0.0025, 0.00025]),
        # The third turns 0.46 times in 2048 positions, the second 12 times.
        (LLAMA3, [1.0, 0.03760603, 0.0001767767, 6.647870e-06]),
        # From pair 1 (32 turns lie at pair 1.01) to 3 (1 turn at 2.51), the middle one is halfway.
        (YARN, [1.0, 0.1, 0.00625, 0.00025]),
        # From 1.00799 to 2.51314: shares kept are 1, 1, 0.34093, 0.
        ({**YARN, "rotary_truncate": False}, [1.0, 0.1, 0.00505697, 0.00025]),
    ],
    ids=["plain", "linear", "llama3", "yarn", "yarn-exact-ends"],
)
def test_frequencies(fields, expected):
    np.testing.assert_allclose(rotary_frequencies(BASE.replace(**fields)), expected, rtol=2e-5)


def test_the_attention_factor_scales_cosine_and_sine():
    positions = jnp.array([[0, 3]])
    plain = rotary_tables(BASE.replace(**YARN), positions)
    cos, sin = rotary_tables(BASE.replace(**YARN, rotary_attention_factor=1.25), positions)
    np.testing.assert_allclose(cos, 1.25 * plain[0])
    np.testing.assert_allclose(sin, 1.25 * plain[1])
    assert cos[0, 0].tolist() == [1.25] * 4


def test_bounds_survive_json():
    config = BASE.replace(**LLAMA3)
    again = from_dict(json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert hash(again) == hash(config)
    assert json.loads(json.dumps(to_dict(config))) == to_dict(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rotary_scaling": "yarn"}, "'yarn' needs rotary_original_context"),
        ({**LLAMA3, "rotary_bounds": [4.0, 1.0]}, "do not ascend"),
        ({**YARN, "rotary_bounds": [1.0]}, "do not ascend"),
        ({"rotary_factor": 0.0}, "rotary_factor = 0.0 must be positive"),
        ({"rotary_scaling": "lama3"}, "did you mean llama3"),
        ({"rotary_dim": 32}, "rotary_dim 32 is not within a head of 16"),
        ({"sliding_window": 0}, "sliding_window = 0 must be positive"),
        ({"window_from_layer": -1}, "window_from_layer = -1 is negative"),
    ],
)
def test_positions_that_do_not_fit(fields, message):
    with pytest.raises(GeexError, match=message):
        BASE.replace(**fields)


# Real ones (DeepSeek-Coder, CodeGeeX4, Llama 3.1, Qwen2.5 with yarn, gpt-oss), and odd ones.
SCALINGS = [
    ({"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}, 128, {}),
    ({"rope_type": "linear", "factor": 1.0, "rope_theta": 5e6}, 64, {}),
    (
        {"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "low_freq_factor": 1.0,
         "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
        128, {"rotary_bounds": [1.0, 4.0]},
    ),
    (
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6,
         "original_max_position_embeddings": 32768},
        128, {"rotary_bounds": [1.0, 32.0], "rotary_attention_factor": 0.1 * np.log(4) + 1},
    ),
    (
        {"rope_type": "yarn", "factor": 32.0, "rope_theta": 150000.0, "truncate": False,
         "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 4096},
        64, {"rotary_bounds": [1.0, 32.0], "rotary_truncate": False,
             "rotary_attention_factor": 0.1 * np.log(32) + 1},
    ),
    (
        {"rope_type": "yarn", "factor": 2.5, "rope_theta": 1e4, "attention_factor": 0.7,
         "beta_fast": 8.0, "beta_slow": 2.0, "original_max_position_embeddings": 16},
        8, {"rotary_bounds": [2.0, 8.0], "rotary_attention_factor": 0.7},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "width", "ours"), SCALINGS)
def test_frequencies_are_those_of_transformers(theirs, width, ours):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5.0")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    outside = transformers.LlamaConfig(
        hidden_size=4 * width,
        num_attention_heads=4,
        max_position_embeddings=131072,
        rope_parameters=dict(theirs),
    )
    expected, attention_factor = ROPE_INIT_FUNCTIONS[theirs["rope_type"]](outside, "cpu")
    config = BASE.replace(
        head_dim=width,
        rotary_dim=None,
        rotary_theta=theirs["rope_theta"],
        rotary_scaling=theirs["rope_type"],
        rotary_factor=theirs["factor"],
        rotary_original_context=theirs.get("original_max_position_embeddings"),
        **ours,
    )
    np.testing.assert_allclose(rotary_frequencies(config), expected.numpy(), rtol=3e-7)
    assert config.rotary_attention_factor == pytest.approx(attention_factor, rel=1e-6)


@pytest.mark.parametrize("width", [64, 33])
def test_sinusoids_are_those_of_xglm(width):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from transformers.models.xglm.modeling_xglm import XGLMSinusoidalPositionalEmbedding as Theirs

    expected = Theirs.get_embedding(2050, width).numpy()
    table = sinusoid(jnp.arange(2050)[None], width)[0]
    # The angle reaches 2049, where the last bit of its frequency is worth 1.2e-4.
    np.testing.assert_allclose(table, expected, atol=3e-4, rtol=0)
    np.testing.assert_allclose(table[:64], expected[:64], atol=1e-5, rtol=0)
