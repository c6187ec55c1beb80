"""Token sequences of documents to full rows.

A document that does not fit is cut at the end of the row and goes on in the next one, as a new
segment that starts with the tag line again. A row's last few tokens stay padding when a new
document would find less room than its tag line and `LEAST_TEXT` tokens: under half a token per
document on average, for rows of 257 tokens, and less for longer ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

LEAST_TEXT = 8


class PackedRow(NamedTuple):
    """A row, and where the next one goes on.

    `tokens` [row_length]; `starts` [segments]; tokens from `used` on are padding. The next row
    begins with token `next_offset` of document `next_document`.
    """

    tokens: np.ndarray
    starts: np.ndarray
    used: int
    next_document: int
    next_offset: int


def pack(
    documents: Iterable[np.ndarray],
    row_length: int,
    prefix: np.ndarray,
    pad_id: int,
    *,
    first_document: int = 0,
    first_offset: int = 0,
) -> Iterator[PackedRow]:
    """Yields full rows; only the last can be short.

    Args:
      documents: ids of each document, tag line and end-of-text included.
      row_length: tokens in a row, seq_len + 1.
      prefix: ids of the tag line, put again before each continuation; may be empty.
      pad_id: fills what stays empty.
      first_document: the number of the first document given.
      first_offset: how many of its tokens earlier rows hold already.
    """
    least_room = len(prefix) + LEAST_TEXT
    if row_length < 2 * least_room:
        raise ValueError(f"rows of {row_length} tokens cannot hold a tag line of {len(prefix)}")
    row, starts, fill = np.full(row_length, pad_id, np.int64), [], 0
    number, offset = first_document, first_offset
    for ids in documents:
        while offset < len(ids):
            head = len(prefix) if offset else 0
            room, needed = row_length - fill, head + len(ids) - offset
            if room < min(least_room, needed):
                yield PackedRow(row, np.array(starts), fill, number, offset)
                row, starts, fill = np.full(row_length, pad_id, np.int64), [], 0
                continue
            starts.append(fill)
            take = min(room, needed) - head
            row[fill : fill + head] = prefix[:head]
            row[fill + head : fill + head + take] = ids[offset : offset + take]
            fill, offset = fill + head + take, offset + take
            if fill == row_length:
                ended = offset == len(ids)
                yield PackedRow(row, np.array(starts), fill, number + ended, 0 if ended else offset)
                row, starts, fill = np.full(row_length, pad_id, np.int64), [], 0
        number, offset = number + 1, 0
    if fill:
        yield PackedRow(row, np.array(starts), fill, number, 0)
