"""ChatGLM's own form, in which CodeGeeX2 and CodeGeeX4 were published: q, k, v in one matrix."""

from __future__ import annotations

from typing import Any

from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.checkpoints.families.fields import (
    REQUIRED,
    Field,
    Raw,
    choice,
    copy_of,
    epsilon,
    head_dim,
    same,
)
from geex_jax.checkpoints.families.llama import GATED
from geex_jax.models.config import ModelConfig

H, L = "transformer.encoder.layers.{i}", "layers"


def _read_kv(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    grouped = raw.get("multi_query_attention", bool, False)
    return {"num_kv_heads": raw.size("multi_query_group_num", 1) if grouped else None}


def _read_bias(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    everywhere = raw.get("add_bias_linear", bool, False)
    qkv = everywhere or raw.get("add_qkv_bias", bool, False)
    return {"qkv_bias": qkv, "output_bias": everywhere, "mlp_bias": everywhere}


def _write_bias(config: ModelConfig) -> dict[str, Any]:
    return {"add_bias_linear": config.mlp_bias, "add_qkv_bias": config.qkv_bias}


def _read_rope(raw: Raw, ours: dict[str, Any]) -> dict[str, Any]:
    # CodeGeeX4: the base grows with rope_ratio. Half of each head turns, whatever the file says.
    share = raw.get("rotary_percent", float, 0.5)
    if share != 0.5:
        raise raw.refuse("rotary_percent", share, "0.5")
    ratio = raw.get("rope_ratio", float, 1.0)
    if ratio <= 0:
        raise raw.refuse("rope_ratio", ratio, "numbers above 0")
    if not raw.get("original_rope", bool, True):
        raise raw.refuse("original_rope", False, "true")
    return {"rotary_dim": ours["head_dim"] // 2, "rotary_theta": 10000.0 * ratio}


def _write_rope(config: ModelConfig) -> dict[str, Any]:
    ratio = config.rotary_theta / 10000.0
    return {"rope_ratio": int(ratio) if ratio == int(ratio) else ratio, "original_rope": True}


FAMILY = Family(
    name="chatglm",
    architecture="ChatGLMModel",
    example="THUDM/codegeex2-6b",
    fields=(
        same("padded_vocab_size", "vocab_size"),
        copy_of("vocab_size", "padded_vocab_size"),
        same("seq_length", "context_length"),
        same("hidden_size", "d_model"),
        same("num_layers", "num_layers"),
        copy_of("num_hidden_layers", "num_layers"),
        same("num_attention_heads", "num_heads"),
        head_dim("kv_channels", default=REQUIRED),
        same("ffn_hidden_size", "d_ff"),
        Field(
            ("multi_query_attention", "multi_query_group_num"),
            _read_kv,
            lambda config: {
                "multi_query_attention": True,
                "multi_query_group_num": config.kv_heads,
            },
        ),
        Field(("add_bias_linear", "add_qkv_bias"), _read_bias, _write_bias),
        Field(("rope_ratio", "rotary_percent", "original_rope"), _read_rope, _write_rope),
        epsilon("layernorm_epsilon", 1e-5),
        choice("rmsnorm", "norm", {True: "rmsnorm", False: "layernorm"}, True),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
    ),
    parts={**GATED, "activation": "silu", "rotary_style": "interleaved"},
    tensors=(
        *tensor("transformer.embedding.word_embeddings.weight", "embedding/tokens"),
        *norm(f"{H}.input_layernorm", f"{L}/attention_norm"),
        *linear(
            f"{H}.self_attention.query_key_value",
            f"{L}/attention/query",
            f"{L}/attention/key",
            f"{L}/attention/value",
        ),
        *linear(f"{H}.self_attention.dense", f"{L}/attention/output"),
        *norm(f"{H}.post_attention_layernorm", f"{L}/mlp_norm"),
        *linear(f"{H}.mlp.dense_h_to_4h", f"{L}/mlp/gate", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.dense_4h_to_h", f"{L}/mlp/down"),
        *norm("transformer.encoder.final_layernorm", "final_norm"),
        *tensor("transformer.output_layer.weight", "head/kernel"),
    ),
    ignored=(r"transformer\.rotary_pos_emb\.inv_freq",),
    only={
        "post_layer_norm": (True,),
        "apply_residual_connection_post_layernorm": (False,),
        "interleaved_qkv": (False,),
        "quantization_bit": (0,),
        "pre_seq_len": (),
        "prefix_projection": (False,),
    },
    # The scaling of q.k by the layer is undone before the softmax; the rest is how, not what.
    free=frozenset(
        {
            "apply_query_key_layer_scaling",
            "bias_dropout_fusion",
            "fp32_residual_connection",
            "classifier_dropout",
            "attention_softmax_in_fp32",
            "use_flash_attention",
        }
    ),
    tied_copy="transformer.output_layer.weight",
)
