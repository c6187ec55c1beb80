"""Qwen2, which is Qwen2.5-Coder's family: Llama with biases on q, k, v."""

from __future__ import annotations

from typing import Any

from geex_jax.checkpoints.families.base import Family
from geex_jax.checkpoints.families.fields import (
    Field,
    Raw,
    activation,
    epsilon,
    head_dim,
    kv_heads,
    rope,
    same,
)
from geex_jax.checkpoints.families.llama import ATTENTION, BUFFERS, GATED, MLP, SIZES
from geex_jax.models.config import ModelConfig


def _read_window(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    if not raw.get("use_sliding_window", bool, False):
        window, first = None, 0
    else:
        # Absent is not null here: the class has a window of its own.
        window = raw.size("sliding_window", None if "sliding_window" in raw.values else 4096)
        first = raw.get("max_window_layers", int, 28)
    layers = ours["num_layers"]
    kinds = raw.get("layer_types", list, None)
    if kinds is not None:
        slides = [kind == "sliding_attention" for kind in kinds]
        first = slides.index(True) if True in slides else layers
        tidy = ["full_attention"] * first + ["sliding_attention"] * (layers - first)
        if kinds != tidy or (window is None and True in slides):
            raise raw.refuse("layer_types", kinds, "full_attention first, then sliding_attention")
    if window is None or first >= layers:
        return {"sliding_window": None}
    return {"sliding_window": window, "window_from_layer": first}


def _write_window(config: ModelConfig) -> dict[str, Any]:
    if config.sliding_window is None:
        return {"use_sliding_window": False}
    first = config.window_from_layer
    window = {"sliding_window": config.sliding_window, "max_window_layers": first}
    return {"use_sliding_window": True} | window


FAMILY = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    example="Qwen/Qwen2.5-Coder-7B",
    fields=(
        *SIZES,
        kv_heads(),
        head_dim(),
        rope(),
        Field(
            ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"),
            _read_window,
            _write_window,
        ),
        epsilon("rms_norm_eps", 1e-6),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
        activation("hidden_act", default="silu"),
    ),
    parts=GATED | {"mlp_bias": False},
    tensors=(*ATTENTION, *MLP),
    ignored=BUFFERS,
    only={"use_mrope": (False,)},
    tied_copy="lm_head.weight",
)
