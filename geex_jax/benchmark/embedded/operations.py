"""The primitives that tasks are composed of: one table.

A primitive takes one or two values of a kind and gives one. Those with `takes` also have a
function of one element (a `Lambda`).
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

INT, BOOL, TEXT = "int", "bool", "text"
NUMBERS, WORDS, COUNTS = "numbers", "words", "counts"
INPUT_KINDS = (INT, TEXT, NUMBERS, WORDS, COUNTS)
ELEMENT = {NUMBERS: "int", COUNTS: "int", WORDS: "word", TEXT: "char"}

# Primitives that walk over elements: code for a run of them is one loop or one comprehension.
KEEP, APPLY = "keep", "apply"
SINKS = ("total", "product", "count", "any", "all", "tally")

Run = Callable[[Sequence[Any], Any, Sequence[Any]], Any]


@dataclasses.dataclass(frozen=True)
class Operation:
    """A primitive.

    Attributes:
      key: "numbers.sort": the kind of its first value, and its name.
      sources: kinds of its values; target: kind of its result.
      run: (values, function of one element or None, constants) -> result.
      word: its part of the name of the function that does it.
      variable: what a variable that holds its result is called.
      takes: (source, target) of its Lambda, if it has one.
      constants: as in `Function`.
      level: the lowest level that has it; weight: how often it is drawn.
    """

    key: str
    sources: tuple[str, ...]
    target: str
    run: Run
    word: str
    variable: str
    takes: tuple[str, str] | None = None
    constants: tuple[str, ...] = ()
    level: int = 1
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Its name without the kind."""
        return self.key.split(".")[1]


OPERATIONS: dict[str, Operation] = {}


def _add(key: str, target: str, run: Run, word: str, variable: str = "", *,
         sources: tuple[str, ...] = (), **more: Any) -> None:  # fmt: skip
    sources = sources or (key.split(".")[0],)
    OPERATIONS[key] = Operation(key, sources, target, run, word, variable or word, **more)


def _elementwise(kind: str) -> None:
    """Primitives with a predicate of one element, for each kind that has elements."""

    def elements(value: Any) -> Iterable[Any]:
        return value.values() if kind == COUNTS else value

    def keep(a: Sequence[Any], f: Any, k: Any) -> Any:
        if kind == COUNTS:
            return {w: v for w, v in a[0].items() if f(v)}
        kept = [x for x in a[0] if f(x)]
        return "".join(kept) if kind == TEXT else kept

    def count(a: Sequence[Any], f: Any, k: Any) -> int:
        return sum(1 for x in elements(a[0]) if f(x))

    takes = (ELEMENT[kind], "bool")
    _add(f"{kind}.keep", kind, keep, "keep", "kept", takes=takes, weight=4)
    _add(f"{kind}.count", INT, count, "count", takes=takes, weight=2)
    _add(f"{kind}.any", BOOL, lambda a, f, k: any(map(f, elements(a[0]))), "any", takes=takes,
         weight=1.5)  # fmt: skip
    _add(f"{kind}.all", BOOL, lambda a, f, k: all(map(f, elements(a[0]))), "all", takes=takes,
         weight=1.5)  # fmt: skip


def _lists(kind: str) -> None:
    """Primitives of lists of numbers and of words alike."""
    pair = {"sources": (kind, kind), "level": 4}
    few = {"constants": ("few",)}
    _add(f"{kind}.length", INT, lambda a, f, k: len(a[0]), "length")
    _add(f"{kind}.sort", kind, lambda a, f, k: sorted(a[0]), "sort", "ordered")
    _add(f"{kind}.reverse", kind, lambda a, f, k: a[0][::-1], "reverse", "flipped")
    _add(f"{kind}.distinct", kind, lambda a, f, k: list(dict.fromkeys(a[0])), "distinct")
    _add(f"{kind}.take", kind, lambda a, f, k: a[0][: k[0]], "take", "taken", **few)
    _add(f"{kind}.skip", kind, lambda a, f, k: a[0][k[0] :], "skip", "rest", **few)
    _add(f"{kind}.alternate", kind, lambda a, f, k: a[0][::2], "alternate", "chosen", level=2)
    _add(f"{kind}.concat", kind, lambda a, f, k: a[0] + a[1], "join", "combined", **pair)
    _add(f"{kind}.common", kind, lambda a, f, k: [x for x in a[0] if x in a[1]], "common",
         "shared", **pair)  # fmt: skip


def _numbers() -> None:
    _add("numbers.apply", NUMBERS, lambda a, f, k: [f(x) for x in a[0]], "", "mapped",
         takes=("int", "int"), weight=4)  # fmt: skip
    _add("numbers.total", INT, lambda a, f, k: sum(a[0]), "sum", "total", weight=2.5)
    _add("numbers.product", INT, lambda a, f, k: math.prod(a[0]), "product")
    _add("numbers.largest", INT, lambda a, f, k: max(a[0], default=0), "largest")
    _add("numbers.smallest", INT, lambda a, f, k: min(a[0], default=0), "smallest")
    _add("numbers.descending", NUMBERS, lambda a, f, k: sorted(a[0], reverse=True), "descending",
         "ordered")  # fmt: skip
    _add("numbers.running", NUMBERS, lambda a, f, k: _running(a[0]), "running", "sums")
    _add("numbers.gaps", NUMBERS, lambda a, f, k: _zipped(lambda x, y: y - x, a[0], a[0][1:]),
         "gaps")  # fmt: skip
    _add("numbers.pairwise", NUMBERS, lambda a, f, k: _zipped(lambda x, y: x + y, *a), "pairwise",
         "sums", sources=(NUMBERS, NUMBERS), level=4)  # fmt: skip


