"""GPT-J: parallel branches after one norm, interleaved rotary positions, a head with a bias."""

from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.checkpoints.families.fields import Field, activation, epsilon, same

H, L = "transformer.h.{i}", "layers"

FAMILY = Family(
    name="gptj",
    architecture="GPTJForCausalLM",
    example="EleutherAI/gpt-j-6b",
    fields=(
        same("vocab_size", "vocab_size"),
        same("n_positions", "context_length"),
        same("n_embd", "d_model"),
        same("n_layer", "num_layers"),
        same("n_head", "num_heads"),
        same("n_inner", "d_ff", default=lambda ours: 4 * ours["d_model"]),
        Field(
            ("rotary_dim",),
            lambda raw, ours: {"rotary_dim": raw.size("rotary_dim")},
            lambda config: {"rotary_dim": config.rotated},
        ),
        epsilon("layer_norm_epsilon", 1e-5),
        same("tie_word_embeddings", "tied_head", default=False, kind=bool),
        activation("activation_function", "gelu_new", default="gelu_new"),
    ),
    only={"rotary": (True,)},
    parts={
        "position": "rotary",
        "rotary_style": "interleaved",
        "residual": "parallel",
        "shared_norm": True,
        "qkv_bias": False,
        "output_bias": False,
        "head_bias": True,
    },
    tensors=(
        *tensor("transformer.wte.weight", "embedding/tokens"),
        *norm(f"{H}.ln_1", f"{L}/attention_norm"),
        *linear(f"{H}.attn.q_proj", f"{L}/attention/query"),
        *linear(f"{H}.attn.k_proj", f"{L}/attention/key"),
        *linear(f"{H}.attn.v_proj", f"{L}/attention/value"),
        *linear(f"{H}.attn.out_proj", f"{L}/attention/output"),
        *linear(f"{H}.mlp.fc_in", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.fc_out", f"{L}/mlp/down"),
        *norm("transformer.ln_f", "final_norm"),
        *linear("lm_head", "head"),
    ),
    ignored=(r"transformer\.h\.\d+\.attn\.(bias|masked_bias|scale_attn|embed_positions)",),
    tied_copy="lm_head.weight",
)
