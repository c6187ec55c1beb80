"""CodeGen: GPT-J with q, v, k (in this order) fused into four blocks, one for each TPU core."""

from geex_jax.checkpoints.families import gptj
from geex_jax.checkpoints.families.base import Family, linear, norm, tensor
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig

H, L = "transformer.h.{i}", "layers"


def blocks(config: ModelConfig) -> int:
    """The four blocks of the published code, which the head count must divide into."""
    if config.num_heads % 4:
        raise GeexError(
            f"codegen with n_head = {config.num_heads}", "its fused qkv needs a multiple of 4 heads"
        )
    return 4


FAMILY = Family(
    name="codegen",
    architecture="CodeGenForCausalLM",
    example="Salesforce/codegen-16B-multi",
    fields=gptj.FAMILY.fields,
    parts=gptj.FAMILY.parts,
    tensors=(
        *tensor("transformer.wte.weight", "embedding/tokens"),
        *norm(f"{H}.ln_1", f"{L}/attention_norm"),
        *linear(
            f"{H}.attn.qkv_proj",
            f"{L}/attention/query",
            f"{L}/attention/value",
            f"{L}/attention/key",
            blocks=blocks,
        ),
        *linear(f"{H}.attn.out_proj", f"{L}/attention/output"),
        *linear(f"{H}.mlp.fc_in", f"{L}/mlp/up"),
        *linear(f"{H}.mlp.fc_out", f"{L}/mlp/down"),
        *norm("transformer.ln_f", "final_norm"),
        *linear("lm_head", "head"),
    ),
    ignored=(r"transformer\.h\.\d+\.attn\.(causal_mask|bias|masked_bias|scale_attn)",),
    tied_copy="lm_head.weight",
)