def _ints() -> None:
    pair = {"sources": (INT, INT), "level": 4}
    _add("int.change", INT, lambda a, f, k: f(a[0]), "", "changed", takes=("int", "int"), weight=2)
    _add("int.check", BOOL, lambda a, f, k: f(a[0]), "is", takes=("int", "bool"))
    _add("int.upto", NUMBERS, lambda a, f, k: list(range(1, a[0] + 1)), "range", "series")
    _add("int.digits", NUMBERS, lambda a, f, k: [int(d) for d in str(abs(a[0]))], "digits")
    _add("int.divisors", NUMBERS, lambda a, f, k: _divisors(a[0]), "divisors", level=2)
    _add("int.text", TEXT, lambda a, f, k: str(a[0]), "text", "shown", level=2)
    _add("int.plus", INT, lambda a, f, k: a[0] + a[1], "plus", "added", **pair)
    _add("int.minus", INT, lambda a, f, k: a[0] - a[1], "minus", "difference", **pair)
    _add("int.times", INT, lambda a, f, k: a[0] * a[1], "times", "product", **pair)
    _add("int.larger", INT, lambda a, f, k: max(a), "larger", **pair)
    _add("int.exceeds", BOOL, lambda a, f, k: a[0] > a[1], "exceeds", **pair)


def _texts() -> None:
    few = {"constants": ("few",)}
    _add("text.change", TEXT, lambda a, f, k: f(a[0]), "", "changed", takes=("word", "word"),
         weight=3)  # fmt: skip
    _add("text.measure", INT, lambda a, f, k: f(a[0]), "", "size", takes=("word", "int"))
    _add("text.check", BOOL, lambda a, f, k: f(a[0]), "is", takes=("word", "bool"), weight=1.5)
    _add("text.palindrome", BOOL, lambda a, f, k: a[0] == a[0][::-1], "palindrome", "same",
         level=2)  # fmt: skip
    _add("text.take", TEXT, lambda a, f, k: a[0][: k[0]], "take", "taken", **few)
    _add("text.skip", TEXT, lambda a, f, k: a[0][k[0] :], "skip", "rest", **few)
    _add("text.replace", TEXT, lambda a, f, k: a[0].replace(k[0], k[1]), "replace", "replaced",
         constants=("letter", "letter"))  # fmt: skip
    _add("text.split", WORDS, lambda a, f, k: a[0].split(), "split", "parts", weight=1.5)
    _add("text.tally", COUNTS, lambda a, f, k: dict(Counter(a[0])), "tally", "counts", level=2)
    _add("text.concat", TEXT, lambda a, f, k: a[0] + a[1], "join", "combined",
         sources=(TEXT, TEXT), level=4)  # fmt: skip


def _words() -> None:
    _add("words.apply", WORDS, lambda a, f, k: [f(x) for x in a[0]], "", "mapped",
         takes=("word", "word"), weight=4)  # fmt: skip
    _add("words.sizes", NUMBERS, lambda a, f, k: [f(x) for x in a[0]], "", "sizes",
         takes=("word", "int"), weight=2)  # fmt: skip
    _add("words.by_length", WORDS, lambda a, f, k: sorted(a[0], key=len), "by_length", "ordered",
         level=2)  # fmt: skip
    _add("words.join", TEXT, lambda a, f, k: k[0].join(a[0]), "join", "joined",
         constants=("separator",), weight=1.5)  # fmt: skip
    _add("words.longest", TEXT, lambda a, f, k: max(a[0], key=len, default=""), "longest")
    _add("words.tally", COUNTS, lambda a, f, k: dict(Counter(a[0])), "tally", "counts")
    _add("words.lengths", COUNTS, lambda a, f, k: {w: len(w) for w in a[0]}, "lengths")


def _counts() -> None:
    _add("counts.apply", COUNTS, lambda a, f, k: {w: f(v) for w, v in a[0].items()}, "", "mapped",
         takes=("int", "int"), weight=3)  # fmt: skip
    _add("counts.total", INT, lambda a, f, k: sum(a[0].values()), "sum", "total")
    _add("counts.largest", INT, lambda a, f, k: max(a[0].values(), default=0), "largest")
    _add("counts.length", INT, lambda a, f, k: len(a[0]), "length")
    _add("counts.keys", WORDS, lambda a, f, k: sorted(a[0]), "keys")
    _add("counts.values", NUMBERS, lambda a, f, k: sorted(a[0].values()), "values")
    _add("counts.best", TEXT, lambda a, f, k: _best(a[0]), "best", level=3)


def _running(values: Sequence[int]) -> list[int]:
    return [sum(values[: i + 1]) for i in range(len(values))]


def _zipped(f: Callable[[int, int], int], a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [f(x, y) for x, y in zip(a, b, strict=False)]


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _best(counts: dict[str, int]) -> str:
    return min(counts, key=lambda w: (-counts[w], w), default="")


for _kind in ELEMENT:
    _elementwise(_kind)
for _kind in (NUMBERS, WORDS):
    _lists(_kind)
for _fill in (_numbers, _ints, _texts, _words, _counts):
    _fill()
