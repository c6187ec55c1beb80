"""One packed row as bytes.

A record is a header of 16 bytes, little-endian (version u8, bytes per token u8, language u16,
segments u32, tokens in use u32, tokens u32), then the segment starts (u16, or u32 for rows of
more than 65,536 tokens), in version 2 as many lengths of prompts (the same dtype), then the
tokens (u16 for vocabularies of at most 65,536, else u32). Rows without prompts are written as
version 1, so rows of code alone are what they always were.
"""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from geex_jax.errors import GeexError

PLAIN, WITH_PROMPTS = 1, 2  # versions
_HEADER = struct.Struct("<BBHIII")
_SHORT, _LONG = np.dtype("<u2"), np.dtype("<u4")
_TOKENS = {2: _SHORT, 4: _LONG}


@dataclasses.dataclass(frozen=True)
class Row:
    """A packed row.

    Attributes:
      tokens: ids [seq_len + 1]; those from `used` on are padding.
      starts: where each segment begins, ascending [segments].
      used: how many tokens are not padding.
      language: index into the manifest's languages.
      prompts: how many tokens at the head of each segment carry no loss [segments]; None: none.
    """

    tokens: np.ndarray
    starts: np.ndarray
    used: int
    language: int
    prompts: np.ndarray | None = None


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the smallest dtype in which ids of a vocabulary are stored: uint16 or uint32."""
    return _SHORT if vocab_size <= 1 << 16 else _LONG


def _starts_dtype(length: int) -> np.dtype:
    return _SHORT if length <= 1 << 16 else _LONG


def encode_row(row: Row, dtype: np.dtype) -> bytes:
    """Returns the record of a row.

    Args:
      row: tokens of any integer dtype.
      dtype: `token_dtype(vocab_size)`.
    """
    length = len(row.tokens)
    heads = [np.asarray(row.starts, _starts_dtype(length))]
    if row.prompts is not None and np.any(row.prompts):
        heads.append(np.asarray(row.prompts, _starts_dtype(length)))
    header = _HEADER.pack(
        len(heads), dtype.itemsize, row.language, len(row.starts), row.used, length
    )
    body = np.ascontiguousarray(row.tokens, dtype)
    return b"".join((header, *(head.tobytes() for head in heads), body.tobytes()))


def decode_row(data: bytes) -> Row:
    """Returns the row of a record; its arrays are read-only views of `data`.

    Raises:
      GeexError: the record is cut short or of another format.
    """
    remedy = "the file is damaged: prepare the data again with geex prepare --overwrite"
    if len(data) < _HEADER.size:
        raise GeexError(f"row record of {len(data)} bytes is truncated", remedy)
    version, width, language, segments, used, length = _HEADER.unpack_from(data)
    if version not in (PLAIN, WITH_PROMPTS) or width not in (2, 4):
        raise GeexError(
            f"row record has format version {version}, not {PLAIN} or {WITH_PROMPTS}", remedy
        )
    starts_dtype = _starts_dtype(length)
    heads_size = segments * starts_dtype.itemsize
    tokens_at = _HEADER.size + version * heads_size
    if len(data) != tokens_at + length * width or used > length:
        raise GeexError(f"row record of {len(data)} bytes is truncated", remedy)
    prompts = None
    if version == WITH_PROMPTS:
        prompts = np.frombuffer(data, starts_dtype, segments, _HEADER.size + heads_size)
    return Row(
        np.frombuffer(data, _TOKENS[width], length, tokens_at),
        np.frombuffer(data, starts_dtype, segments, _HEADER.size),
        used,
        language,
        prompts,
    )
