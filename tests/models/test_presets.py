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
RIVAL_COUNTS = {  # as published, where more than a rounded figure is
    "gpt-j-6b": 6_050_882_784,
    "gpt-neox-20b": 20_554_567_680,
    "incoder-6.7b": 6_651_084_800,  # computed
    "codegen-6b-multi": 7_064_213_504,  # computed
    "codegen-16b-multi": 16_032_155_648,  # computed
    "codegeex2-6b": 6_243_584_000,
    "codegeex4-9b": 9_399_951_360,
    "codellama-7b": 6_738_546_688,
    "codellama-13b": 13_016_028_160,
    "codellama-34b": 33_743_970_304,
    "deepseek-coder-1.3b": 1_346_471_936,
    "deepseek-coder-6.7b": 6_740_512_768,
    "deepseek-coder-33b": 33_342_991_360,
    "qwen2.5-coder-0.5b": 494_032_768,
    "qwen2.5-coder-1.5b": 1_543_714_304,
    "qwen2.5-coder-3b": 3_085_938_688,
    "qwen2.5-coder-7b": 7_615_616_512,
    "qwen2.5-coder-14b": 14_770_033_664,
    "qwen2.5-coder-32b": 32_763_876_352,
    "starcoder2-3b": 3_030_371_328,
    "starcoder2-7b": 7_173_923_840,
    "starcoder2-15b": 15_957_889_024,
}


@pytest.mark.parametrize("name", sorted(COUNTS | RIVAL_COUNTS))
def test_parameter_counts(name):
    assert count_params(PRESETS[name]) == (COUNTS | RIVAL_COUNTS)[name]


def test_every_preset_is_counted_and_ours_tile_the_matrix_unit():
    assert list(PRESETS) == [*COUNTS, *RIVAL_COUNTS]
    assert all(name == config.name for name, config in PRESETS.items())
    for name in COUNTS:
        config = PRESETS[name]
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


def outside(config):
    """The class of transformers and its configuration that a rival's preset should equal."""
    shape = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.d_ff,
        "tie_word_embeddings": config.tied_head,
        "pad_token_id": None,
    }
    family = config.name.split("-")[0]
    if family == "gpt":
        return ("GPTJ", {}) if config.name == "gpt-j-6b" else ("GPTNeoX", {})  # the defaults
    if family == "incoder":
        old = {"d_model": config.d_model, "num_layers": config.num_layers, "ffn_dim": config.d_ff}
        return "XGLM", {"vocab_size": 50518, "attention_heads": config.num_heads, **old}
    if family == "codegen":
        names = {"n_embd": config.d_model, "n_layer": config.num_layers, "n_head": config.num_heads}
        return "CodeGen", {"vocab_size": config.vocab_size, "rotary_dim": 64, **names}
    if family in ("codegeex2", "codegeex4"):
        return "Glm", {**shape, "head_dim": 128, "attention_bias": True}
    return {"qwen2.5": "Qwen2", "starcoder2": "Starcoder2"}.get(family, "Llama"), shape


@pytest.mark.parametrize("name", sorted(RIVAL_COUNTS))
def test_transformers_counts_the_same_in_rivals(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers", minversion="5.0")
    family, fields = outside(PRESETS[name])
    config = getattr(transformers, f"{family}Config")(**fields)
    with torch.device("meta"):
        model = getattr(transformers, f"{family}ForCausalLM")(config)
    # Tied parameters come once, and buffers not at all.
    assert sum(p.numel() for p in model.parameters()) == RIVAL_COUNTS[name]


def test_rivals_trust_transformers_defaults_where_they_agree():
    transformers = pytest.importorskip("transformers", minversion="5.0")
    gpt_j, neox = transformers.GPTJConfig(), transformers.GPTNeoXConfig()
    for theirs, ours in ((gpt_j, PRESETS["gpt-j-6b"]), (neox, PRESETS["gpt-neox-20b"])):
        assert theirs.vocab_size == ours.vocab_size
        assert theirs.max_position_embeddings == ours.context_length
        assert theirs.num_attention_heads == ours.num_heads
    assert gpt_j.rotary_dim == PRESETS["gpt-j-6b"].rotary_dim
    assert gpt_j.layer_norm_epsilon == PRESETS["gpt-j-6b"].norm_eps
    partial = neox.rope_parameters["partial_rotary_factor"]
    assert partial * PRESETS["gpt-neox-20b"].head_width == PRESETS["gpt-neox-20b"].rotary_dim


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(GeexError, match="did you mean geex-20m"):
        preset("geex20m")
