"""From source trees to the list of files worth training on, in parallel and deterministic."""

from __future__ import annotations

import collections
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from geex_jax.data import sources, workers
from geex_jax.data.filters import Filters
from geex_jax.data.sources import Found
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)
BLOCK_FILES = 256


class Kept(NamedTuple):
    """A file that passed. `sha256` and `size` are of its text in UTF-8, without a mark (BOM)."""

    path: str
    language: int
    sha256: str
    size: int


class Block(NamedTuple):
    """What became of one block of files; what a scan remembers across a kill.

    `kept`: (number in the block, language, sha256, size); `dropped`: (language or -1, reason,
    count).
    """

    kept: list[tuple[int, int, str, int]]
    dropped: list[tuple[int, str, int]]


class Scanned(NamedTuple):
    """The files kept, in the order of the walk, and counts of the others by (language, reason)."""

    kept: list[Kept]
    dropped: collections.Counter[tuple[int, str]]


class Scanner:
    """Reads, filters and hashes blocks of files. A worker process gets one of these."""

    def __init__(self, filters: Filters, languages: frozenset[int] = frozenset()):
        self.filters = filters
        self.languages = languages

    def __call__(self, block: Sequence[Found]) -> Block:
        """Looks at each file of the block."""
        kept: list[tuple[int, int, str, int]] = []
        dropped: collections.Counter[tuple[int, str]] = collections.Counter()
        for number, found in enumerate(block):
            language, outcome = self.read(found)
            if isinstance(outcome, str):
                dropped[language, outcome] += 1
            else:
                kept.append((number, language, hashlib.sha256(outcome).hexdigest(), len(outcome)))
        return Block(kept, [(a, b, n) for (a, b), n in sorted(dropped.items())])

    def read(self, found: Found) -> tuple[int, str | bytes]:
        """Returns (language, text in UTF-8), or (language or -1, reason) for a dropped file."""
        language, filters = found.language, self.filters
        if not found.ask_content:
            if self.languages and language not in self.languages:
                return language, "other_language"
            if reason := filters.judge_size(found.size):  # no need to open it
                return language, reason
        try:
            data = read_bytes(found.path, filters.max_bytes + 1 if filters.max_bytes else -1)
        except OSError:
            return language, "unreadable"
        if found.ask_content:
            answer = sources.by_content(found.path, data)
            if answer is None:
                return -1, "unknown_language"
            language = answer
            if self.languages and language not in self.languages:
                return language, "other_language"
        if reason := filters.judge_size(len(data)):
            return language, reason
        if b"\0" in data:
            return language, "binary"
        data = without_mark(data)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return language, "broken_utf8"
        return language, filters.judge_text(text) or data


def read_bytes(path: str, limit: int = -1) -> bytes:
    """Returns at most `limit` bytes of a regular file; never waits on a pipe.

    Raises:
      OSError: it cannot be read or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read(limit)


def without_mark(data: bytes) -> bytes:
    """Returns UTF-8 data without the byte order mark at its head."""
    return data.removeprefix(b"\xef\xbb\xbf")


def read_kept(kept: Kept) -> str:
    """Returns the text of a file that the scan kept.

    Raises:
      GeexError: the file is gone or is not what the scan saw.
    """
    try:
        data = without_mark(read_bytes(kept.path))
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() != kept.sha256:
        raise GeexError(
            f"{kept.path!r} changed while it was being prepared",
            "run again with --overwrite when the input rests",
        )
    return data.decode()


def blocks(found: Sequence[Found]) -> list[Sequence[Found]]:
    """Returns the files in blocks of BLOCK_FILES, the scan's unit of work."""
    return [found[i : i + BLOCK_FILES] for i in range(0, len(found), BLOCK_FILES)]


def scan(
    found: Sequence[Found],
    scanner: Scanner,
    *,
    worker_count: int | None = None,
    done: Sequence[Block] = (),
    on_block: Callable[[Block], None] | None = None,
) -> Scanned:
    """Reads all files; drops duplicates (the first in the order of the walk stays).

    Args:
      found: the walk's files.
      scanner: the filters.
      worker_count: processes; None for one per core.
      done: results of the first blocks, from an earlier run.
      on_block: told of each further block's result, in order.
    """
    todo = blocks(found)
    kept: list[Kept] = []
    dropped: collections.Counter[tuple[int, str]] = collections.Counter()
    seen: set[str] = set()

    def results() -> Iterator[Block]:
        yield from done
        for block in workers.ordered_map(scanner, todo[len(done) :], worker_count):
            if on_block is not None:
                on_block(block)
            yield block

    for files, block in zip(todo, results(), strict=True):
        for language, reason, count in block.dropped:
            dropped[language, reason] += count
        for number, language, sha256, size in block.kept:
            if sha256 in seen and not scanner.filters.keep_duplicates:
                dropped[language, "duplicate"] += 1
                continue
            seen.add(sha256)
            kept.append(Kept(files[number].path, language, sha256, size))
    return Scanned(kept, dropped)


def split_of(sha256: str, validation_fraction: float) -> str:
    """Returns the split of a file: its content alone decides, so no file changes sides."""
    fraction = int(sha256[:16], 16) / float(1 << 64)
    return VALIDATION if fraction < validation_fraction else TRAIN


def group(
    kept: Iterable[Kept], validation_fraction: float, seed: int
) -> dict[tuple[str, int], list[Kept]]:
    """Returns the files by (split, language), each list in an order that the seed draws."""
    groups: dict[tuple[str, int], list[Kept]] = {
        (split, language): [] for split in SPLITS for language in range(len(LANGUAGES))
    }
    for file in kept:
        groups[split_of(file.sha256, validation_fraction), file.language].append(file)
    salt = f"{seed}:".encode()
    for files in groups.values():
        files.sort(key=lambda f: (hashlib.sha256(salt + f.sha256.encode()).digest(), f.path))
    return {key: files for key, files in groups.items() if files}
