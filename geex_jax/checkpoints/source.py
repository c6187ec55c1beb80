"""An opened outside checkpoint: its family, its shape, and where each tensor lies."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from geex_jax.checkpoints.families import Binding, Family
from geex_jax.checkpoints.tensors import Joined, Lazy
from geex_jax.checkpoints.torch_pickle import one_line
from geex_jax.errors import GeexError
from geex_jax.models.config import ModelConfig
from geex_jax.parallel import tree_of

# The one tensor that may have more rows than the model: padding of some parallel layout.
TABLE = "word_embeddings.weight"
# Files that go along as they are.
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
    "LICENSE",
)


@dataclasses.dataclass(frozen=True)
class Source:
    """An opened checkpoint.

    Attributes:
      path: file or folder.
      family: its tables.
      config: the model.
      tensors: by outside name, buffers left out.
      leaves: shapes of our parameters, quantized or float.
      bindings: outside name -> what of ours it holds.
      original: its config.json, if it has one.
    """

    path: pathlib.Path
    family: Family
    config: ModelConfig
    tensors: Mapping[str, Lazy]
    leaves: Mapping[str, tuple[int, ...]]
    bindings: Mapping[str, Binding]
    original: Mapping[str, Any] | None = None

    @property
    def files(self) -> list[pathlib.Path]:
        """The files that hold tensors; for arrays of Orbax, their folders."""
        parts = (part for tensor in self.tensors.values() for part in parts_of(tensor))
        return sorted({file for part in parts if (file := getattr(part, "file", None))})

    def read(self, name: str) -> np.ndarray:
        """Reads an outside tensor, without rows beyond the vocabulary.

        Raises:
          GeexError: the file is cut short or damaged.
        """
        array = self.tensors[name].read()
        return array[: self.config.vocab_size] if name == TABLE else array


def checked(source: Source) -> Source:
    """Compares the tensors of the files with what the model needs."""
    config, family = source.config, source.family
    tensors = {n: t for n, t in source.tensors.items() if not family.skips(n)}
    tied = family.tied_copy if config.tied_head else None
    for name, binding in source.bindings.items():
        if name not in tensors:
            more = sum(n not in tensors for n in source.bindings) - 1
            also = f" (and {more} more are missing)" if more else ""
            raise GeexError(
                f"{place(source, name)}: no tensor {name}{also}",
                "bring all files of the checkpoint",
            )
        shape, wanted = tensors[name].shape, binding.shape
        if name == TABLE and len(shape) == 2 and shape[0] > wanted[0]:
            shape = (wanted[0], *shape[1:])  # rows beyond the padded vocabulary are dropped
        if shape != wanted:
            raise GeexError(
                f"{place(source, name)}: {name} has shape {list(shape)}, the config says "
                f"{list(wanted)}",
                "the files do not belong together, or the config was edited",
            )
    for name in tensors:
        if name not in source.bindings and name != tied:
            raise GeexError(
                f"{place(source, name)}: unknown tensor {one_line(name)}",
                f"not a plain {family.name} checkpoint, or its config.json says less than it holds",
            )
    return dataclasses.replace(source, tensors=tensors)


def parts_of(tensor: Lazy) -> list[Lazy]:
    """A tensor's parts, each in a file of its own; itself if it is whole."""
    return list(tensor.parts) if isinstance(tensor, Joined) else [tensor]


def place(source: Source, name: str) -> pathlib.Path:
    """The file that holds a tensor (or should), for messages; the source if that is many."""
    if name in source.tensors:
        return getattr(parts_of(source.tensors[name])[0], "file", None) or source.path
    return source.files[0] if len(source.files) == 1 else source.path


def side_files(source: Source) -> list[pathlib.Path]:
    """Config, tokenizer and licence files that go along."""
    folder = source.path if source.path.is_dir() else source.path.parent
    if source.family.name == "geex":
        folder = folder / "source"
    return [folder / name for name in SIDE_FILES if (folder / name).is_file()]


def read_params(source: Source) -> dict[str, Any]:
    """All parameters in memory, as NumPy arrays in their own types, layers stacked."""
    flat: dict[str, Any] = {}
    for name, binding in source.bindings.items():
        for path, array in binding.inward(source.read(name)).items():
            if binding.layer is None:
                flat[path] = array
            else:
                shape = source.leaves[path]
                flat.setdefault(path, np.empty(shape, array.dtype))[binding.layer] = array
    return tree_of(flat)
