"""Token sequences of documents to rows: `best_fit` keeps documents whole, `concat` fills rows.

`best_fit`: a document that fits into a row is never cut. A longer one is cut at the length of a
row, and what is left over is placed like a document of its own. Documents are collected up to a
window of tokens, sorted by length, and each goes into the fullest open row that has room for it
(best-fit decreasing). Rows that are nearly full are then written, in the order of their first
documents (so that the first rows of a split are a fair sample of it); the others stay open for
the next window. Memory is bounded by the window, and the rows depend on nothing but the documents.

`concat`: documents one after the other; one that does not fit is cut at the end of the row. A
row's last few tokens stay padding when a new document would find less room than its tag line and
`LEAST_TEXT` tokens: under half a token per document on average, for rows of 257 tokens, and less
for longer ones.

In both, what goes on in another row is a new segment that starts with the tag line again. A
document with a prompt is not cut if it fits into a row; one that does not loses the head of its
prompt (at most down to half a row), because its completion is what is learned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

LEAST_TEXT = 8
WINDOW = 1 << 22  # tokens: 8 or 16 MB of ids
METHODS = ("best_fit", "concat")


class Tokens(NamedTuple):
    """A document: its ids, tag line and end-of-text included, the first `prompt` without loss."""

    ids: np.ndarray
    prompt: int = 0


class PackedRow(NamedTuple):
    """A row.

    `tokens` [row_length]; `starts` and `prompts` [segments]; tokens from `used` on are padding.
    Of `concat`, where the next row goes on: token `next_offset` of document `next_document`.
    """

    tokens: np.ndarray
    starts: np.ndarray
    prompts: np.ndarray
    used: int
    next_document: int = 0
    next_offset: int = 0


@dataclasses.dataclass
class Counts:
    """What became of the documents; add up those of several shards with `+`.

    Attributes:
      documents: how many there were.
      whole: how many of them are in one segment, from their first token to their last.
      rows: rows made.
      tokens: tokens in them that are not padding.
      places: all tokens in them.
    """

    documents: int = 0
    whole: int = 0
    rows: int = 0
    tokens: int = 0
    places: int = 0

    def __add__(self, other: Counts) -> Counts:
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Counts(*(a + b for a, b in zip(mine, theirs, strict=True)))

    @property
    def fill(self) -> float:
        """The share of the rows' tokens that is not padding."""
        return self.tokens / self.places if self.places else 0.0

    @property
    def share_whole(self) -> float:
        """The share of the documents that no row's end cuts."""
        return self.whole / self.documents if self.documents else 0.0


def pack(
    documents: Iterable[Tokens],
    row_length: int,
    prefix: np.ndarray,
    pad_id: int,
    *,
    how: str = "best_fit",
    counts: Counts | None = None,
    window: int = WINDOW,
) -> Iterator[PackedRow]:
    """Yields the rows of some documents.

    Args:
      documents: in an order that is part of the result.
      row_length: tokens in a row, seq_len + 1.
      prefix: ids of the tag line, put again before each continuation; may be empty.
      pad_id: fills what stays empty.
      how: one of METHODS.
      counts: counts on as documents are read and rows are made.
      window: tokens that `best_fit` looks at together.
    """
    counts = Counts() if counts is None else counts
    if how == "concat":
        return concat(documents, row_length, prefix, pad_id, counts=counts)
    if how != "best_fit":
        raise ValueError(f"no way to pack named {how!r}")
    return _best_fit(documents, row_length, prefix, pad_id, counts, window)


class _Row:
    """A row in the making."""

    def __init__(self, length: int, pad_id: int, dtype: np.dtype):
        self.tokens = np.full(length, pad_id, dtype)
        self.first = -1  # the first document in it
        self.starts: list[int] = []
        self.prompts: list[int] = []
        self.used = 0

    def add(self, number: int, prefix: np.ndarray, ids: np.ndarray, prompt: int) -> None:
        self.first = number if self.first < 0 else min(number, self.first)
        start, middle = self.used, self.used + len(prefix)
        self.starts.append(start)
        self.prompts.append(prompt)
        self.used = middle + len(ids)
        self.tokens[start:middle] = prefix
        self.tokens[middle : self.used] = ids

    def packed(self, counts: Counts, document: int = 0, offset: int = 0) -> PackedRow:
        counts.rows += 1
        counts.tokens += self.used
        counts.places += len(self.tokens)
        starts, prompts = np.array(self.starts), np.array(self.prompts)
        return PackedRow(self.tokens, starts, prompts, self.used, document, offset)


def _checked(row_length: int, prefix: np.ndarray) -> int:
    """Returns the least room that a cut document is given; refuses rows too short for it."""
    least_room = len(prefix) + LEAST_TEXT
    if row_length < 2 * least_room:
        raise ValueError(f"rows of {row_length} tokens cannot hold a tag line of {len(prefix)}")
    return least_room


