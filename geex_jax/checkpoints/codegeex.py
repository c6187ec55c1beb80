"""The official CodeGeeX checkpoint (`codegeex_13b.pt`): a table of names and shapes."""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

import numpy as np

from geex_jax.checkpoints import torch_file
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig

# official name inside a block -> our path inside a block; 2-D kernels are transposed.
BLOCK = {
    "input_layernorm.weight": "attention_norm/scale",
    "input_layernorm.bias": "attention_norm/bias",
    "attention.query.weight": "attention/query/kernel",
    "attention.query.bias": "attention/query/bias",
    "attention.key.weight": "attention/key/kernel",
    "attention.key.bias": "attention/key/bias",
    "attention.value.weight": "attention/value/kernel",
    "attention.value.bias": "attention/value/bias",
    "attention.dense.weight": "attention/output/kernel",
    "attention.dense.bias": "attention/output/bias",
    "post_attention_layernorm.weight": "mlp_norm/scale",
    "post_attention_layernorm.bias": "mlp_norm/bias",
    "mlp.dense_h_to_4h.weight": "mlp/up/kernel",
    "mlp.dense_h_to_4h.bias": "mlp/up/bias",
    "mlp.dense_4h_to_h.weight": "mlp/down/kernel",
    "mlp.dense_4h_to_h.bias": "mlp/down/bias",
}
REST = {
    "word_embeddings.weight": "embedding/tokens",
    "position_embeddings.weight": "embedding/positions",
    "top_query_embeddings.weight": "top_query/positions",
    "final_layernorm.weight": "final_norm/scale",
    "final_layernorm.bias": "final_norm/bias",
}
LAYER = re.compile(r"layers\.(\d+)\.(.+)")


def load(path: str | os.PathLike[str], **changes: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """Reads an official checkpoint file.

    Args:
      path: `torch.save`d {"module": {"language_model": ...}}.
      **changes: fields that the file does not tell: `num_heads` (40 for the 13B model; by default
        heads of 128), `vocab_size` to drop embedding rows beyond it.

    Returns:
      The config and the parameters (NumPy arrays in the file's dtype, layers stacked).

    Raises:
      GeexError: a tensor is missing, unknown, or of a shape that does not fit the others.
    """
    path = pathlib.Path(path)
    saved = torch_file.read(path)
    try:
        model = saved["module"]["language_model"]
        flat = {**_flatten(model["embedding"]), **_flatten(model["topQueryEmbedding"])}
        flat |= _flatten(model["transformer"])
    except (KeyError, TypeError) as error:
        raise GeexError(
            f"{path}: no {error} inside", "not an official CodeGeeX checkpoint"
        ) from None
    params, layers = _by_our_paths(flat, path)
    width = flat["word_embeddings.weight"].shape[1]
    rows, context = (params["embedding"][k].shape[0] for k in ("tokens", "positions"))
    fields = {
        "name": path.stem,
        "vocab_size": rows,
        "context_length": context,
        "d_model": width,
        "num_layers": layers,
        "num_heads": max(width // 128, 1),
        "d_ff": params["top_query"]["layer"]["mlp"]["up"]["kernel"].shape[1],
    } | changes
    config = ModelConfig(**fields)
    params["embedding"]["tokens"] = params["embedding"]["tokens"][: config.vocab_size]
    return config, params


def _flatten(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    out = {}
    for key, value in tree.items():
        name = f"{prefix}.{key}" if prefix else key
        out |= _flatten(value, name) if isinstance(value, dict) else {name: value}
    return out


def _by_our_paths(flat: dict[str, np.ndarray], path: pathlib.Path) -> tuple[dict[str, Any], int]:
    params: dict[str, Any] = {}
    stacks: dict[str, dict[int, np.ndarray]] = {}
    for name, array in flat.items():
        inside = LAYER.fullmatch(name)
        if name in REST:
            _put(params, REST[name], array)
        elif name.startswith("topQueryLayer.") and name[14:] in BLOCK:
            ours = BLOCK[name[14:]]
            _put(params, f"top_query/layer/{ours}", array.T if array.ndim == 2 else array)
        elif inside and inside[2] in BLOCK:
            ours = BLOCK[inside[2]]
            stacks.setdefault(ours, {})[int(inside[1])] = array.T if array.ndim == 2 else array
        else:
            raise GeexError(f"{path}: unknown tensor {name}", "not an official CodeGeeX checkpoint")
    layers = 1 + max((i for stack in stacks.values() for i in stack), default=-1)
    for outside, ours in BLOCK.items():
        for i in range(layers):
            if i not in stacks.get(ours, {}):
                raise GeexError(f"{path}: no tensor layers.{i}.{outside}", "fetch the file again")
        if f"topQueryLayer.{outside}" not in flat:
            raise GeexError(f"{path}: no tensor topQueryLayer.{outside}", "fetch the file again")
        _put(params, f"layers/{ours}", np.stack([stacks[ours][i] for i in range(layers)]))
    for outside in REST:
        if outside not in flat:
            raise GeexError(f"{path}: no tensor {outside}", "fetch the file again")
    return params, layers


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *folders, leaf = path.split("/")
    for folder in folders:
        tree = tree.setdefault(folder, {})
    tree[leaf] = value
