"""The families of outside checkpoints, by name; one file and two tables each."""

from geex_jax.checkpoints.families import (
    chatglm,
    codegeex,
    codegen,
    glm,
    gpt_neox,
    gptj,
    llama,
    qwen2,
    starcoder2,
    xglm,
)
from geex_jax.checkpoints.families.base import Binding, Family, Rule, expected_leaves
from geex_jax.checkpoints.families.configs import read_config, write_config

# Families with a Hugging Face config.json, by its `model_type`.
HUGGING_FACE: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (gptj, gpt_neox, codegen, xglm, llama, qwen2, starcoder2, glm, chatglm)
}

__all__ = [
    "HUGGING_FACE",
    "Binding",
    "Family",
    "Rule",
    "codegeex",
    "expected_leaves",
    "read_config",
    "write_config",
]
