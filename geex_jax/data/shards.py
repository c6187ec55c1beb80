"""Packed rows to ArrayRecord shards, resumable at every shard's end."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from geex_jax.data import encode, manifest, pack, records, workers
from geex_jax.data.encode import Encoder
from geex_jax.data.journal import ShardDone
from geex_jax.data.scan import Kept
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

if TYPE_CHECKING:
    from geex_jax.data.journal import Journal

SHARD_BYTES = 128 * 1024 * 1024
# One row a group, so that reading one row decompresses one row. Measured on rows of 2,049 ids of a
# 16,000-word vocabulary: zstd:1 stores 45 % of the bytes at 135 MB/s and 15 us a read; zstd:3 43 %,
# uncompressed 106 % and 7 us; brotli:3 43 % at 45 MB/s. All give the same bytes each time.
OPTIONS = "group_size:1,zstd:1"

Group = tuple[str, int]


class _Todo(NamedTuple):
    """A group's work left: where its next row begins, and the files still to be encoded."""

    group: Group
    files: int
    shard: int
    document: int
    offset: int
    chunks: list[list[Kept]]


def default_rows(row_length: int, dtype: np.dtype) -> int:
    """Returns how many rows make a shard of about SHARD_BYTES."""
    return max(1, SHARD_BYTES // (row_length * dtype.itemsize))


def write_shards(
    groups: Mapping[Group, list[Kept]],
    encoder: Encoder,
    journal: Journal,
    *,
    row_length: int,
    rows_per_shard: int,
    worker_count: int | None,
    on_start: Callable[[int], None],
    on_bytes: Callable[[int], None],
) -> dict[Group, list[ShardDone]]:
    """Encodes, packs and writes what an earlier run has not; returns the shards of each group.

    Args:
      groups: (split, language) to files, in order.
      encoder: the tokenizer's worker.
      journal: knows the finished shards and learns of new ones.
      row_length: seq_len + 1.
      rows_per_shard: rows in each shard but a group's last.
      worker_count: processes; None for one per core.
      on_start: told how many bytes an earlier run has done.
      on_bytes: told how many more bytes of files have become rows.
    """
    done: dict[Group, list[ShardDone]] = {group: [] for group in groups}
    for shard in journal.shards():
        done[shard.split, shard.language].append(shard)
    todo, before = [], 0
    for group, kept in groups.items():
        last = done[group][-1] if done[group] else None
        document, offset = (last.next_document, last.next_offset) if last else (0, 0)
        before += sum(file.size for file in kept[:document])
        if document < len(kept):
            parts = encode.chunks(kept[document:])
            todo.append(_Todo(group, len(kept), len(done[group]), document, offset, parts))
    on_start(before)
    tasks = [chunk for work in todo for chunk in work.chunks]
    with contextlib.closing(workers.ordered_map(encoder, tasks, worker_count)) as encoded:
        for work in todo:
            rows = pack.concat(
                _documents(encoded, work.chunks, on_bytes),
                row_length,
                encoder.prefix(work.group[1]),
                encoder.tokenizer.pad_id,
                first_document=work.document,
                first_offset=work.offset,
            )
            for shard in _write_group(work, rows, rows_per_shard, encoder.dtype, journal):
                done[work.group].append(shard)
    return done


def _documents(
    encoded: Iterator[list[np.ndarray]], chunks: list[list[Kept]], on_bytes: Callable[[int], None]
) -> Iterator[pack.Tokens]:
    for chunk in chunks:
        yield from map(pack.Tokens, next(encoded))
        on_bytes(sum(file.size for file in chunk))


def _write_group(
    work: _Todo,
    rows: Iterator[pack.PackedRow],
    rows_per_shard: int,
    dtype: np.dtype,
    journal: Journal,
) -> Iterator[ShardDone]:
    split, language = work.group
    for number in itertools.count(work.shard):
        first = next(rows, None)
        if first is None:
            return
        path = work_path(journal.folder, split, language, number)
        batch = itertools.chain([first], itertools.islice(rows, rows_per_shard - 1))
        count, tokens, last = _write_file(path, batch, language, dtype)
        shard = ShardDone(
            split, language, number, count, tokens, last.next_document, last.next_offset
        )
        journal.add_shard(shard)
        yield shard


def _write_file(
    path: pathlib.Path, rows: Iterator[pack.PackedRow], language: int, dtype: np.dtype
) -> tuple[int, int, pack.PackedRow]:
    """Writes one shard, whole or not at all; returns its rows, its tokens and its last row."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    count, tokens, last = 0, 0, None
    try:
        writer = ArrayRecordWriter(str(temporary), OPTIONS)
        for last in rows:
            row = records.Row(last.tokens, last.starts, last.used, language, last.prompts)
            writer.write(records.encode_row(row, dtype))
            count, tokens = count + 1, tokens + last.used
        writer.close()
        reader = ArrayRecordReader(str(temporary), "")
        written = reader.num_records()
        reader.close()
    except (RuntimeError, ValueError) as error:  # ArrayRecord's way to report a failed write
        raise _cannot_write(path, str(error)) from None
    if written != count or last is None:
        raise _cannot_write(path, f"{written} of {count} rows arrived")
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return count, tokens, last


def _cannot_write(path: pathlib.Path, why: str) -> GeexError:
    why = " ".join(why.split())
    return GeexError(
        f"cannot write {path} ({why})",
        "free some disk space and run the same command again: it resumes",
    )


def work_path(folder: pathlib.Path, split: str, language: int, number: int) -> pathlib.Path:
    """Returns where a shard lies before the number of shards is known."""
    return folder / "shards" / split / f"{LANGUAGES[language].slug}-{number:05d}.arrayrecord"


def publish(folder: pathlib.Path, output: pathlib.Path, group: Group, count: int) -> None:
    """Moves a group's shards to their final names; those moved already stay.

    Raises:
      GeexError: a shard is gone.
    """
    split, language = group
    for number in range(count):
        source = work_path(folder, split, language, number)
        name = manifest.shard_name(LANGUAGES[language].slug, number, count)
        target = output / split / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            os.replace(source, target)
        elif not target.exists():
            raise GeexError(f"{source} is gone", "start anew with --overwrite")
