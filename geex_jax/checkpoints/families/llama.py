"""Llama: CodeLlama, DeepSeek-Coder and whatever else takes its form."""

from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.checkpoints.families.fields import activation, epsilon, head_dim, kv_heads, rope, same

H, L = "model.layers.{i}", "layers"

SIZES = (
    same("vocab_size", "vocab_size"),
    same("max_position_embeddings", "context_length"),
    same("hidden_size", "d_model"),
    same("num_hidden_layers", "num_layers"),
    same("num_attention_heads", "num_heads"),
    same("intermediate_size", "d_ff"),
)
GATED = {"position": "rotary", "norm": "rmsnorm", "gated_mlp": True, "output_bias": False}
ATTENTION = (
    *tensor("model.embed_tokens.weight", "embedding/tokens"),
    *norm(f"{H}.input_layernorm", f"{L}/attention_norm"),
    *linear(f"{H}.self_attn.q_proj", f"{L}/attention/query"),
    *linear(f"{H}.self_attn.k_proj", f"{L}/attention/key"),
    *linear(f"{H}.self_attn.v_proj", f"{L}/attention/value"),
    *linear(f"{H}.self_attn.o_proj", f"{L}/attention/output"),
    *norm(f"{H}.post_attention_layernorm", f"{L}/mlp_norm"),
    *norm("model.norm", "final_norm"),
    *tensor("lm_head.weight", "head/kernel"),
)
MLP = (
    *linear(f"{H}.mlp.gate_proj", f"{L}/mlp/gate"),
    *linear(f"{H}.mlp.up_proj", f"{L}/mlp/up"),
    *linear(f"{H}.mlp.down_proj", f"{L}/mlp/down"),
)
BUFFERS = (r"model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",)

FAMILY = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    example="codellama/CodeLlama-7b-hf",
    fields=(
        *SIZES,
        kv_heads(default=None),
        head_dim(),
        rope(),
        epsilon("rms_norm_eps", 1e-6),
        same("attention_bias", "qkv_bias", "output_bias", default=False, kind=bool),
        same("mlp_bias", "mlp_bias", default=False, kind=bool),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
        activation("hidden_act", default="silu"),
    ),
    parts=GATED,
    tensors=(*ATTENTION, *MLP),
    ignored=BUFFERS,
    tied_copy="lm_head.weight",
)
