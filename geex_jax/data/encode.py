"""Documents to token ids, in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from geex_jax.data import records
from geex_jax.data.pack import Tokens
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer

CHUNK_BYTES = 256 * 1024  # of text, encoded at a time


class Encoder:
    """Turns texts into ids: tag line, text, end of text; or prompt, text, end of text."""

    def __init__(self, tokenizer: Tokenizer, tags: bool):
        self.tokenizer = tokenizer
        self.tags = tags
        self.dtype = records.token_dtype(tokenizer.vocab_size)

    def documents(self, language: int, texts: Iterable[tuple[str | None, str]]) -> Iterator[Tokens]:
        """Yields the ids of each (prompt, text), some CHUNK_BYTES of text at a time."""
        waiting: list[tuple[str | None, str]] = []
        size = 0
        for prompt, text in texts:
            waiting.append((prompt, text))
            size += len(text) + len(prompt or "")
            if size >= CHUNK_BYTES:
                yield from self._encode(language, waiting)
                waiting, size = [], 0
        if waiting:
            yield from self._encode(language, waiting)

    def _encode(self, language: int, documents: list[tuple[str | None, str]]) -> Iterator[Tokens]:
        """Encodes prompts and texts in one batch: the cut between them is a token's end."""
        pieces: list[str] = []
        for prompt, text in documents:
            pieces += [self.head(language) + text] if prompt is None else [prompt, text]
        ids = iter(self.tokenizer.encode_batch(pieces, num_workers=1))
        eos = self.tokenizer.eos_id
        for prompt, _ in documents:
            head = [] if prompt is None else next(ids)
            yield Tokens(np.array([*head, *next(ids), eos], self.dtype), len(head))

    def head(self, language: int) -> str:
        """Returns the tag line and its line end, or nothing for data without tags."""
        return LANGUAGES[language].tag + "\n" if self.tags else ""

    def prefix(self, language: int) -> np.ndarray:
        """Returns the ids that a continued document begins with."""
        return np.array(self.tokenizer.encode(self.head(language)), self.dtype)

    def tag_tokens(self, language: int) -> int:
        """Returns how many ids the tag line alone has; 0 for data without tags."""
        return len(self.tokenizer.encode(LANGUAGES[language].tag)) if self.tags else 0

    def check(self, seq_len: int) -> None:
        """Raises GeexError for rows too short for the tag lines, and for bad control ids."""
        for name in ("eos_id", "pad_id"):
            value = getattr(self.tokenizer, name)
            if not 0 <= value < self.tokenizer.vocab_size:
                raise GeexError(f"the tokenizer has no usable {name} ({value})", "use another one")
        longest = max(len(self.prefix(i)) for i in range(len(LANGUAGES)))
        least = 2 * (longest + 8)
        if seq_len + 1 < least:
            raise GeexError(
                f"rows of {seq_len} tokens are too short for tag lines of up to {longest} tokens",
                f"use --seq-len {least} or more",
            )
