"""Prompts that ask for what stands between two texts, for models that were trained to fill in.

Which control tokens a vocabulary has tells whether its model was (arXiv 2207.14255). CodeGeeX was
not: it only goes on.
"""

from __future__ import annotations

import dataclasses

from geex_jax.tokenizers import Tokenizer

# prefix, suffix, middle: StarCoder and StarCoder2; Qwen2.5-Coder, CodeGemma; SantaCoder.
FORMATS = (
    ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
)


@dataclasses.dataclass(frozen=True)
class Infill:
    """Ids of the three control tokens."""

    prefix: int
    suffix: int
    middle: int

    def prompt(self, before: list[int], after: list[int]) -> list[int]:
        """Ids that ask for what stands between `before` and `after`."""
        return [self.prefix, *before, self.suffix, *after, self.middle]


def infill_of(tokenizer: Tokenizer) -> Infill | None:
    """The infill format of a vocabulary, None if it has no such tokens."""
    for strings in FORMATS:
        ids = [tokenizer.encode(s, allow_special=True) for s in strings]
        control = all(
            len(found) == 1 and tokenizer.encode(s) != found
            for found, s in zip(ids, strings, strict=True)
        )
        if control:
            return Infill(*(found[0] for found in ids))
    return None
