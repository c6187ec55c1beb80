"""Shapes: the parameter counts of presets, and what a config refuses."""

import pytest

from geex_jax.errors import GeexError
from geex_jax.models import PRESETS, ModelConfig, from_dict, preset, to_dict
from geex_jax.training.metrics import count_params, flops_per_token

COUNTS = {
    "geex-3m": 2_897_152,
    "geex-20m": 20_736_512,
    "geex-125m": 128_309_760,
    "geex-350m": 359_983_104,
    "geex-1.3b": 1_323_945_984,
    "geex-6b": 5_869_330_432,
    "codegeex-13b": 12_873_943_040,
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_parameter_counts(name):
    assert count_params(PRESETS[name]) == COUNTS[name]


def test_every_preset_is_counted_and_tiles_the_matrix_unit():
    assert set(PRESETS) == set(COUNTS)
    for config in PRESETS.values():
        assert config.d_model % 128 == 0 and config.d_ff % 128 == 0 and config.vocab_size % 128 == 0


def test_flops_of_the_13b_model_by_hand():
    # 40 blocks of 12 * 5120^2 matmul parameters, the head, and attention over 2048 x 2048.
    matmul = 40 * 12 * 5120**2 + 5120 * 52224
    expected = 6 * matmul + 12 * 40 * 5120 * 2048
    assert flops_per_token(PRESETS["codegeex-13b"], 2048) == expected


def test_a_config_survives_json():
    config = preset("geex-20m", dtype="bfloat16")
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_heads": 3}, "d_model 256 does not divide into 3 heads"),
        ({"num_kv_heads": 3}, "not a multiple of num_kv_heads 3"),
        ({"activation": "gleu"}, "did you mean gelu"),
        ({"d_modle": 128}, "unknown model field 'd_modle'; did you mean d_model"),
        ({"num_layers": 0}, "num_layers = 0 must be positive"),
        ({"position": "rotary"}, "top_query_layer with rotary"),
        ({"shared_norm": True}, "shared_norm needs residual = 'parallel'"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"position": "rotary", "rotary_dim": 3, "top_query_layer": False}, "rotary_dim 3 is odd"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message):
    with pytest.raises(GeexError, match=message):
        from_dict({**to_dict(ModelConfig()), **fields})


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(GeexError, match="did you mean geex-20m"):
        preset("geex20m")
