"""config.json of every family: what is read, what is refused in one line, what is written back."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import pytest

from geex_jax.checkpoints.families import HUGGING_FACE, read_config, write_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.checkpoints.families.fields import FREE
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig

FILE = pathlib.Path("folder/config.json")
ABSENT = object()

GPTJ = {"vocab_size": 40, "n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4}
GPTJ |= {"rotary_dim": 8}
SIZES = {"vocab_size": 40, "max_position_embeddings": 32, "hidden_size": 64}
SIZES |= {"num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
GROUPED = {**SIZES, "num_key_value_heads": 2}
XGLM = {"vocab_size": 40, "max_position_embeddings": 32, "d_model": 64, "ffn_dim": 96}
XGLM |= {"num_layers": 2, "attention_heads": 4}
CHATGLM = {"padded_vocab_size": 40, "seq_length": 32, "hidden_size": 64, "num_layers": 2}
CHATGLM |= {"num_attention_heads": 4, "kv_channels": 16, "ffn_hidden_size": 96}
# The keys that a family cannot do without, and nothing else.
LEAST: dict[str, dict[str, Any]] = {
    "gptj": GPTJ,
    "codegen": GPTJ,
    "gpt_neox": SIZES,
    "xglm": XGLM,
    "llama": SIZES,
    "qwen2": GROUPED,
    "starcoder2": GROUPED,
    "glm": GROUPED,
    "chatglm": CHATGLM,
}
FAMILIES = list(LEAST)


def read(family: str, ignore: tuple[str, ...] = (), **changes: Any) -> ModelConfig:
    values = {"model_type": family, **LEAST[family], **changes}
    values = {key: value for key, value in values.items() if value is not ABSENT}
    return read_config(HUGGING_FACE[family], values, FILE, ignore)


def refused(family: str, changes: Mapping[str, Any], *words: str, ignore=()) -> str:
    """Reading is an error of one line that names the file and holds the words."""
    with pytest.raises(GeexError) as error:
        read(family, ignore, **changes)
    text = str(error.value)
    assert text.startswith(f"{FILE}: ") and "\n" not in text and "; " in text
    for word in words:
        assert word in text
    return text


def test_every_family_has_its_least_config():
    assert list(dict.fromkeys(FAMILIES)) == FAMILIES and set(FAMILIES) == set(HUGGING_FACE)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_missing_is_named(family):
    read(family)
    for key in LEAST[family]:
        refused(family, {key: ABSENT}, f"no {key};")
        if key != "num_key_value_heads":  # there null has a meaning
            refused(family, {key: None}, f"no {key};")


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_whole_numbers_above_0(family):
    for key in LEAST[family]:
        for value in ("64", True, 1.5, 64.0, [64], {}):
            refused(family, {key: value}, f"{key} = {value!r} is no int")
        for value in (0, -4):
            refused(family, {key: value}, f"{key} = {value!r} is not supported")


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unknown_key_is_refused_unless_vouched_for(family):
    refused(family, {"logit_cap": 30.0}, "unknown key logit_cap = 30.0", "--ignore-key logit_cap")
    assert read(family, ("logit_cap",), logit_cap=30.0) == read(family)
    assert read(family, logit_cap=None) == read(family)  # says nothing
    assert read(family, **dict.fromkeys(FREE - {"model_type", "pad_token_id"}, 1)) == read(family)
    # What is known to be another model is refused whoever vouches for it.
    text = refused(family, {"quantization_config": {"bits": 4}}, ignore=("quantization_config",))
    assert "quantization_config = {'bits': 4} is not supported" in text


BOOLS = {
    "gptj": ("tie_word_embeddings",),
    "gpt_neox": ("tie_word_embeddings", "attention_bias"),
    "xglm": ("tie_word_embeddings", "scale_embedding"),
    "llama": ("tie_word_embeddings", "attention_bias", "mlp_bias"),
    "qwen2": ("tie_word_embeddings", "use_sliding_window"),
    "starcoder2": ("tie_word_embeddings", "use_bias"),
    "glm": ("tie_word_embeddings", "attention_bias"),
    "chatglm": ("tie_word_embeddings", "add_qkv_bias", "add_bias_linear", "multi_query_attention"),
}


@pytest.mark.parametrize("family", BOOLS)
def test_switches_are_true_or_false(family):
    for key in BOOLS[family]:
        for value in (1, 0, "false", 0.0):
            refused(family, {key: value}, f"{key} = {value!r} is no bool")
        more = {"max_window_layers": 0} if key == "use_sliding_window" else {}
        assert read(family, **{key: True, **more}) != read(family, **{key: False, **more})


EPSILONS = {"gptj": "layer_norm_epsilon", "codegen": "layer_norm_epsilon"}
EPSILONS |= {"gpt_neox": "layer_norm_eps", "chatglm": "layernorm_epsilon"}
EPSILONS |= {"llama": "rms_norm_eps", "qwen2": "rms_norm_eps", "glm": "rms_norm_eps"}
EPSILONS |= {"starcoder2": "norm_epsilon"}


@pytest.mark.parametrize("family", EPSILONS)
def test_epsilons_are_numbers(family):
    key = EPSILONS[family]
    for value in ("1e-5", True, float("nan"), float("inf"), -1e-5):
        refused(family, {key: value}, f"{key} = {value!r}")
    assert read(family, **{key: 0.25}).norm_eps == 0.25
    assert read(family, **{key: 1}).norm_eps == 1.0


LINEAR = {"rope_type": "linear", "factor": 2.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16}
REFUSED = [
    ("gptj", {"activation_function": "gelu_10"}, "activation_function = 'gelu_10'"),
    ("gptj", {"activation_function": True}, "activation_function = True"),
    ("gptj", {"activation_function": ["relu"]}, "activation_function = ['relu']"),
    ("gptj", {"rotary": False}, "rotary = False is not supported; known: True"),
    ("gptj", {"rotary_dim": 7}, "rotary_dim 7 is odd"),
    ("gptj", {"rotary_dim": 18}, "not within a head of 16"),
    ("gptj", {"n_head": 3}, "does not divide into 3 heads"),
    ("gptj", {"n_inner": 0}, "n_inner = 0"),
    ("gptj", {"scale_attn_weights": False}, "scale_attn_weights = False"),
    ("gptj", {"rope_scaling": LINEAR}, "unknown key rope_scaling"),
    ("codegen", {"activation_function": "mish"}, "activation_function = 'mish'"),
    ("codegen", {"rotary_dim": None}, "no rotary_dim"),
    ("gpt_neox", {"use_parallel_residual": 1}, "use_parallel_residual = 1"),
    ("gpt_neox", {"hidden_act": "relu6"}, "hidden_act = 'relu6'"),
    ("gpt_neox", {"rotary_pct": 0.2}, "rotary_dim 3 is odd"),
    ("gpt_neox", {"rotary_pct": 1.5}, "not within a head of 16"),
    ("gpt_neox", {"rotary_pct": -0.5}, "not within a head of 16"),
    ("gpt_neox", {"rotary_pct": "0.25"}, "rotary_pct = '0.25' is no float"),
    ("gpt_neox", {"rotary_emb_base": 1.0}, "rotary_emb_base = 1.0"),
    # transformers reads neither of these two in this family
    ("gpt_neox", {"rope_theta": 5e4}, "rope_theta = 50000.0"),
    ("gpt_neox", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ("gpt_neox", {"head_dim": 8}, "unknown key head_dim"),
    ("xglm", {"add_cross_attention": True}, "add_cross_attention = True"),
    ("xglm", {"pad_token_id": 5}, "pad_token_id = 5"),
    ("xglm", {"pad_token_id": -1}, "pad_token_id = -1"),
    ("xglm", {"num_hidden_layers": 3}, "num_hidden_layers = 3", "what num_layers says, 2"),
    ("xglm", {"activation_function": "gelu_fancy"}, "activation_function = 'gelu_fancy'"),
    ("llama", {"num_key_value_heads": 3}, "not a multiple of num_kv_heads 3"),
    ("llama", {"head_dim": 7}, "rotary_dim 7 is odd"),
    ("llama", {"head_dim": 0}, "head_dim = 0"),
    ("llama", {"sliding_window": 8}, "unknown key sliding_window = 8"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
    ("llama", {"rope_theta": 0.0}, "rope_theta = 0.0"),
    ("llama", {"rope_theta": 2e4, "rope_parameters": {"rope_theta": 1e4}}, "rope_theta = 20000.0"),
    ("llama", {"rope_scaling": "linear"}, "rope_scaling = 'linear' is no dict"),
    ("llama", {"rope_scaling": {"type": "longrope"}}, "rope_scaling.type = 'longrope'"),
    ("llama", {"rope_scaling": LINEAR | {"type": "dynamic"}}, "rope_scaling.type = 'dynamic'"),
    ("llama", {"rope_scaling": LINEAR | {"power": 2}}, "rope_scaling.power = 2", "known: factor"),
    ("llama", {"rope_scaling": LINEAR | {"factor": 0.0}}, "rotary_factor = 0.0"),
    ("llama", {"rope_scaling": LINEAR | {"factor": "2"}}, "factor = '2' is no float"),
    ("llama", {"rope_scaling": {"type": "linear"}}, "no factor"),
    ("llama", {"rope_scaling": LLAMA3 | {"low_freq_factor": None}}, "no low_freq_factor"),
    ("llama", {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "(4.0, 4.0) do not ascend"),
    ("llama", {"rope_scaling": YARN | {"truncate": 0}}, "truncate = 0 is no bool"),
    ("llama", {"rope_scaling": YARN | {"beta_fast": 0.5}}, "(1.0, 0.5) do not ascend"),
    ("llama", {"rope_scaling": LINEAR, "rope_parameters": YARN}, "what rope_parameters says"),
    (
        "llama",
        {"rope_scaling": {"type": "dynamic", "original_max_position_embeddings": 16}},
        "rope_scaling.original_max_position_embeddings = 16",
    ),
    ("llama", {"original_max_position_embeddings": 16}, "unknown key original_max_position"),
    ("qwen2", {"use_mrope": True}, "use_mrope = True"),
    ("qwen2", {"layer_types": ["full_attention"]}, "layer_types = ['full_attention']"),
    ("qwen2", {"layer_types": ["full_attention", "chunked"]}, "layer_types ="),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types ="),
    (
        "qwen2",
        {"use_sliding_window": True, "layer_types": ["sliding_attention", "full_attention"]},
        "full_attention first, then sliding_attention",
    ),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 0}, "sliding_window = 0"),
    ("qwen2", {"attention_bias": True}, "unknown key attention_bias"),
    ("starcoder2", {"norm_type": "rms_norm"}, "norm_type = 'rms_norm'"),
    ("starcoder2", {"mlp_type": "gated"}, "mlp_type = 'gated'"),
    ("starcoder2", {"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon = 1e-06"),
    ("starcoder2", {"sliding_window": -1}, "sliding_window = -1"),
    (
        "starcoder2",
        {"hidden_act": "relu", "activation_function": "gelu"},
        "activation_function = 'gelu'",
    ),
    ("glm", {"partial_rotary_factor": 0.3, "head_dim": 10}, "rotary_dim 3 is odd"),
    ("glm", {"mlp_bias": True}, "unknown key mlp_bias"),
    ("chatglm", {"post_layer_norm": False}, "post_layer_norm = False"),
    ("chatglm", {"apply_residual_connection_post_layernorm": True}, "_post_layernorm = True"),
    ("chatglm", {"interleaved_qkv": True}, "interleaved_qkv = True"),
    ("chatglm", {"original_rope": False}, "original_rope = False"),
    ("chatglm", {"rotary_percent": 1.0}, "rotary_percent = 1.0"),
    ("chatglm", {"rope_ratio": 0}, "rope_ratio = 0"),
    ("chatglm", {"rope_ratio": "500"}, "rope_ratio = '500' is no float"),
    ("chatglm", {"pre_seq_len": 128}, "pre_seq_len = 128"),
    ("chatglm", {"quantization_bit": 4}, "quantization_bit = 4"),
    ("chatglm", {"rmsnorm": "yes"}, "rmsnorm = 'yes'"),
    ("chatglm", {"num_hidden_layers": 3}, "what num_layers says"),
    ("chatglm", {"multi_query_attention": True, "multi_query_group_num": 0}, "group_num = 0"),
]


@pytest.mark.parametrize(("family", "changes", "words"), [(f, c, w) for f, c, *w in REFUSED])
def test_what_is_not_supported_is_refused(family, changes, words):
    refused(family, changes, *words)


def test_codegen_needs_blocks_of_heads():
    config = read("codegen", n_head=2)
    with pytest.raises(GeexError, match="n_head = 2; its fused qkv needs a multiple of 4 heads"):
        HUGGING_FACE["codegen"].bind(config)


@pytest.mark.parametrize(
    ("family", "one", "other"),
    [
        ("llama", {"rope_theta": 5e4}, {"rope_parameters": {"rope_theta": 50000}}),
        ("llama", {"rope_scaling": None}, {"rope_parameters": {"rope_type": "default"}}),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2}}, {"rope_parameters": LINEAR}),
        ("llama", {"rope_scaling": YARN | {"type": "yarn"}}, {"rope_parameters": YARN}),
        ("llama", {"rope_scaling": LLAMA3}, {"rope_parameters": LLAMA3 | {"rope_theta": 1e4}}),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, {}),
        ("llama", {"num_key_value_heads": 4, "head_dim": 16}, {"num_key_value_heads": None}),
        ("qwen2", {"num_key_value_heads": 4}, {"num_key_value_heads": None}),
        (
            "gpt_neox",
            {"rotary_pct": 0.5, "rotary_emb_base": 20000},
            {"rope_parameters": {"rope_theta": 2e4, "partial_rotary_factor": 0.5}},
        ),
        (  # both forms at once, as some versions wrote it
            "gpt_neox",
            {"rotary_pct": 0.5, "partial_rotary_factor": 0.5, "rope_theta": 1e4},
            {"rotary_pct": 0.5},
        ),
        ("gpt_neox", {}, {"rotary_pct": 0.25, "rotary_emb_base": 10000, "hidden_act": "gelu"}),
        (
            "glm",
            {"partial_rotary_factor": 0.25, "head_dim": 16, "rope_theta": 2e4},
            {
                "head_dim": 16,
                "rope_parameters": {"partial_rotary_factor": 0.25, "rope_theta": 2e4},
            },
        ),
        ("glm", {}, {"head_dim": 128, "attention_bias": True, "rms_norm_eps": 1.5625e-07}),
        ("qwen2", {"sliding_window": 8}, {"use_sliding_window": False}),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0}, {}),
        (
            "qwen2",
            {"use_sliding_window": True, "max_window_layers": 1},
            {
                "use_sliding_window": True,
                "sliding_window": 4096,
                "layer_types": ["full_attention", "sliding_attention"],
            },
        ),
        ("gptj", {"n_inner": None}, {"n_inner": 256}),
        ("gptj", {"activation_function": "gelu_new"}, {"activation_function": "gelu_pytorch_tanh"}),
        ("xglm", {"scale_embedding": None}, {"scale_embedding": True, "pad_token_id": 0}),
        ("starcoder2", {"sliding_window": None}, {"layer_norm_epsilon": 1e-5}),
        ("chatglm", {"rope_ratio": None}, {"rope_ratio": 1, "rotary_percent": 0.5}),
        ("chatglm", {}, {"multi_query_attention": False, "num_hidden_layers": 2}),
    ],
)
def test_two_ways_of_saying_it(family, one, other):
    assert comparable(read(family, **one)) == comparable(read(family, **other))


def test_reference_configs_are_read_and_written_back(shared):
    for file in sorted((shared / "fixtures" / "hf").glob("*/config*.json")):
        values = json.loads(file.read_text())
        family = HUGGING_FACE[values["model_type"]]
        config = read_config(family, values, file)
        assert write_config(family, config, values) == values
        written = write_config(family, config)
        assert comparable(read_config(family, written, file)) == comparable(config)
        nulls = {key: None for key in LEAST["llama"] if key not in values} | values
        assert read_config(family, nulls, file) == config
