"""Any model that a family can express is written as its config.json and read back the same."""

import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.checkpoints.families import HUGGING_FACE, read_config, write_config
from geex_jax.checkpoints.families.configs import comparable
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig

FILE = pathlib.Path("config.json")
THETAS = st.floats(1.5, 1e8)
FACTORS = st.floats(1.0, 64.0)
TANH, ERF = "gelu_tanh", "gelu"
ALL = st.sampled_from(["fast_gelu", ERF, TANH, "relu", "silu"])


@st.composite
def scalings(draw) -> dict[str, Any]:
    """Fields of a scaled rotary position."""
    kind = draw(st.sampled_from(["none", "linear", "llama3", "yarn"]))
    if kind == "none":
        return {}
    out: dict[str, Any] = {"rotary_factor": draw(FACTORS), "rotary_scaling": kind}
    if kind != "linear":
        low = draw(st.floats(0.1, 8))
        out["rotary_bounds"] = (low, low + draw(st.floats(0.1, 50)))
        out["rotary_original_context"] = draw(st.integers(1, 10000))
    if kind == "yarn":
        out["rotary_attention_factor"] = draw(st.floats(0.5, 2))
        out["rotary_truncate"] = draw(st.booleans())
    return out


@st.composite
def models(draw, family: str) -> ModelConfig:
    """Any model that the family can express."""
    heads = draw(st.integers(1, 12))
    width = 2 * draw(st.integers(1, 64))
    fields: dict[str, Any] = {"top_query_layer": False, **HUGGING_FACE[family].parts}
    fields |= {
        "vocab_size": draw(st.integers(1, 60000)),
        "context_length": draw(st.integers(1, 10000)),
        "d_model": heads * width,
        "num_layers": draw(st.integers(1, 9)),
        "num_heads": heads,
        "d_ff": draw(st.integers(1, 999)),
        "tied_head": draw(st.booleans()),
    }
    part = 2 * draw(st.integers(1, width // 2))
    if family != "xglm":
        fields["norm_eps"] = draw(st.floats(0, 1))
    if family != "chatglm":
        fields["activation"] = draw(ALL)
    if family in ("gptj", "codegen"):
        return ModelConfig(**fields, rotary_dim=part)
    if family == "xglm":
        scale = draw(st.sampled_from([1.0, fields["d_model"] ** 0.5]))
        return ModelConfig(**fields, embedding_scale=scale)
    bias = draw(st.booleans())
    if family == "gpt_neox":
        fields |= {"qkv_bias": bias, "output_bias": bias, "rotary_dim": part}
        fields |= {"residual": draw(st.sampled_from(["serial", "parallel"]))}
        return ModelConfig(**fields, **draw(scalings()), rotary_theta=draw(THETAS))
    groups = [n for n in range(1, heads + 1) if heads % n == 0]
    fields["num_kv_heads"] = draw(st.sampled_from(groups))
    fields["head_dim"] = draw(st.sampled_from([None, 2 * width, 128, 6]))
    fields["rotary_theta"] = draw(THETAS)
    full = fields["head_dim"] or width
    if family == "chatglm":
        fields["rotary_theta"] = 10000.0 * draw(st.sampled_from([1, 2.5, 500]))
        fields |= {"norm": draw(st.sampled_from(["rmsnorm", "layernorm"])), "head_dim": 12}
        biases = {"qkv_bias": bias or draw(st.booleans()), "output_bias": bias, "mlp_bias": bias}
        return ModelConfig(**fields | biases, rotary_dim=6)
    fields |= draw(scalings())
    if family == "glm":
        fields |= {"qkv_bias": bias, "rotary_dim": 2 * draw(st.integers(1, full // 2))}
    elif family == "llama":
        fields |= {"qkv_bias": bias, "output_bias": bias, "mlp_bias": draw(st.booleans())}
    else:
        fields["sliding_window"] = draw(st.none() | st.integers(1, 9999))
    if family == "starcoder2":
        fields |= {"qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
    elif family == "qwen2" and fields["sliding_window"]:
        fields["window_from_layer"] = draw(st.integers(0, fields["num_layers"] - 1))
    return ModelConfig(**fields)


@pytest.mark.parametrize("family", HUGGING_FACE)
@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_written_and_read_back(family, data):
    config = data.draw(models(family))
    written = write_config(HUGGING_FACE[family], config)
    assert written["model_type"] == family
    found = read_config(HUGGING_FACE[family], written, FILE)
    assert comparable(found) == comparable(config)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("gptj", {"rotary_style": "half"}, "rotary_style"),
        ("gptj", {"rotary_theta": 5e4}, "rotary_theta"),
        ("gptj", {"rotary_factor": 2.0}, "rotary_factor"),
        ("gptj", {"qkv_bias": True}, "qkv_bias"),
        ("gptj", {"head_bias": False}, "head_bias"),
        ("gptj", {"residual": "serial", "shared_norm": False}, "residual"),
        ("gptj", {"head_dim": 10}, "head_dim"),
        ("gptj", {"num_kv_heads": 2}, "num_kv_heads"),
        ("gpt_neox", {"shared_norm": True}, "shared_norm"),
        ("gpt_neox", {"output_bias": False}, "output_bias"),
        ("gpt_neox", {"norm": "rmsnorm"}, "norm"),
        ("gpt_neox", {"gated_mlp": True}, "gated_mlp"),
        ("codegen", {"sliding_window": 8}, "sliding_window"),
        ("xglm", {"norm_eps": 1e-6}, "norm_eps"),
        ("xglm", {"embedding_scale": 3.0}, "embedding_scale"),
        ("xglm", {"position": "learned"}, "position"),
        ("llama", {"top_query_layer": True, "position": "learned"}, "position"),
        ("llama", {"output_bias": True}, "output_bias"),
        ("llama", {"sliding_window": 8}, "sliding_window"),
        ("qwen2", {"qkv_bias": False}, "qkv_bias"),
        ("qwen2", {"mlp_bias": True}, "mlp_bias"),
        ("starcoder2", {"sliding_window": 8, "window_from_layer": 1}, "window_from_layer"),
        ("starcoder2", {"mlp_bias": False}, "mlp_bias"),
        ("glm", {"rotary_style": "half"}, "rotary_style"),
        ("chatglm", {"rotary_dim": 16}, "rotary_dim"),
        ("chatglm", {"activation": "gelu"}, "activation"),
        ("chatglm", {"rotary_factor": 2.0}, "rotary_factor"),
        ("chatglm", {"output_bias": True}, "output_bias"),
    ],
)
def test_what_a_family_cannot_say_is_named(family, changes, named):
    plain = {"vocab_size": 40, "context_length": 32, "d_model": 64, "num_layers": 2}
    plain |= {"num_heads": 4, "d_ff": 96, "activation": "silu", "top_query_layer": False}
    if family == "gpt_neox":
        plain |= {"residual": "parallel"}
    if family == "llama":
        plain |= {"qkv_bias": False, "mlp_bias": False}
    if family == "chatglm":
        plain |= {"rotary_dim": 8, "mlp_bias": False}
    good = ModelConfig(**plain | dict(HUGGING_FACE[family].parts))
    write_config(HUGGING_FACE[family], good)
    with pytest.raises(GeexError) as error:
        write_config(HUGGING_FACE[family], good.replace(**changes))
    assert f"a {family} config cannot say {named} = {changes[named]!r}" in str(error.value)
