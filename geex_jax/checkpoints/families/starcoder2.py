"""StarCoder2: LayerNorm, biases, a plain MLP, rotary positions and a sliding window."""

from __future__ import annotations

from typing import Any

from geex_jax.checkpoints.families.base import Family, linear
from geex_jax.checkpoints.families.fields import (
    Field,
    Raw,
    activation,
    copy_of,
    head_dim,
    kv_heads,
    rope,
    same,
)
from geex_jax.checkpoints.families.llama import ATTENTION, BUFFERS, SIZES, H, L


def _read_eps(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    # transformers reads norm_epsilon; the published files hold the same number twice.
    value = raw.epsilon("norm_epsilon", 1e-5)
    if raw.get("layer_norm_epsilon", float, value) != value:
        raise raw.refuse(
            "layer_norm_epsilon", raw.values["layer_norm_epsilon"], f"{value}, as norm_epsilon"
        )
    return {"norm_eps": value}


FAMILY = Family(
    name="starcoder2",
    architecture="Starcoder2ForCausalLM",
    example="bigcode/starcoder2-7b",
    fields=(
        *SIZES,
        kv_heads(),
        head_dim(),
        rope(),
        Field(
            ("sliding_window",),
            lambda raw, ours: {"sliding_window": raw.get("sliding_window", int, None)},
            lambda config: {"sliding_window": config.sliding_window},
        ),
        Field(
            ("norm_epsilon", "layer_norm_epsilon"),
            _read_eps,
            lambda config: {"norm_epsilon": config.norm_eps},
        ),
        same("use_bias", "qkv_bias", "output_bias", "mlp_bias", default=True, kind=bool),
        same("tie_word_embeddings", "tied_head", default=True, kind=bool),
        activation("hidden_act", default="gelu_pytorch_tanh"),
        copy_of("activation_function", "hidden_act"),
    ),
    parts={"position": "rotary"},
    tensors=(
        *ATTENTION,
        *linear(f"{H}.mlp.c_fc", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.c_proj", f"{L}/mlp/down"),
    ),
    ignored=BUFFERS,
    only={"norm_type": ("layer_norm",), "mlp_type": ("default",)},
    tied_copy="lm_head.weight",
)
