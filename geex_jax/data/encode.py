"""Files to token ids, in worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from geex_jax.data import records
from geex_jax.data.scan import Kept, read_kept
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES

if TYPE_CHECKING:
    from geex_jax.tokenizers.base import Tokenizer

CHUNK_BYTES = 256 * 1024


class Encoder:
    """Reads files and turns them into ids: tag line, text, end of text."""

    def __init__(self, tokenizer: Tokenizer, tags: bool):
        self.tokenizer = tokenizer
        self.tags = tags
        self.dtype = records.token_dtype(tokenizer.vocab_size)

    def __call__(self, chunk: Sequence[Kept]) -> list[np.ndarray]:
        """Returns the ids of each file of the chunk."""
        texts = [self.head(file.language) + read_kept(file) for file in chunk]
        ids = self.tokenizer.encode_batch(texts, num_workers=1)
        eos = self.tokenizer.eos_id
        return [np.array([*one, eos], self.dtype) for one in ids]

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


def chunks(files: Iterable[Kept]) -> list[list[Kept]]:
    """Returns the files in runs of about CHUNK_BYTES, the unit of work."""
    result: list[list[Kept]] = []
    size = CHUNK_BYTES
    for file in files:
        if size >= CHUNK_BYTES:
            result.append([])
            size = 0
        result[-1].append(file)
        size += file.size
    return result
