"""GPT-NeoX: q, k, v fused head by head, half-split rotary positions on a part of each head."""

from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.checkpoints.families.fields import activation, choice, epsilon, rope, same

H, L = "gpt_neox.layers.{i}", "layers"

FAMILY = Family(
    name="gpt_neox",
    architecture="GPTNeoXForCausalLM",
    example="EleutherAI/gpt-neox-20b",
    fields=(
        same("vocab_size", "vocab_size"),
        same("max_position_embeddings", "context_length"),
        same("hidden_size", "d_model"),
        same("num_hidden_layers", "num_layers"),
        same("num_attention_heads", "num_heads"),
        same("intermediate_size", "d_ff"),
        rope("rotary_emb_base", "rotary_pct", default_partial=0.25),
        epsilon("layer_norm_eps", 1e-5),
        same("attention_bias", "qkv_bias", "output_bias", default=True, kind=bool),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
        choice("use_parallel_residual", "residual", {True: "parallel", False: "serial"}, True),
        activation("hidden_act", "gelu_fast", default="gelu"),
    ),
    parts={"position": "rotary"},
    tensors=(
        *tensor("gpt_neox.embed_in.weight", "embedding/tokens"),
        *norm(f"{H}.input_layernorm", f"{L}/attention_norm"),
        *linear(
            f"{H}.attention.query_key_value",
            f"{L}/attention/query",
            f"{L}/attention/key",
            f"{L}/attention/value",
            blocks=lambda config: config.num_heads,
        ),
        *linear(f"{H}.attention.dense", f"{L}/attention/output"),
        *norm(f"{H}.post_attention_layernorm", f"{L}/mlp_norm"),
        *linear(f"{H}.mlp.dense_h_to_4h", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.dense_4h_to_h", f"{L}/mlp/down"),
        *norm("gpt_neox.final_layer_norm", "final_norm"),
        *tensor("embed_out.weight", "head/kernel"),
    ),
    ignored=(
        r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        r"gpt_neox\.rotary_emb\.inv_freq",
    ),
    tied_copy="embed_out.weight",
)
