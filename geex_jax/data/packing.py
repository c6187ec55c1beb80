"""The packing that a recipe names, from encoded documents to rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from geex_jax.data import pack
from geex_jax.data.encode import Encoded
from geex_jax.data.records import Row


def pack_rows(
    documents: Iterator[Encoded],
    packing: str,
    row_length: int,
    prefix: np.ndarray,
    pad_id: int,
    language: int,
) -> Iterator[Row]:
    """Yields the rows of some documents of one language."""
    ids = (document.ids for document in documents)
    for row in pack.pack(ids, row_length, prefix, pad_id):
        yield Row(row.tokens, row.starts, row.used, language)
