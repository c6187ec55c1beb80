"""How large values can get: tasks stay within 32 bits, intermediate values included."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from geex_jax.benchmark.embedded.functions import Arg, Constant, Lambda
from geex_jax.benchmark.embedded.operations import COUNTS, INT, NUMBERS, TEXT
from geex_jax.benchmark.embedded.trees import Node

MAX_VALUE = 1_000_000_000
MAX_ELEMENTS = 40
MAX_CHARACTERS = 120


class TooLarge(Exception):
    """A value may leave the range."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The largest values of a kind.

    Attributes:
      low: least number, or number among the elements; high: the greatest.
      size: most elements, entries or characters.
      letters: longest word or key.
    """

    low: int = 0
    high: int = 0
    size: int = 0
    letters: int = 0

    def check(self, kind: str) -> Bounds:
        """Returns itself.

        Raises:
          TooLarge: it is over the limits for values of that kind.
        """
        limit = MAX_CHARACTERS if kind == TEXT else MAX_ELEMENTS
        if max(-self.low, self.high) > MAX_VALUE or max(self.size, self.letters) > limit:
            raise TooLarge
        return self


def bound(node: Node, inputs: Sequence[Bounds]) -> Bounds:
    """The bounds of a composition's result.

    Raises:
      TooLarge: a value on the way may leave the range.
    """
    if node.is_input:
        return inputs[node.constants[0]]  # type: ignore[index]
    args = [bound(arg, inputs) for arg in node.args]
    return _step(node, args, inputs).check(node.kind)


def _step(node: Node, args: list[Bounds], inputs: Sequence[Bounds]) -> Bounds:
    a = args[0]
    b = args[-1]
    most = max(abs(a.low), abs(a.high))
    name, kind = node.operation.name, node.args[0].kind
    function = node.function
    if function is not None and function.target != "bool":
        return _applied(function, a, kind, node.kind, inputs)
    match name:
        case "count" | "length":
            return Bounds(0, a.size)
        case "total":
            return Bounds(min(0, a.low * a.size), max(0, a.high * a.size))
        case "running":
            return Bounds(min(0, a.low * a.size), max(0, a.high * a.size), a.size)
        case "product":
            return Bounds(-(max(most, 1) ** a.size), max(most, 1) ** a.size)
        case "largest" | "smallest":
            return Bounds(min(a.low, 0), max(a.high, 0))
        case "gaps":
            return Bounds(a.low - a.high, a.high - a.low, a.size)
        case "pairwise" | "plus":
            return Bounds(a.low + b.low, a.high + b.high, min(a.size, b.size))
        case "minus":
            return Bounds(a.low - b.high, a.high - b.low)
        case "times":
            corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
            return Bounds(min(corners), max(corners))
        case "larger":
            return Bounds(max(a.low, b.low), max(a.high, b.high))
        case "upto" | "divisors":
            return Bounds(1, max(a.high, 1), max(a.high, 0))
        case "digits":
            return Bounds(0, 9, len(str(most)))
        case "text":
            return Bounds(size=len(str(most)) + 1)
        case "split":
            return Bounds(size=a.size, letters=a.size)
        case "join":
            return Bounds(size=a.size * (a.letters + 1))
        case "longest" | "best":
            return Bounds(size=a.letters)
        case "tally":
            return Bounds(1, a.size, a.size, 1 if kind == TEXT else a.letters)
        case "lengths":
            return Bounds(0, a.letters, a.size, a.letters)
        case "concat":
            return Bounds(min(a.low, b.low), max(a.high, b.high), a.size + b.size,
                          max(a.letters, b.letters))  # fmt: skip
    return a  # a part of what there was, or the same in another order


def _applied(
    function: Lambda, a: Bounds, kind: str, target: str, inputs: Sequence[Bounds]
) -> Bounds:
    if kind in (NUMBERS, COUNTS, INT):
        low, high = _mapped(function, a.low, a.high, inputs)
        return Bounds(low, high, a.size, a.letters)
    letters = a.size if kind == TEXT else a.letters
    if target in (INT, NUMBERS):
        return Bounds(0, letters, a.size)
    names = [leaf.name for leaf in function.leaves()]
    for name in names:
        letters = 2 * letters if name == "twice" else letters + (name in ("suffix", "prefix"))
    return Bounds(size=letters) if target == TEXT else Bounds(size=a.size, letters=letters)


def _mapped(function: Lambda, low: int, high: int, inputs: Sequence[Bounds]) -> tuple[int, int]:
    """The range of a function of numbers in the range from `low` to `high`."""
    parts = function.parts
    if function.name == "then":
        return _mapped(parts[1], *_mapped(parts[0], low, high, inputs), inputs)
    if function.name == "if":
        ranges = [_mapped(part, low, high, inputs) for part in parts[1:]]
        return min(r[0] for r in ranges), max(r[1] for r in ranges)
    k0, k1 = _range(function.constants[0], inputs) if function.constants else (0, 0)
    if max(-low, high) > MAX_VALUE:
        raise TooLarge
    match function.name:
        case "add":
            return low + k0, high + k1
        case "subtract":
            return low - k1, high - k0
        case "multiply":
            corners = [x * k for x in (low, high) for k in (k0, k1)]
            return min(corners), max(corners)
        case "square":
            return 0, max(low * low, high * high)
        case "negate":
            return -high, -low
        case "absolute":
            return 0, max(abs(low), abs(high))
        case "last_digit":
            return 0, 9
        case "constant":
            return k0, k1
        case "halve":
            return min(low, low // 2), high
    return low, high


def _range(constant: Constant, inputs: Sequence[Bounds]) -> tuple[int, int]:
    if isinstance(constant, Arg):
        return inputs[constant.index].low, inputs[constant.index].high
    assert isinstance(constant, int)
    return constant, constant
