"""One packed row as bytes.

A record is a header of 16 bytes, little-endian (version u8, bytes per token u8, language u16,
segments u32, tokens in use u32, tokens u32), then the segment starts (u16, or u32 for rows of
more than 65,536 tokens), then the tokens (u16 for vocabularies of at most 65,536, else u32).
"""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from geex_jax.errors import GeexError

VERSION = 1
_HEADER = struct.Struct("<BBHIII")


@dataclasses.dataclass(frozen=True)
class Row:
    """A packed row.

    Attributes:
      tokens: ids [seq_len + 1]; those from `used` on are padding.
      starts: where each segment begins, ascending [segments].
      used: how many tokens are not padding.
      language: index into the manifest's languages.
    """

    tokens: np.ndarray
    starts: np.ndarray
    used: int
    language: int


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the smallest dtype in which ids of a vocabulary are stored: uint16 or uint32."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def _starts_dtype(length: int) -> np.dtype:
    return np.dtype("<u2" if length <= 1 << 16 else "<u4")


def encode_row(row: Row, dtype: np.dtype) -> bytes:
    """Returns the record of a row.

    Args:
      row: tokens of any integer dtype.
      dtype: `token_dtype(vocab_size)`.
    """
    length = len(row.tokens)
    header = _HEADER.pack(VERSION, dtype.itemsize, row.language, len(row.starts), row.used, length)
    starts = np.asarray(row.starts, _starts_dtype(length))
    return header + starts.tobytes() + np.ascontiguousarray(row.tokens, dtype).tobytes()


def decode_row(data: bytes) -> Row:
    """Returns the row of a record; its arrays are read-only views of `data`.

    Raises:
      GeexError: the record is cut short or of another format.
    """
    remedy = "the file is damaged: prepare the data again with geex prepare --overwrite"
    if len(data) < _HEADER.size:
        raise GeexError(f"row record of {len(data)} bytes is truncated", remedy)
    version, width, language, segments, used, length = _HEADER.unpack_from(data)
    if version != VERSION or width not in (2, 4):
        raise GeexError(f"row record has format version {version}, not {VERSION}", remedy)
    starts_dtype = _starts_dtype(length)
    tokens_at = _HEADER.size + segments * starts_dtype.itemsize
    if len(data) != tokens_at + length * width or used > length:
        raise GeexError(f"row record of {len(data)} bytes is truncated", remedy)
    return Row(
        np.frombuffer(data, np.dtype(f"<u{width}"), length, tokens_at),
        np.frombuffer(data, starts_dtype, segments, _HEADER.size),
        used,
        language,
    )
