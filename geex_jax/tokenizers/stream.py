"""Ids one by one to text, without ever showing half a character."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from geex_jax.tokenizers.base import Tokenizer

MOST_BYTES = 4  # of a character in UTF-8


class StreamDecoder:
    """Decodes a growing sequence of ids.

    The strings that `push` returns, and at the end `flush`, joined, are exactly
    `tokenizer.decode(all ids)`. Bytes of an unfinished UTF-8 character wait for the next id.

    Args:
      tokenizer: any Tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._lengths = tokenizer.token_byte_lengths()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        # Some vocabularies drop the first space of a text, so that an id's bytes depend on
        # whether text stands before it: every id is decoded behind the ids up to the first text.
        self._before: list[int] = []
        self._before_bytes = b""
        self._settled = False

    def push(self, token: int) -> str:
        """Takes the next id; returns the text that is certain now, maybe ""."""
        token = int(token)
        data = self._tokenizer.decode_bytes([*self._before, token])[len(self._before_bytes) :]
        if not self._settled:
            self._before.append(token)
            self._before_bytes += data
            self._settled = token < len(self._lengths) and bool(self._lengths[token])
        return self._utf8.decode(data)

    def follow(self, tokens: Sequence[int]) -> None:
        """Stands behind ids whose text nobody wants, as if each had been pushed.

        Only what the text to come depends on is decoded: up to the first text, and the end.
        """
        first, last, need = 0, len(tokens), 2 * MOST_BYTES
        while first < last and not self._settled:
            self.push(tokens[first])
            first += 1
        while last > first and need > 0:
            last -= 1
            token = int(tokens[last])
            need -= int(self._lengths[token]) if token < len(self._lengths) else 0
        for token in tokens[last:]:
            self.push(token)

    def flush(self) -> str:
        """Ends the stream; returns U+FFFD for an unfinished character, else "".

        The decoder then stands at the start of a new stream.
        """
        text = self._utf8.decode(b"", final=True)
        self._utf8.reset()
        self._before, self._before_bytes, self._settled = [], b"", False
        return text