def _shortened(document: Tokens, row_length: int) -> Tokens:
    """Returns the document with as much of its prompt's end as leaves room for the completion."""
    ids, prompt = document
    if not prompt or len(ids) <= row_length:
        return document
    room = max(row_length - (len(ids) - prompt), row_length // 2)
    return Tokens(ids[prompt - room :], room) if prompt > room else document


def concat(
    documents: Iterable[Tokens],
    row_length: int,
    prefix: np.ndarray,
    pad_id: int,
    *,
    counts: Counts | None = None,
    first_document: int = 0,
    first_offset: int = 0,
) -> Iterator[PackedRow]:
    """Yields full rows; without prompts only the last can be short. See `pack`.

    Args:
      documents: the first one's number is `first_document`.
      row_length: tokens in a row, seq_len + 1.
      prefix: ids of the tag line.
      pad_id: fills what stays empty.
      counts: counts on.
      first_document: the number of the first document given.
      first_offset: how many of its tokens earlier rows hold already.
    """
    counts = Counts() if counts is None else counts
    least_room = _checked(row_length, prefix)
    none, row = prefix[:0], _Row(row_length, pad_id, prefix.dtype)
    number, offset = first_document, first_offset
    for document in documents:
        ids, prompt = _shortened(document, row_length)
        counts.documents += 1
        segments = offset > 0
        while offset < len(ids):
            head = prefix if offset else none
            room, needed = row_length - row.used, len(head) + len(ids) - offset
            least = needed if prompt and not offset else least_room
            if room < min(least, needed) and row.used:
                yield row.packed(counts, number, offset)
                row = _Row(row_length, pad_id, prefix.dtype)
                continue
            take = min(room, needed) - len(head)
            row.add(number, head, ids[offset : offset + take], 0 if offset else prompt)
            offset, segments = offset + take, segments + 1
            if row.used == row_length:
                ended = offset == len(ids)
                yield row.packed(counts, number + ended, 0 if ended else offset)
                row = _Row(row_length, pad_id, prefix.dtype)
        counts.whole += segments == 1
        number, offset = number + 1, 0
    if row.used:
        yield row.packed(counts, number, 0)


class _OpenRows:
    """Rows with room, by how much: a bit for each room that some row has, and stacks of rows.

    The fullest row with room for n tokens is the lowest bit from n on: for rows of 2,049 tokens
    a shift over 33 words, however many rows are open.
    """

    def __init__(self, row_length: int, pad_id: int):
        self.row_length, self.pad_id = row_length, pad_id
        self.rooms = 0
        self.rows: list[list[_Row]] = [[] for _ in range(row_length + 1)]
        self.tokens = 0

    def place(self, number: int, prefix: np.ndarray, ids: np.ndarray, prompt: int) -> _Row | None:
        """Puts a piece into the fullest row that has room; returns the row once it is full."""
        size = len(prefix) + len(ids)
        fitting = self.rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = self._pop(room)
        else:
            room, row = self.row_length, _Row(self.row_length, self.pad_id, prefix.dtype)
        row.add(number, prefix, ids, prompt)
        if room == size:
            return row
        self._push(row, room - size)
        return None

    def close(self, least_room: int, most_tokens: int) -> Iterator[_Row]:
        """Takes out rows, the fullest first: those with less than `least_room`, and others while
        there are more than `most_tokens` in all."""
        for room in range(1, self.row_length):
            while self.rows[room] and (room < least_room or self.tokens > most_tokens):
                yield self._pop(room)

    def _pop(self, room: int) -> _Row:
        row = self.rows[room].pop()
        if not self.rows[room]:
            self.rooms ^= 1 << room
        self.tokens -= row.used
        return row

    def _push(self, row: _Row, room: int) -> None:
        self.rows[room].append(row)
        self.rooms |= 1 << room
        self.tokens += row.used


def _best_fit(
    documents: Iterable[Tokens],
    row_length: int,
    prefix: np.ndarray,
    pad_id: int,
    counts: Counts,
    window: int,
) -> Iterator[PackedRow]:
    least_room = _checked(row_length, prefix)
    none, open_rows = prefix[:0], _OpenRows(row_length, pad_id)
    pieces: list[tuple[int, np.ndarray, np.ndarray, int]] = []
    rows: list[_Row] = []
    waiting = 0

    def place_all(least_room: int, most_tokens: int) -> Iterator[PackedRow]:
        pieces.sort(key=lambda piece: -len(piece[1]) - len(piece[2]))
        placed = [open_rows.place(*piece) for piece in pieces]
        rows.extend(row for row in placed if row is not None)
        rows.extend(open_rows.close(least_room, most_tokens))
        rows.sort(key=lambda row: row.first)
        pieces.clear()
        for row in rows:
            yield row.packed(counts)
        rows.clear()

    for number, document in enumerate(documents):
        ids, prompt = _shortened(document, row_length)
        counts.documents += 1
        counts.whole += len(ids) <= row_length
        head, offset = none, 0
        while offset < len(ids):
            end = offset + row_length - len(head)
            piece = (number, head, ids[offset:end], 0 if offset else prompt)
            size = len(head) + len(piece[2])
            if size == row_length:
                rows.append(_Row(row_length, pad_id, prefix.dtype))
                rows[-1].add(*piece)
            else:
                pieces.append(piece)
            waiting += size
            head, offset = prefix, end
        if waiting >= window:
            yield from place_all(least_room, window // 2)
            waiting = 0
    yield from place_all(row_length, 0)
