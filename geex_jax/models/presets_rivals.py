"""Shapes of other published code models: the CodeGeeX paper's rivals, and models of later years.

Fields follow the models' configurations on the Hugging Face hub; published counts that are rounded
or differ from the weights are noted. `tests/models/test_presets.py` holds the exact ones.
"""

from __future__ import annotations

from typing import Any

from geex_jax.models.config import ModelConfig

ROTARY: dict[str, Any] = {"position": "rotary", "top_query_layer": False, "tied_head": False}

GPT_J: dict[str, Any] = ROTARY | {
    "context_length": 2048,
    "activation": "gelu_tanh",
    "rotary_dim": 64,
    "rotary_style": "interleaved",
    "residual": "parallel",
    "shared_norm": True,
    "qkv_bias": False,
    "output_bias": False,
    "head_bias": True,
}
GPT_NEOX: dict[str, Any] = ROTARY | {
    "context_length": 2048,
    "activation": "gelu_tanh",  # the original's "gelu_fast" is this expression
    "rotary_dim": 24,  # rotary_pct 0.25
    "residual": "parallel",
}
XGLM: dict[str, Any] = {
    "context_length": 2048,
    "activation": "gelu",
    "position": "sinusoidal",
    "position_offset": 2,
    "top_query_layer": False,
}
LLAMA: dict[str, Any] = ROTARY | {
    "norm": "rmsnorm",
    "activation": "silu",
    "gated_mlp": True,
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
}
CODE_LLAMA = LLAMA | {"context_length": 16384, "rotary_theta": 1e6}
# 4,096 tokens of context stretched to 16,384.
DEEPSEEK = LLAMA | {
    "vocab_size": 32256,
    "context_length": 16384,
    "norm_eps": 1e-6,
    "rotary_theta": 1e5,
    "rotary_factor": 4.0,
}
# Published for 32,768 tokens; the 7B and larger ones reach 131,072 with yarn: rotary_factor 4,
# rotary_bounds (1, 32), rotary_original_context 32768, rotary_attention_factor 1.1386.
QWEN = LLAMA | {
    "context_length": 32768,
    "norm_eps": 1e-6,
    "rotary_theta": 1e6,
    "qkv_bias": True,
}
QWEN_TIED = QWEN | {"vocab_size": 151936, "tied_head": True}
QWEN_UNTIED = QWEN | {"vocab_size": 152064}
CHATGLM = LLAMA | {
    "d_model": 4096,
    "num_heads": 32,
    "num_kv_heads": 2,
    "d_ff": 13696,
    "qkv_bias": True,
    "rotary_dim": 64,  # half of each head
    "rotary_style": "interleaved",
}
STARCODER2 = ROTARY | {
    "vocab_size": 49152,
    "context_length": 16384,
    "activation": "gelu_tanh",
    "sliding_window": 4096,
    "tied_head": True,
}


def _shape(
    parts: dict[str, Any], name: str, layers: int, width: int, heads: int, d_ff: int, **changes: Any
) -> ModelConfig:
    fields: dict[str, Any] = {
        "num_layers": layers,
        "d_model": width,
        "num_heads": heads,
        "d_ff": d_ff,
    }
    return ModelConfig(name=name, **{**parts, **fields, **changes})


RIVALS: dict[str, ModelConfig] = {
    p.name: p
    for p in (
        # The rivals of the paper (table 4). GPT-J's model card says 6,053,381,344 parameters; its
        # weights hold 6,050,882,784.
        _shape(GPT_J, "gpt-j-6b", 28, 4096, 16, 16384, vocab_size=50400),
        _shape(GPT_NEOX, "gpt-neox-20b", 44, 6144, 64, 24576, vocab_size=50432),
        # Published as "6.7B". That embeddings are scaled is XGLM's default.
        _shape(XGLM, "incoder-6.7b", 32, 4096, 32, 16384, vocab_size=50518, embedding_scale=64.0),
        # Published as "6.1B", though its layers make 7.1B, and "16.1B".
        _shape(GPT_J, "codegen-6b-multi", 33, 4096, 16, 16384, vocab_size=51200),
        _shape(GPT_J, "codegen-16b-multi", 34, 6144, 24, 24576, vocab_size=51200),
        # CodeGeeX's successors.
        _shape(CHATGLM, "codegeex2-6b", 28, 4096, 32, 13696, vocab_size=65024, context_length=8192),
        _shape(
            CHATGLM,
            "codegeex4-9b",
            40,
            4096,
            32,
            13696,
            vocab_size=151552,
            context_length=131072,
            norm_eps=1.5625e-07,
            rotary_theta=5e6,  # 10,000 times rope_ratio 500
        ),
        _shape(CODE_LLAMA, "codellama-7b", 32, 4096, 32, 11008, vocab_size=32016),
        _shape(CODE_LLAMA, "codellama-13b", 40, 5120, 40, 13824, vocab_size=32016),
        _shape(CODE_LLAMA, "codellama-34b", 48, 8192, 64, 22016, vocab_size=32000, num_kv_heads=8),
        _shape(DEEPSEEK, "deepseek-coder-1.3b", 24, 2048, 16, 5504),
        _shape(DEEPSEEK, "deepseek-coder-6.7b", 32, 4096, 32, 11008),
        _shape(DEEPSEEK, "deepseek-coder-33b", 62, 7168, 56, 19200, num_kv_heads=8),
        _shape(QWEN_TIED, "qwen2.5-coder-0.5b", 24, 896, 14, 4864, num_kv_heads=2),
        _shape(QWEN_TIED, "qwen2.5-coder-1.5b", 28, 1536, 12, 8960, num_kv_heads=2),
        _shape(QWEN_TIED, "qwen2.5-coder-3b", 36, 2048, 16, 11008, num_kv_heads=2),
        _shape(QWEN_UNTIED, "qwen2.5-coder-7b", 28, 3584, 28, 18944, num_kv_heads=4),
        _shape(QWEN_UNTIED, "qwen2.5-coder-14b", 48, 5120, 40, 13824, num_kv_heads=8),
        _shape(QWEN_UNTIED, "qwen2.5-coder-32b", 64, 5120, 40, 27648, num_kv_heads=8),
        _shape(
            STARCODER2,
            "starcoder2-3b",
            30,
            3072,
            24,
            12288,
            num_kv_heads=2,
            rotary_theta=999999.4420358813,
        ),
        _shape(STARCODER2, "starcoder2-7b", 32, 4608, 36, 18432, num_kv_heads=4, rotary_theta=1e6),
        # Unlike its smaller siblings it has a head of its own: 15,957,889,024 are in its files.
        _shape(
            STARCODER2,
            "starcoder2-15b",
            40,
            6144,
            48,
            24576,
            num_kv_heads=4,
            rotary_theta=1e5,
            tied_head=False,
        ),
    )
}
