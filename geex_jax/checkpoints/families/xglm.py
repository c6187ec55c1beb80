"""XGLM, which is InCoder's family: computed sinusoidal positions, biases everywhere, tied head."""

from __future__ import annotations

from typing import Any

from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.checkpoints.families.fields import Field, Raw, activation, copy_of, same

H, L = "model.layers.{i}", "layers"

embedding_scale = Field(
    ("scale_embedding",),
    lambda raw, ours: {
        "embedding_scale": ours["d_model"] ** 0.5 if raw.get("scale_embedding", bool, True) else 1.0
    },
    lambda config: {"scale_embedding": config.embedding_scale != 1.0},
)


def _read_padding(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    # transformers sets this row of the position table to zero; positions take rows from 2 on.
    value = raw.get("pad_token_id", int, 1)
    if value not in (0, 1):
        raise raw.refuse("pad_token_id", value, "0, 1 or null (others would clear a position)")
    return {}


padding = Field(("pad_token_id",), _read_padding, lambda config: {})

FAMILY = Family(
    name="xglm",
    architecture="XGLMForCausalLM",
    example="facebook/incoder-6B",
    fields=(
        same("vocab_size", "vocab_size"),
        same("max_position_embeddings", "context_length"),
        same("d_model", "d_model"),
        same("num_layers", "num_layers"),
        same("attention_heads", "num_heads"),
        same("ffn_dim", "d_ff"),
        same("tie_word_embeddings", "tied_head", default=True, kind=bool),
        copy_of("num_hidden_layers", "num_layers"),
        embedding_scale,
        padding,
        activation("activation_function", default="gelu"),
    ),
    parts={"position": "sinusoidal", "position_offset": 2, "norm_eps": 1e-5},
    tensors=(
        *tensor("model.embed_tokens.weight", "embedding/tokens"),
        *norm(f"{H}.self_attn_layer_norm", f"{L}/attention_norm"),
        *linear(f"{H}.self_attn.q_proj", f"{L}/attention/query"),
        *linear(f"{H}.self_attn.k_proj", f"{L}/attention/key"),
        *linear(f"{H}.self_attn.v_proj", f"{L}/attention/value"),
        *linear(f"{H}.self_attn.out_proj", f"{L}/attention/output"),
        *norm(f"{H}.final_layer_norm", f"{L}/mlp_norm"),
        *linear(f"{H}.fc1", f"{L}/mlp/up"),
        *linear(f"{H}.fc2", f"{L}/mlp/down"),
        *norm("model.layer_norm", "final_norm"),
        *tensor("lm_head.weight", "head/kernel"),
    ),
    ignored=(r"model\.embed_positions\.(weights|_float_tensor)",),
    tied_copy="lm_head.weight",
)
