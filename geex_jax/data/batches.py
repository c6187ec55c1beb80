"""Rows to batches, and the finite pass over a split that evaluation makes."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data import megatron, records
from geex_jax.data.manifest import Manifest
from geex_jax.data.records import Row
from geex_jax.errors import GeexError

Batch = dict[str, np.ndarray]
_READ_ROWS = 256


def make_batch(rows: Sequence[Row]) -> Batch:
    """Returns the batch of some rows of the same length.

    `tokens`, `targets`, `positions`, `segment_ids` int32 [B, S]; `loss_mask` float32 [B, S], 0 on
    padding, where the target is the first token of the next segment, and where it is one of the
    tokens of a prompt; `language` int32 [B].
    """
    count, length = len(rows), len(rows[0].tokens)
    # One block of memory for all five: the allocator then gives the same pages again and again,
    # where five of this size would each be returned to the system and faulted in anew.
    block = np.empty((5, count, length - 1), np.int32)
    tokens, targets, positions, segment_ids, mask = block
    loss_mask = mask.view(np.float32)
    for i, row in enumerate(rows):
        tokens[i] = row.tokens[:-1]
        targets[i] = row.tokens[1:]
    begins, sizes, numbers, heads = _pieces(rows, length)
    segment_ids[:] = np.repeat(numbers, sizes).reshape(count, length)[:, :-1]
    columns = np.arange(length - 1, dtype=np.int32)
    np.subtract(columns, np.repeat(begins, sizes).reshape(count, length)[:, :-1], out=positions)
    for i, row in enumerate(rows):
        positions[i, row.used :] = 0
    learned = np.tile(np.array([0, 1], np.float32), len(heads))
    learned = np.repeat(learned, np.stack([heads, sizes - heads], axis=1).reshape(-1))
    loss_mask[:] = learned.reshape(count, length)[:, 1:]
    return {
        "tokens": tokens,
        "targets": targets,
        "positions": positions,
        "segment_ids": segment_ids,
        "loss_mask": loss_mask,
        "language": np.array([row.language for row in rows], np.int32),
    }


def _pieces(rows: Sequence[Row], length: int) -> tuple[np.ndarray, ...]:
    """Cuts rows, laid end to end, into segments and padding.

    Returns for each piece [P] where in its row it begins, its length, its number from 1 in its row
    (0: padding), and how many tokens at its head are not learned. Every row has a piece of
    padding, be it of no length, so that row i's are at fixed places.
    """
    segments = np.array([len(row.starts) for row in rows])
    lasts = np.cumsum(segments + 1) - 1  # the padding's places
    total = int(lasts[-1]) + 1
    inside = np.ones(total, bool)
    inside[lasts] = False
    begins = np.empty(total, np.int64)
    begins[lasts] = [row.used for row in rows]
    begins[inside] = np.concatenate([row.starts for row in rows])
    at = begins + np.repeat(np.arange(len(rows)) * length, segments + 1)
    sizes = np.diff(at, append=len(rows) * length)
    numbers = np.arange(1, total + 1) - np.repeat(lasts - segments, segments + 1)
    numbers[lasts] = 0
    heads = np.ones(total, np.int64)
    if any(row.prompts is not None for row in rows):
        zeros = [np.zeros(n, np.int64) if r.prompts is None else r.prompts
                 for r, n in zip(rows, segments, strict=True)]  # fmt: skip
        heads[inside] = np.maximum(np.concatenate(zeros), 1)
    heads = np.minimum(heads, sizes)
    heads[lasts] = sizes[lasts]
    return begins.astype(np.int32), sizes, numbers.astype(np.int32), heads


def padding_row(length: int, language: int, pad_id: int) -> Row:
    """Returns a row of nothing but padding."""
    return Row(np.full(length, pad_id, np.int32), np.zeros(0, np.int64), 0, language)


def local_rows(batch_size: int, process_index: int, process_count: int) -> range:
    """Returns which rows of a global batch belong to this process.

    Raises:
      GeexError: the batch cannot be shared out evenly.
    """
    if batch_size < 1 or process_count < 1 or not 0 <= process_index < process_count:
        raise GeexError(
            f"no batch of {batch_size} rows for process {process_index} of {process_count}",
            "give a positive batch size and a process index below the process count",
        )
    if batch_size % process_count:
        raise GeexError(
            f"batch size {batch_size} does not divide by {process_count} processes",
            f"use {batch_size // process_count * process_count + process_count}",
        )
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


def check_split(manifest: Manifest, folder: files.Path, split: str) -> list[str]:
    """Returns the names of the languages that have rows in the split, in index order.

    Raises:
      GeexError: no such split, no rows in it, or a shard is missing.
    """
    if split not in manifest.splits:
        raise GeexError(f"unknown split {split!r}", f"use {' or '.join(manifest.splits)}")
    amounts = manifest.splits[split]
    names = [x.name for x in manifest.languages if x.name in amounts and amounts[x.name].rows]
    if not names:
        raise GeexError(
            f"{folder} has no rows in its {split} split",
            "prepare more input, or another --validation-fraction",
        )
    for name in names:
        for path in manifest.shard_paths(folder, split, name):
            if not path.is_file():
                raise GeexError(f"shard {path} is missing", "run geex prepare --overwrite again")
    return names


def check_rows(count: int, manifest: Manifest, split: str, name: str) -> None:
    """Raises GeexError when the shards of a language hold another number of rows than said."""
    expected = manifest.amount(split, name).rows
    if count != expected:
        raise GeexError(
            f"the {split} shards of {name} hold {count} rows, the manifest says {expected}",
            "run geex prepare --overwrite again",
        )


def read_rows(folder: files.Path, split: str, name: str) -> Iterator[Row]:
    """Yields the rows of one language of a split, in order, a few at a time in memory.

    Raises:
      GeexError: a shard is missing or damaged.
    """
    manifest = manifests.load(folder)
    check_split(manifest, folder, split)
    outside = megatron.rows(manifest, split, name)
    if outside is not None:
        yield from outside
        return
    total = 0
    for path in manifest.shard_paths(folder, split, name):
        try:
            for data in _read_records(path):
                total += 1
                yield records.decode_row(data)
        except (RuntimeError, ValueError, IndexError) as error:  # ArrayRecord's ways to complain
            raise damaged(path, error) from None
    check_rows(total, manifest, split, name)


def _read_records(path: pathlib.Path) -> Iterator[bytes]:
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path), "")
    count = reader.num_records()
    for start in range(0, count, _READ_ROWS):
        yield from reader.read(start, min(start + _READ_ROWS, count))
    reader.close()


def damaged(what: object, error: Exception) -> GeexError:
    """Returns the error for shards that ArrayRecord cannot read."""
    why = " ".join(str(error).split())
    return GeexError(f"cannot read {what} ({why})", "run geex prepare --overwrite again")


def eval_batches(
    folder: files.Path,
    split: str,
    batch_size: int,
    *,
    max_batches_per_language: int | None = None,
    languages: Sequence[str] = (),
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields this process's part of one unshuffled pass over a split.

    Each batch holds rows of one language; a language's last batch is filled up with rows of
    padding (`segment_ids` and `loss_mask` 0). Every process yields the same number of batches.

    Args:
      folder: prepared data.
      split: "train" or "validation".
      batch_size: rows in a batch over all processes.
      max_batches_per_language: stop early in each language.
      languages: names of the languages to visit; empty for all that have rows.
      process_index: which process this is.
      process_count: how many there are.
    """
    manifest = manifests.load(folder)
    mine = local_rows(batch_size, process_index, process_count)
    wanted = {manifest.language_index(name) for name in languages}
    for name in check_split(manifest, folder, split):
        index = manifest.language_index(name)
        if wanted and index not in wanted:
            continue
        empty = padding_row(manifest.seq_len + 1, index, manifest.tokenizer.pad_id)
        rows: list[Row] = []
        made = 0
        for row in read_rows(folder, split, name):
            rows.append(row)
            if len(rows) == batch_size:
                yield make_batch(rows[mine.start : mine.stop])
                rows, made = [], made + 1
                if made == max_batches_per_language:
                    break
        if rows and made != max_batches_per_language:
            rows += [empty] * (batch_size - len(rows))
            yield make_batch(rows[mine.start : mine.stop])
