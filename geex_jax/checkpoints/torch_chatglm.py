"""CodeGeeX2 and CodeGeeX4 under their original names, run as GLM of transformers by `geex verify`.

transformers has no class for the model type `chatglm` (the original repositories bring code of
their own), but its GLM computes the same once fused tensors are split. This file is independent
of our converter: a mistake made there shows here. Importing it needs PyTorch and transformers.
"""

from __future__ import annotations

import pathlib
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
from transformers.models.glm import modeling_glm  # pyright: ignore[reportMissingImports]

from geex_jax.errors import GeexError

# What GLM of transformers takes for granted.
USUAL = {
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "add_bias_linear": False,
    "interleaved_qkv": False,
    "tie_word_embeddings": False,
}
WHOLE = {
    "transformer.embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "transformer.encoder.final_layernorm.weight": "model.norm.weight",
    "transformer.output_layer.weight": "lm_head.weight",
}
INSIDE = {
    "self_attention.dense.": "self_attn.o_proj.",
    "mlp.dense_h_to_4h.": "mlp.gate_up_proj.",  # both have the gate's rows first
    "mlp.dense_4h_to_h.": "mlp.down_proj.",
}


def load(path: pathlib.Path, about: dict[str, Any], dtype: torch.dtype) -> Any:
    """Builds GlmForCausalLM from a folder.

    Args:
      path: the folder, with *.safetensors or pytorch_model*.bin.
      about: its config.json.
      dtype: of the parameters.

    Raises:
      GeexError: parts that GLM does not have, or files that do not fit the config.
    """
    config = glm_config(path, about)
    width = config.head_dim
    rows = [config.num_attention_heads * width, *[config.num_key_value_heads * width] * 2]
    state = {}
    for name, tensor in _tensors(path).items():
        if not name.endswith("rotary_pos_emb.inv_freq"):  # follows from the config
            state |= _glm_names(name, tensor.to(dtype), rows)
    with torch.device("meta"):  # the tensors of the files become the parameters
        model = modeling_glm.GlmForCausalLM(config)
    # Its table of frequencies is no parameter: made again, off the meta device.
    model.model.rotary_emb = modeling_glm.GlmRotaryEmbedding(config)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise GeexError(f"{path} does not fit its config ({reason})", "fetch it again") from None
    return model.eval()


def glm_config(path: pathlib.Path, about: dict[str, Any]) -> Any:
    """The config.json of a chatglm folder as a GlmConfig."""
    for field, usual in USUAL.items():
        if about.get(field, usual) != usual:
            raise GeexError(f"{path}: {field} = {about[field]} is not GLM", "not supported")
    try:
        heads = about["num_attention_heads"]
        groups = about["multi_query_group_num"] if about.get("multi_query_attention") else heads
        fields = {
            "vocab_size": about["padded_vocab_size"],
            "hidden_size": about["hidden_size"],
            "intermediate_size": about["ffn_hidden_size"],
            "num_hidden_layers": about["num_layers"],
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "head_dim": about.get("kv_channels") or about["hidden_size"] // heads,
            "rms_norm_eps": about["layernorm_epsilon"],
            "attention_bias": about.get("add_qkv_bias", False),
            "max_position_embeddings": about["seq_length"],
            # As transformers 4 spells them; 5 understands both.
            "rope_theta": 10000.0 * about.get("rope_ratio", 1),
            "partial_rotary_factor": 0.5,
            "pad_token_id": None,
        }
    except KeyError as error:
        raise GeexError(f"{path}/config.json lacks {error}", "fetch the folder again") from None
    config = transformers.GlmConfig(**fields)
    config._attn_implementation = "eager"
    return config


def _glm_names(name: str, tensor: torch.Tensor, rows: list[int]) -> dict[str, torch.Tensor]:
    """One ChatGLM tensor under GLM's names; `rows` are those of q, k and v in a fused one."""
    if name in WHOLE:
        return {WHOLE[name]: tensor}
    name = name.replace("transformer.encoder.layers.", "model.layers.")
    head, fused, kind = name.partition("self_attention.query_key_value.")
    if not fused:
        for theirs, glm in INSIDE.items():
            name = name.replace(theirs, glm)
        return {name: tensor}
    if tensor.shape[0] != sum(rows):
        raise GeexError(
            f"{name} has {tensor.shape[0]} rows, the config says {sum(rows)}",
            "the files do not belong to their config.json",
        )
    pieces = tensor.split(rows)
    return {f"{head}self_attn.{p}_proj.{kind}": x for p, x in zip("qkv", pieces, strict=True)}


def _tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """All tensors of the folder's files, memory-mapped."""
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in sorted(path.glob("*.safetensors")):
            tensors |= load_file(file)
        for file in sorted(path.glob("pytorch_model*.bin")) if not tensors else ():
            tensors |= torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # safetensors and torch raise many kinds for damaged files
        reason = (str(error) or type(error).__name__).strip().splitlines()[0][:200]
        raise GeexError(f"{path}: a file is unreadable ({reason})", "fetch it again") from error
    if not tensors:
        raise GeexError(f"{path} has no weights", "expected *.safetensors or pytorch_model*.bin")
    return tensors
