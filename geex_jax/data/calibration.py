"""Rows of real code for a calibration: of prepared data, or of any text files."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data.batches import Batch, check_split, make_batch, padding_row, read_rows
from geex_jax.errors import GeexError
from geex_jax.tokenizers import Tokenizer

BATCH = 4  # rows


def prepared_rows(folder: files.Path, tokens: int, split: str = "train") -> list[Batch]:
    """Batches of the first rows of every language, in turn, until they hold `tokens` tokens.

    The training split, so that what the calibration costs can be measured on the other.

    Raises:
      GeexError: no such data, or no rows in the split.
    """
    manifest = manifests.load(folder)
    sources = [read_rows(folder, split, name) for name in check_split(manifest, folder, split)]
    turns = itertools.zip_longest(*sources)
    rows = (row for turn in turns for row in turn if row is not None)
    taken = list(itertools.islice(rows, max(1, -(-tokens // manifest.seq_len))))
    empty = padding_row(manifest.seq_len + 1, 0, manifest.tokenizer.pad_id)
    taken += [empty] * (-len(taken) % BATCH)
    return [make_batch(taken[i : i + BATCH]) for i in range(0, len(taken), BATCH)]


def text_rows(
    paths: Sequence[files.Path], tokenizer: Tokenizer, length: int, tokens: int
) -> list[Batch]:
    """Batches of rows of `length` tokens of text files (folders: all files in them), in order.

    A file begins a row of its own; its last row is filled up with padding.

    Raises:
      GeexError: no such file, or none with text.
    """
    rows: list[np.ndarray] = []
    wanted = max(1, -(-tokens // length))
    for file in _files(paths):
        try:
            ids = tokenizer.encode(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # no text
        rows += [np.array(ids[i : i + length], np.int32) for i in range(0, len(ids), length)]
        if len(rows) >= wanted:
            break
    if not rows:
        raise GeexError("no text to calibrate on", "name files or folders of source code")
    rows = rows[:wanted]
    rows += [np.zeros(0, np.int32)] * (-len(rows) % BATCH)
    out: list[Any] = []
    for i in range(0, len(rows), BATCH):
        block = np.zeros((BATCH, length), np.int32)
        segments = np.zeros((BATCH, length), np.int32)
        for at, row in enumerate(rows[i : i + BATCH]):
            block[at, : len(row)], segments[at, : len(row)] = row, 1
        positions = np.broadcast_to(np.arange(length, dtype=np.int32), block.shape)
        out.append({"tokens": block, "positions": positions, "segment_ids": segments})
    return out


def _files(paths: Sequence[files.Path]) -> list[pathlib.Path]:
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, paths):
        if not path.exists():
            raise GeexError(f"no file or folder {path}", "check --text")
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found += inside
    return found
