"""GLM-4 in transformers' form, which is CodeGeeX4's: gate and up fused, half of a head rotated."""

from geex_jax.checkpoints.families.base import Family, linear
from geex_jax.checkpoints.families.fields import activation, epsilon, head_dim, kv_heads, rope, same
from geex_jax.checkpoints.families.llama import ATTENTION, BUFFERS, GATED, SIZES, H, L

FAMILY = Family(
    name="glm",
    architecture="GlmForCausalLM",
    example="THUDM/glm-4-9b-hf",
    fields=(
        *SIZES,
        kv_heads(),
        head_dim(default=128),  # the class's own, whatever d_model is
        rope(default_partial=0.5),
        epsilon("rms_norm_eps", 1.5625e-07),
        same("attention_bias", "qkv_bias", default=True, kind=bool),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
        activation("hidden_act", default="silu"),
    ),
    parts=GATED | {"mlp_bias": False, "rotary_style": "interleaved"},
    tensors=(
        *ATTENTION,
        *linear(f"{H}.mlp.gate_up_proj", f"{L}/mlp/gate", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.down_proj", f"{L}/mlp/down"),
    ),
    ignored=BUFFERS,
    tied_copy="lm_head.weight",
)
