"""Inputs of tasks: which values they may have, and drawing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.embedded.bounds import Bounds
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.functions import Arg, Constant
from geex_jax.benchmark.embedded.operations import COUNTS, INT, NUMBERS, TEXT
from geex_jax.benchmark.embedded.trees import Node

# Palindromes, repeated letters, capitals: what tasks on words turn on.
VOCABULARY = (
    "apple", "bread", "cat", "dog", "eel", "river", "tree", "stone", "anna", "level",
    "noon", "radar", "kayak", "ant", "bee", "fox", "hat", "ink", "jam", "kite", "lion",
    "moon", "nest", "oak", "pear", "rain", "sun", "tea", "van", "wolf", "Tom", "Eve",
    "Rome", "Oslo", "Nile", "Lima", "Sam", "Ada", "orange", "banana", "violin", "planet",
    "summer", "window", "garden", "letter", "silver", "coffee", "area", "idea", "nose",
    "toast", "solo", "risk", "sea", "note", "era", "stats",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Domain:
    """Values that an input may have.

    Attributes:
      kind: of the input.
      small: few and small numbers, for products and the like.
      constant: it stands for a constant: a number from 2 to 9.
    """

    kind: str
    small: bool = False
    constant: bool = False

    @property
    def bounds(self) -> Bounds:
        """The largest values that `sample` draws."""
        if self.constant:
            return Bounds(2, 9)
        low, high, size = (-5, 9, 6) if self.small else (-30, 60, 8)
        if self.kind == INT:
            return Bounds(0, 8) if self.small else Bounds(low, high)
        if self.kind == NUMBERS:
            return Bounds(low, high, size)
        if self.kind == TEXT:
            return Bounds(size=18 if self.small else 24)
        longest = max(map(len, VOCABULARY))
        if self.kind == COUNTS:
            return Bounds(low, high, 5, longest)
        return Bounds(size=size, letters=longest)


def hints_of(node: Node) -> list[Any]:
    """The constants of a composition: inputs near them tell near misses apart."""
    found: list[Constant] = []
    for n in node.nodes():
        found += n.constants
    found += [k for leaf in node.lambdas() for k in leaf.constants]
    return [k for k in found if not isinstance(k, Arg)]


def sample(draw: Draw, domain: Domain, hints: Sequence[Any], index: int) -> Any:
    """An input; those with a low `index` are edge cases."""
    bounds = domain.bounds
    numbers = [k for k in hints if isinstance(k, int)]
    letters = [k for k in hints if isinstance(k, str)]
    if domain.constant:
        return draw.integer(2, 9)
    if domain.kind == INT:
        return (0, 1)[index] if index < 2 else _number(draw, bounds, numbers)
    if domain.kind == TEXT:
        return _text(draw, bounds.size, letters, index)
    size = (0, 1)[index] if index < 2 else draw.integer(2, bounds.size)
    if domain.kind == NUMBERS:
        drawn = [_number(draw, bounds, numbers) for _ in range(size)]
        return _alike(draw, drawn)
    words = [_word(draw, letters) for _ in range(size)]
    if domain.kind == COUNTS:
        return {word: _number(draw, bounds, numbers) for word in words[: bounds.size]}
    return _alike(draw, words)


def _number(draw: Draw, bounds: Bounds, hints: Sequence[int]) -> int:
    if hints and draw.chance(0.35):
        near = draw.pick(hints) + draw.integer(-1, 1)
        return min(max(near, bounds.low), bounds.high)
    if draw.chance(0.5):
        return draw.integer(max(bounds.low, -9), min(bounds.high, 12))
    return draw.integer(bounds.low, bounds.high)


def _alike(draw: Draw, items: list[Any]) -> list[Any]:
    """Repeats some, or orders all: what tasks about order and repetition need."""
    if len(items) < 3 or draw.chance(0.5):
        return items
    how = draw.integer(0, 3)
    if how == 0:
        items[draw.integer(1, len(items) - 1)] = items[0]
    elif how == 1:
        items[-1] = items[draw.integer(0, len(items) - 2)]
    elif how == 2:
        items = [items[draw.integer(0, 1)] for _ in items]
    else:
        items = items + items[:2] if len(items) <= 4 else items[:4]
    return items


def _word(draw: Draw, letters: Sequence[str]) -> str:
    wanted = [k for k in letters if k.isalpha()]
    if wanted and draw.chance(0.4):
        letter = draw.pick(wanted)
        choices = [w for w in VOCABULARY if letter in (w[0], w[-1]) or letter in w]
        if choices:
            return draw.pick(choices)
    return draw.pick(VOCABULARY)


def _text(draw: Draw, most: int, letters: Sequence[str], index: int) -> str:
    if index == 0:
        return ""
    if index == 1 or draw.chance(0.15):
        return _word(draw, letters)
    words = []
    for _ in range(draw.integer(1, 4)):
        word = _word(draw, letters)
        if draw.chance(0.2):
            word = str(draw.integer(1, 99))
        elif draw.chance(0.1):
            word = word.upper()
        words.append(word)
    text = " ".join(words)
    while len(text) > most and len(words) > 1:
        words.pop()
        text = " ".join(words)
    return text
