"""Opens the official CodeGeeX checkpoint: one file, or a folder of tensor-parallel parts."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from geex_jax import files, quantize
from geex_jax.checkpoints import torch_file
from geex_jax.checkpoints.families import codegeex as family_file
from geex_jax.checkpoints.families import expected_leaves
from geex_jax.checkpoints.huggingface import read_json
from geex_jax.checkpoints.source import Source, checked, read_params
from geex_jax.checkpoints.tensors import Joined, Lazy, Tensor
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig
from geex_jax.parallel import path_of

RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")


def open_codegeex(path: pathlib.Path, heads: int | None, vocab: int | None) -> Source:
    """An official file, or a folder of tensor-parallel parts."""
    if path.is_file():
        parts = [path]
    else:
        parts = sorted(p for p in path.iterdir() if RANK.fullmatch(p.name))
        numbers = [int(RANK.fullmatch(p.name)[1]) for p in parts]  # type: ignore[index]
        missing = sorted(set(range(max(numbers) + 1)) - set(numbers))
        if missing:
            raise GeexError(
                f"{path}: no mp_rank_{missing[0]:02d}_model_states.pt", "bring all ranks"
            )
    flat = [_flat_codegeex(part) for part in parts]
    for part, tensors in zip(parts[1:], flat[1:], strict=True):
        if differing := sorted(tensors.keys() ^ flat[0].keys()):
            raise GeexError(
                f"{part}: {differing[0]} is not in every rank", "bring ranks of one checkpoint"
            )
    fused = any("query_key_value" in name for name in flat[0])
    family = family_file.family(fused, len(parts))
    split = {rule.outside: rule.split for rule in family.tensors}
    joined = (
        flat[0]
        if len(parts) == 1
        else {
            name: Joined(name, tuple(f[name] for f in flat), split.get(_pattern(name)))
            for name in flat[0]
        }
    )
    if heads is None:
        heads = _neighbour_heads(path)
    config = family_file.config_of(joined, path, heads).replace(name=path.stem)
    rows = joined["word_embeddings.weight"].shape[0]
    if vocab is not None:
        if not 0 < vocab <= rows:
            raise GeexError(f"--vocab-size {vocab}", f"the checkpoint has {rows} rows")
        config = config.replace(vocab_size=vocab)
    leaves = _leaves_of_codegeex(config, joined)
    return checked(Source(path, family, config, joined, leaves, family.bind(config, leaves)))


def _pattern(name: str) -> str:
    return re.sub(r"^layers\.\d+\.", "layers.{i}.", name)


def _neighbour_heads(path: pathlib.Path) -> int | None:
    """The number of heads by a config.json beside the checkpoint."""
    for folder in (path, path.parent):
        file = folder / "config.json"
        if file.is_file():
            found = read_json(file, folder).get("num_attention_heads")
            if isinstance(found, int) and found > 0:
                return found
    return None


def _flat_codegeex(file: pathlib.Path) -> dict[str, Lazy]:
    saved = torch_file.index(file)
    try:
        model = saved["module"]["language_model"]
        trees = [model["embedding"], model["topQueryEmbedding"], model["transformer"]]
    except (KeyError, TypeError, IndexError) as error:
        raise GeexError(
            f"{file}: no {error} inside", "give an official CodeGeeX checkpoint, or a folder"
        ) from None
    flat: dict[str, Lazy] = {}

    def walk(tree: Any, prefix: str) -> None:
        if isinstance(tree, dict):
            for key, value in tree.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        elif isinstance(tree, Tensor):
            flat[prefix] = dataclasses.replace(tree, name=prefix)
        else:
            raise GeexError(
                f"{file}: {prefix} is no tensor", "give an official CodeGeeX checkpoint"
            )

    for tree in trees:
        walk(tree, "")
    return flat


def _leaves_of_codegeex(
    config: ModelConfig, tensors: Mapping[str, Lazy]
) -> dict[str, tuple[int, ...]]:
    scaled = [name for name in tensors if name.endswith(".weight_scale")]
    if not scaled:
        return expected_leaves(config)
    weight = tensors.get(scaled[0].removesuffix("_scale"))
    bits = 4 if weight is not None and weight.shape[1] * 2 in (config.d_model, config.d_ff) else 8
    return quantized_leaves(config, bits)


def quantized_leaves(config: ModelConfig, bits: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a quantized model's parameters by path, layers stacked."""
    tree: dict[str, Any] = {}
    for path, shape in expected_leaves(config).items():
        *folders, leaf = path.split("/")
        here = tree
        for folder in folders:
            here = here.setdefault(folder, {})
        here[leaf] = jax.ShapeDtypeStruct(shape, np.float32)
    quantized = jax.eval_shape(lambda t: quantize.quantize_params(t, bits, "official"), tree)
    flat = jax.tree_util.tree_flatten_with_path(quantized)[0]
    return {path_of(path): leaf.shape for path, leaf in flat}


def load(path: files.Path, **changes: Any) -> tuple[ModelConfig, dict[str, Any]]:
    """Reads an official checkpoint into memory; `convert` is for large ones.

    Args:
      path: see `open_codegeex`.
      **changes: fields that the file does not tell: `num_heads`, `vocab_size`; others of
        ModelConfig are taken over.

    Returns:
      The config and the parameters (NumPy arrays in the file's dtype, layers stacked).

    Raises:
      GeexError: as `open_codegeex`.
    """
    heads, vocab = changes.pop("num_heads", None), changes.pop("vocab_size", None)
    source = open_codegeex(pathlib.Path(path), heads, vocab)
    return source.config.replace(**changes), read_params(source)
