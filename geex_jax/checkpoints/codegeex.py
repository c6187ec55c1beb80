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
from geex_jax.checkpoints.torch_pickle import one_line
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig
from geex_jax.parallel import by_path, tree_of

RANK = re.compile(r"mp_rank_(\d+)_model_states\.pt")
_LAYER = re.compile(r"layers\.(0|[1-9]\d{0,5})\.")


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """The official files at a path: itself, all ranks in it, or the one *.pt in it; [] if none."""
    if path.is_file():
        return [path]
    ranks = {int(m[1]): p for p in path.iterdir() if (m := RANK.fullmatch(p.name))}
    if ranks:
        return [ranks[rank] for rank in sorted(ranks)]
    others = [p for p in path.iterdir() if p.suffix in (".safetensors", ".bin")]
    alone = list(path.glob("*.pt"))
    return alone if len(alone) == 1 and not others else []


def open_codegeex(path: pathlib.Path, heads: int | None, vocab: int | None) -> Source:
    """An official file, or a folder of tensor-parallel parts.

    Raises:
      GeexError: no such file, ranks or tensors that are missing or do not belong together.
    """
    found = parts(path)
    if not found:
        raise GeexError(f"{path} holds no official checkpoint", "give its .pt file")
    flat = [_flat_codegeex(file) for file in found]
    _check_ranks(path, found, flat)
    fused = any("query_key_value" in name for name in flat[0])
    family = family_file.family(fused, len(found))
    split = {rule.outside: rule.split for rule in family.tensors}
    joined: Mapping[str, Lazy] = flat[0]
    if len(found) > 1:
        joined = {name: _joined(name, flat, split.get(_pattern(name))) for name in flat[0]}
    _check_layers(path, joined)
    if heads is None:
        heads = _neighbour_heads(path)
    elif heads < 1:
        raise GeexError(f"--num-heads {heads}", "give a number above 0")
    config = family_file.config_of(joined, path, heads).replace(name=path.stem)
    rows = joined["word_embeddings.weight"].shape[0]
    if vocab is not None:
        if not 0 < vocab <= rows:
            raise GeexError(f"--vocab-size {vocab}", f"the embedding in {path} has {rows} rows")
        config = config.replace(vocab_size=vocab)
    leaves = _leaves_of_codegeex(config, joined)
    return checked(Source(path, family, config, joined, leaves, family.bind(config, leaves)))


def _check_ranks(
    path: pathlib.Path, found: list[pathlib.Path], flat: list[dict[str, Lazy]]
) -> None:
    """All ranks are there, with the same tensors, each of one shape and dtype."""
    numbers = [int(m[1]) for file in found if (m := RANK.fullmatch(file.name)) and path.is_dir()]
    missing = sorted(set(range(len(numbers) and max(numbers) + 1)) - set(numbers))
    if missing:
        raise GeexError(f"{path}: no mp_rank_{missing[0]:02d}_model_states.pt", "bring all ranks")
    remedy = "bring ranks of one checkpoint"
    for file, tensors in zip(found[1:], flat[1:], strict=True):
        if differing := sorted(tensors.keys() ^ flat[0].keys()):
            lacking = found[0] if differing[0] in tensors else file
            raise GeexError(
                f"{lacking}: no tensor {one_line(differing[0])}, which other ranks have", remedy
            )
        for name, tensor in tensors.items():
            first = flat[0][name]
            if tensor.shape != first.shape or tensor.dtype != first.dtype:
                raise GeexError(
                    f"{file}: {one_line(name)} is {tensor.dtype.name} {list(tensor.shape)}, in "
                    f"{found[0].name} {first.dtype.name} {list(first.shape)}",
                    remedy,
                )


def _check_layers(path: pathlib.Path, tensors: Mapping[str, Lazy]) -> None:
    """Layers are numbered without gaps: a stray number would make a model of its size."""
    names = [name for name in tensors if name.startswith("layers.")]
    for name in names:
        if not _LAYER.match(name):
            raise GeexError(
                f"{path}: unknown tensor {one_line(name)}", "not an official checkpoint"
            )
    numbers = {int(name.split(".")[1]) for name in names}
    for i in range(len(numbers)):
        if i not in numbers:
            raise GeexError(f"{path}: no tensor of layers.{i}", "the checkpoint is incomplete")


def _joined(name: str, flat: list[dict[str, Lazy]], axis: int | None) -> Joined:
    # A tensor of too few dimensions is left as it is: its shape is refused later.
    fits = axis is not None and axis < len(flat[0][name].shape)
    return Joined(name, tuple(tensors[name] for tensors in flat), axis if fits else None)


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
            f"{file}: no {one_line(error)} inside",
            "give an official CodeGeeX checkpoint, or a folder",
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
                f"{file}: {one_line(prefix)} is no tensor", "give an official CodeGeeX checkpoint"
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
    name = scaled[0].removesuffix("_scale")
    inputs = config.d_ff if "dense_4h_to_h" in name else config.d_model
    packed = name in tensors and tensors[name].shape[1:] == (inputs // 2,)
    return quantized_leaves(config, 4 if packed else 8)


def quantized_leaves(config: ModelConfig, bits: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a quantized model's parameters by path, layers stacked."""
    shapes = expected_leaves(config).items()
    tree = tree_of({path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes})
    quantized = jax.eval_shape(lambda t: quantize.quantize_params(t, bits, "official"), tree)
    return {path: leaf.shape for path, leaf in by_path(quantized).items()}


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
