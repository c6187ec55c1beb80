"""What the values at one place of a function's arguments look like, over all given inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

_DIGITS = re.compile(r"\d+")
LOWER, UPPER, DIGIT = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
LONGEST = 24  # items of a list, unless a given one is longer


class Slot:
    """Values seen at one place; new ones are like them in type, range, alphabet and size.

    New values stay near what the given tests show to be allowed: no negative number where none
    was given, no empty list where none was. A problem's text says nothing that could be read
    by a program, and outside of its promises correct solutions differ.

    Args:
      values: all that were given there; at least one.
    """

    def __init__(self, values: Iterable[Any]):
        self.values = list(values)
        self.distinct = list({repr(v): v for v in self.values}.values())
        count = len(self.values)
        # A closed set, as of operators or planets: few values that come again and again.
        scalars = all(isinstance(v, str | int | float) for v in self.values)
        self.closed = scalars and count >= 5 and len(self.distinct) <= min(12, 0.6 * count)
        self.closed = self.closed and (isinstance(self.values[0], str) or len(self.distinct) <= 2)
        self.numbers = [v for v in self.values if isinstance(v, int | float) and _number(v)]
        self.strings = [v for v in self.values if isinstance(v, str)]
        self.lists = [v for v in self.values if isinstance(v, list | tuple)]
        self.maps = [v for v in self.values if isinstance(v, dict)]
        inner = [x for v in self.lists for x in v]
        self.items = Slot(inner) if inner else None
        keys = [k for v in self.maps for k in v]
        self.keys = Slot(keys) if keys else None
        self.entries = Slot([x for v in self.maps for x in v.values()]) if keys else None
        if self.strings:
            self._read_strings()

    def _read_strings(self) -> None:
        every = "".join(self.strings)
        self.alphabet = "".join(sorted({c for c in every if c.isascii() and c.isprintable()}))
        for kind in (LOWER, UPPER, DIGIT):
            if len(set(kind) & set(every)) >= 4:
                self.alphabet = "".join(sorted({*self.alphabet, *kind}))
        shapes = {_DIGITS.sub("#", s) for s in self.strings if s}
        self.shaped = len(shapes) == 1 and "#" in next(iter(shapes)) and len(self.strings) > 1
        self.separator = max((",", " "), key=lambda c: sum(c in s for s in self.strings))
        self.worded = sum(self.separator in s for s in self.strings) * 2 >= len(self.strings)
        words = [w for s in self.strings for w in s.split(self.separator)]
        self.words = sorted(set(words))
        letters = sum(w.isalpha() for w in words)
        self.open_words = len(self.words) > 0.6 * len(words) < 2 * letters

    def sizes(self, values: Sequence[Any]) -> tuple[int, int]:
        """Smallest and largest number of items that new ones may have."""
        lengths = [len(v) for v in values]
        low, high = min(lengths), max(lengths)
        if low == high and len(values) > 2 and low > 1:
            return low, high
        return low, max(high, min(high + 3, LONGEST))

    def bounds(self, kind: type) -> tuple[float, float]:
        """Smallest and largest number that new ones may be.

        Whole ones may be somewhat larger than all given, where those are few and small. Others
        have room enough between them, and are often grades or shares, which have an end.
        """
        some = [v for v in self.numbers if isinstance(v, kind)] or self.numbers
        low, high = min(some), max(some)
        if any(isinstance(v, float) for v in self.numbers):
            return min(self.numbers), max(self.numbers)
        return low - abs(low) // 4 if low < 0 else low, high + max(5, abs(high) // 4)

    # New values --------------------------------------------------------------------------

    def mutate(self, value: Any, source: Random) -> Any:
        """A value near `value`; of its type, mostly."""
        if self.closed or source.random() < 0.1:
            return source.choice(self.values)
        if isinstance(value, bool):
            return source.random() < 0.5
        if isinstance(value, int):
            return self._integer(value, source)
        if isinstance(value, float):
            return self._float(value, source)
        if isinstance(value, str):
            return self._string(value, source)
        if isinstance(value, list | tuple):
            return type(value)(self._list(list(value), source))
        if isinstance(value, dict):
            return self._map(dict(value), source)
        return source.choice(self.values)

    def _integer(self, value: int, source: Random) -> int:
        low, high = map(math.floor, self.bounds(int))
        kind = source.randrange(4)
        if kind == 0:
            new = value + source.choice((-2, -1, 1, 2))
        elif kind == 1:  # small ones are where special cases are
            new = source.randint(low, min(high, low + 12))
        else:
            new = source.randint(low, high)
        return min(max(new, low), high)

    def _float(self, value: float, source: Random) -> float:
        low, high = self.bounds(float)
        digits = max(len(repr(v).partition(".")[2]) for v in self.numbers if isinstance(v, float))
        digits = min(digits, 3)
        if source.random() < 0.3:
            new = value + source.choice((-1, 1)) * source.choice((10.0**-digits, 0.5, 1.0))
        else:
            new = source.uniform(low, high)
        return min(max(round(new, digits), float(low)), float(high))

    def _list(self, value: list[Any], source: Random) -> list[Any]:
        low, high = self.sizes(self.lists)
        for _ in range(source.choice((1, 1, 2, 3))):
            kind = source.randrange(9)
            if kind <= 2 and value and self.items:
                place = source.randrange(len(value))
                value[place] = self.items.mutate(value[place], source)
            elif kind == 3 and self.items:
                new = self.items.mutate(source.choice(self.items.values), source)
                value.insert(source.randint(0, len(value)), new)
            elif kind == 4 and value:
                del value[source.randrange(len(value))]
            elif kind == 5 and value:  # equal neighbours and repetitions
                value.insert(source.randint(0, len(value)), source.choice(value))
            elif kind == 6:
                value = source.choice((value[::-1], source.sample(value, len(value))))
            elif kind == 7:
                other = list(source.choice(self.lists))
                cut = source.randint(0, len(value))
                value = value[:cut] + other[source.randint(0, len(other)) :]
            elif self.items:
                size = source.randint(low, min(high, low + 8))
                value = [
                    self.items.mutate(source.choice(self.items.values), source) for _ in range(size)
                ]
        value = value[:high]
        while len(value) < low and self.items:
            value.append(self.items.mutate(source.choice(self.items.values), source))
        return value

    def _map(self, value: dict[Any, Any], source: Random) -> dict[Any, Any]:
        if self.keys is None or self.entries is None:
            return value
        kind = source.randrange(3)
        if value and kind == 0:
            del value[source.choice(list(value))]
        elif value and kind == 1:
            old = source.choice(list(value))
            value = {self.keys.mutate(k, source) if k == old else k: v for k, v in value.items()}
        else:
            key = self.keys.mutate(source.choice(self.keys.values), source)
            value[key] = source.choice(self.entries.values)
        return value

    def _string(self, value: str, source: Random) -> str:
        if self.shaped:
            return _DIGITS.sub(lambda found: self._digits(found[0], source), value)
        if self.worded and (not self.open_words or source.random() < 0.8):
            return self._sentence(value, source)
        return self._letters(value, source)

    def _digits(self, old: str, source: Random) -> str:
        number = int(old)
        new = source.choice((number, number + 1, max(number - 1, 0), source.randint(0, 2 * number)))
        return str(new).zfill(len(old) if old.startswith("0") else 1)

    def _sentence(self, value: str, source: Random) -> str:
        words = value.split(self.separator) if value else []
        for _ in range(source.randint(1, 3)):
            kind = source.randrange(5)
            place = source.randrange(len(words)) if words else 0
            if kind == 0 and len(words) > 1:
                del words[place]
            elif kind == 1 and words:
                words.insert(source.randint(0, len(words)), words[place])
            elif kind == 2:
                source.shuffle(words)
            elif words and kind == 3 and self.open_words:
                words[place] = self._letters(words[place], source)
            elif words and kind == 4:
                words[place] = source.choice(self.words)
            else:
                words.insert(place, source.choice(self.words))
        return self.separator.join(words[: max(len(s) for s in self.strings)])

    def _letters(self, value: str, source: Random) -> str:
        low, high = self.sizes(self.strings)
        for _ in range(source.choice((1, 1, 2, 3))):
            kind = source.randrange(8)
            place = source.randint(0, len(value))
            letter = source.choice(self.alphabet or "a")
            if kind == 0:
                value = value[:place] + letter + value[place + 1 :]
            elif kind == 1:
                value = value[:place] + letter + value[place:]
            elif kind == 2 and len(value) > low:
                value = value[:place] + value[place + 1 :]
            elif kind == 3 and value:
                value = value[:place] + source.choice(value) + value[place:]
            elif kind == 4:
                value = source.choice((value[::-1], value[place:] + value[:place]))
            elif kind == 5 and len(value) * 2 <= high:  # palindromes, and what is almost one
                value += value[::-1]
            elif kind == 6:
                other = source.choice(self.strings)
                value = value[:place] + other[source.randint(0, len(other)) :]
            elif set(self.alphabet) >= {*value.swapcase()}:
                value = value[:place] + value[place:].swapcase()
        return value[:high] if len(value) >= low else source.choice(self.strings)


def _number(value: Any) -> bool:
    return not isinstance(value, bool)
