"""The primitives that tasks are composed of: one table.

A primitive takes one or two values of a kind and gives one. Those with `takes` also have a
function of one element (a `Lambda`).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

INT, BOOL, TEXT = "int", "bool", "text"
NUMBERS, WORDS, COUNTS = "numbers", "words", "counts"
KINDS = (INT, BOOL, TEXT, NUMBERS, WORDS, COUNTS)
INPUT_KINDS = (INT, TEXT, NUMBERS, WORDS, COUNTS)
ELEMENT = {NUMBERS: "int", COUNTS: "int", WORDS: "word", TEXT: "char", INT: "int"}

# Primitives that walk over elements: code for a run of them is one loop or one comprehension.
KEEP, APPLY = "keep", "apply"
SINKS = ("total", "product", "count", "any", "all", "tally")


@dataclasses.dataclass(frozen=True)
class Operation:
    """A primitive.

    Attributes:
      key: "numbers.sort": the kind of its first value, and its name.
      sources: kinds of its values; target: kind of its result.
      run: (values, function of one element or None, constants) -> result.
      word: its part of the name of the function that does it.
      variable: what a variable that holds its result is called.
      do: English: "sort the numbers in ascending order".
      give: English: "the numbers in ascending order"; empty: `do` says it.
      takes: (source, target) of its Lambda, if it has one.
      constants: as in `Function`.
      level: the lowest level that has it; weight: how often it is drawn.
    """

    key: str
    sources: tuple[str, ...]
    target: str
    run: Callable[[Sequence[Any], Any, Sequence[Any]], Any]
    word: str
    variable: str
    do: tuple[str, ...] = ()
    give: tuple[str, ...] = ()
    takes: tuple[str, str] | None = None
    constants: tuple[str, ...] = ()
    level: int = 1
    weight: float = 1.0

    @property
    def name(self) -> str:
        """Its name without the kind."""
        return self.key.split(".")[1]


OPERATIONS: dict[str, Operation] = {}


def _add(key: str, target: str, run: Callable[[Any], Any], word: str, variable: str = "",
         sources: tuple[str, ...] = (), **more: Any) -> None:  # fmt: skip
    kind = key.split(".")[0]
    for field in ("do", "give"):
        if isinstance(more.get(field), str):
            more[field] = (more[field],)
    OPERATIONS[key] = Operation(key, sources or (kind,), target, run, word, variable or word, **more)


def _runs(values: Sequence[int]) -> list[int]:
    return [sum(values[: i + 1]) for i in range(len(values))]


def _best(counts: dict[str, int]) -> str:
    return min(counts, key=lambda w: (-counts[w], w), default="")


def _elementwise(kind: str, plural: str, singular: str) -> None:
    """Primitives with a function of one element, for each kind that has elements."""
    element = ELEMENT[kind]
    of = "" if kind in (NUMBERS, WORDS) else f" of the {'text' if kind == TEXT else 'map'}"

    def elements(value: Any) -> Any:
        return value.values() if kind == COUNTS else value

    def keep(a: Any, f: Any, k: Any) -> Any:
        if kind == COUNTS:
            return {w: v for w, v in a[0].items() if f(v)}
        kept = [x for x in a[0] if f(x)]
        return "".join(kept) if kind == TEXT else kept

    predicate = (element, "bool")
    entries = "entries of the map whose values" if kind == COUNTS else f"{plural}{of} that"
    _add(f"{kind}.keep", kind, keep, "keep", "kept", takes=predicate, weight=4,
         do=(f"keep the {entries} {{p}}", f"select the {entries} {{p}}"),
         give=(f"the {entries} {{p}}",))
    _add(f"{kind}.count", INT, lambda a, f, k: sum(1 for x in elements(a[0]) if f(x)), "count",
         takes=predicate, weight=2, do=f"count the {plural}{of} that {{p}}",
         give=(f"how many {plural}{of} {{p}}", f"the number of {plural}{of} that {{p}}"))
    _add(f"{kind}.any", BOOL, lambda a, f, k: any(f(x) for x in elements(a[0])), "any", "found",
         takes=predicate, weight=1.5,
         give=(f"whether any {singular}{of} {{p1}}", f"whether at least one {singular}{of} {{p1}}"))
    _add(f"{kind}.all", BOOL, lambda a, f, k: all(f(x) for x in elements(a[0])), "all", "found",
         takes=predicate, weight=1.5,
         give=(f"whether all {plural}{of} {{p}}", f"whether every {singular}{of} {{p1}}"))
    if kind == NUMBERS:
        _add("numbers.apply", NUMBERS, lambda a, f, k: [f(x) for x in a[0]], "", "mapped",
             takes=("int", "int"), weight=4, do="{f:each number}")
    if kind == WORDS:
        _add("words.apply", WORDS, lambda a, f, k: [f(x) for x in a[0]], "", "mapped",
             takes=("word", "word"), weight=4, do="{f:each word}")
        _add("words.sizes", NUMBERS, lambda a, f, k: [f(x) for x in a[0]], "", "sizes",
             takes=("word", "int"), weight=2, do="{f:each word}")
    if kind == COUNTS:
        _add("counts.apply", COUNTS, lambda a, f, k: {w: f(v) for w, v in a[0].items()}, "",
             "mapped", takes=("int", "int"), weight=3, do="{f:each value of the map}")  # fmt: skip


def _lists(kind: str) -> None:
    """Primitives of lists of numbers and of words alike."""
    _add(f"{kind}.length", INT, lambda a, f, k: len(a[0]), "length", do=f"count the {kind}",
         give=(f"how many {kind} there are", f"the number of {kind}"))
    _add(f"{kind}.reverse", kind, lambda a, f, k: a[0][::-1], "reverse", "flipped",
         do=(f"reverse the order of the {kind}", f"put the {kind} in reverse order"),
         give=f"the {kind} in reverse order")
    _add(f"{kind}.distinct", kind, lambda a, f, k: list(dict.fromkeys(a[0])), "distinct",
         do=(f"remove repeated {kind}", f"keep only the first occurrence of each of the {kind}"),
         give=f"the {kind} without repetitions")
    _add(f"{kind}.take", kind, lambda a, f, k: a[0][: k[0]], "take", "taken", constants=("few",),
         do=f"keep the first {{k}} {kind}", give=f"the first {{k}} {kind}")
    _add(f"{kind}.skip", kind, lambda a, f, k: a[0][k[0] :], "skip", "rest", constants=("few",),
         do=(f"remove the first {{k}} {kind}", f"drop the first {{k}} {kind}"),
         give=f"the {kind} without the first {{k}}")
    _add(f"{kind}.alternate", kind, lambda a, f, k: a[0][::2], "alternate", "chosen", level=2,
         do=(f"keep every second of the {kind}, starting with the first",),
         give=f"every second of the {kind}, starting with the first")
    _add(f"{kind}.concat", kind, lambda a, f, k: a[0] + a[1], "join", "combined",
         sources=(kind, kind), level=4, do="append {b} to {a}", give="{a} followed by {b}")
    _add(f"{kind}.common", kind, lambda a, f, k: [x for x in a[0] if x in a[1]], "common",
         "shared", sources=(kind, kind), level=4, do=f"keep the {kind} of {{a}} that are in {{b}}",
         give=f"the {kind} of {{a}} that are in {{b}}")  # fmt: skip


def _numbers() -> None:
    _elementwise(NUMBERS, "numbers", "number")
    _lists(NUMBERS)
    _add("numbers.total", INT, lambda a, f, k: sum(a[0]), "sum", "total", weight=2.5,
         do="add up the numbers", give=("the sum of the numbers", "their sum"))
    _add("numbers.product", INT, lambda a, f, k: _product(a[0]), "product",
         do="multiply the numbers together",
         give=("the product of the numbers", "their product"))
    _add("numbers.largest", INT, lambda a, f, k: max(a[0], default=0), "largest",
         do="find the largest number, or 0 if there is none",
         give="the largest number, or 0 if there is none")
    _add("numbers.smallest", INT, lambda a, f, k: min(a[0], default=0), "smallest",
         do="find the smallest number, or 0 if there is none",
         give="the smallest number, or 0 if there is none")
    _add("numbers.sort", NUMBERS, lambda a, f, k: sorted(a[0]), "sort", "ordered",
         do=("sort the numbers in ascending order", "sort the numbers from small to large"),
         give="the numbers in ascending order")
    _add("numbers.descending", NUMBERS, lambda a, f, k: sorted(a[0], reverse=True), "descending",
         "ordered",
         do=("sort the numbers in descending order", "sort the numbers from large to small"),
         give="the numbers in descending order")
    _add("numbers.running", NUMBERS, lambda a, f, k: _runs(a[0]), "running", "sums",
         do=("compute the running sums of the numbers",
             "replace each number by the sum of all numbers up to it"),
         give="the running sums of the numbers")
    _add("numbers.gaps", NUMBERS,
         lambda a, f, k: [y - x for x, y in zip(a[0], a[0][1:], strict=False)], "gaps",
         do=("compute the differences between neighbouring numbers",
             "subtract each number from the one after it"),
         give="the differences between neighbouring numbers")
    _add("numbers.pairwise", NUMBERS,
         lambda a, f, k: [x + y for x, y in zip(a[0], a[1], strict=False)], "pairwise", "sums",
         sources=(NUMBERS, NUMBERS), level=4,
         do="add {a} and {b} position by position, up to the end of the shorter one",
         give="the sums of {a} and {b} position by position, up to the end of the shorter one")  # fmt: skip


def _ints() -> None:
    _add("int.change", INT, lambda a, f, k: f(a[0]), "", "changed", takes=("int", "int"),
         weight=2, do="{f:the number}")
    _add("int.check", BOOL, lambda a, f, k: f(a[0]), "is", "found", takes=("int", "bool"),
         give="whether the number {p1}")
    _add("int.upto", NUMBERS, lambda a, f, k: list(range(1, a[0] + 1)), "range", "series",
         do=("list the numbers from 1 to the number", "take all numbers from 1 to the number"),
         give="the numbers from 1 to the number")
    _add("int.digits", NUMBERS, lambda a, f, k: [int(d) for d in str(abs(a[0]))], "digits",
         do=("list the digits of the number",), give="the digits of the number")
    _add("int.divisors", NUMBERS,
         lambda a, f, k: [d for d in range(1, a[0] + 1) if a[0] % d == 0], "divisors", level=2,
         do="list the divisors of the number", give="the divisors of the number")
    _add("int.text", TEXT, lambda a, f, k: str(a[0]), "text", "shown", level=2,
         do="write the number as text", give="the number as text")
    pair = {"sources": (INT, INT), "level": 4}
    _add("int.plus", INT, lambda a, f, k: a[0] + a[1], "plus", "added", **pair,
         do="add {b} to {a}", give=("the sum of {a} and {b}", "{a} plus {b}"))
    _add("int.minus", INT, lambda a, f, k: a[0] - a[1], "minus", "difference", **pair,
         do="subtract {b} from {a}", give="{a} minus {b}")
    _add("int.times", INT, lambda a, f, k: a[0] * a[1], "times", "product", **pair,
         do="multiply {a} by {b}", give="{a} times {b}")
    _add("int.larger", INT, lambda a, f, k: max(a[0], a[1]), "larger", "larger", **pair,
         do="take the larger of {a} and {b}", give="the larger of {a} and {b}")
    _add("int.exceeds", BOOL, lambda a, f, k: a[0] > a[1], "exceeds", "found", **pair,
         give="whether {a} is greater than {b}")  # fmt: skip


def _texts() -> None:
    _elementwise(TEXT, "characters", "character")
    _add("text.change", TEXT, lambda a, f, k: f(a[0]), "", "changed", takes=("word", "word"),
         weight=3, do="{f:the text}")
    _add("text.measure", INT, lambda a, f, k: f(a[0]), "", "size", takes=("word", "int"),
         do="{f:the text}")
    _add("text.check", BOOL, lambda a, f, k: f(a[0]), "is", "found", takes=("word", "bool"),
         weight=1.5, give="whether the text {p1}")
    _add("text.palindrome", BOOL, lambda a, f, k: a[0] == a[0][::-1], "palindrome", "found",
         level=2, give=("whether the text is a palindrome", "whether the text reads the same "
                        "backwards"))
    _add("text.take", TEXT, lambda a, f, k: a[0][: k[0]], "take", "taken", constants=("few",),
         do="keep the first {k} characters of the text",
         give="the first {k} characters of the text")
    _add("text.skip", TEXT, lambda a, f, k: a[0][k[0] :], "skip", "rest", constants=("few",),
         do=("remove the first {k} characters of the text",
             "drop the first {k} characters of the text"),
         give="the text without its first {k} characters")
    _add("text.replace", TEXT, lambda a, f, k: a[0].replace(k[0], k[1]), "replace", "replaced",
         constants=("letter", "letter"), do="replace every {k} in the text by {j}")
    _add("text.split", WORDS, lambda a, f, k: a[0].split(), "split", "parts", weight=1.5,
         do=("split the text into words",), give="the words of the text")
    _add("text.tally", COUNTS, lambda a, f, k: dict(Counter(a[0])), "tally", "counts", level=2,
         do="count how often each character occurs in the text",
         give="how often each character occurs in the text")
    _add("text.concat", TEXT, lambda a, f, k: a[0] + a[1], "join", "combined",
         sources=(TEXT, TEXT), level=4, do="append {b} to {a}", give="{a} followed by {b}")  # fmt: skip


def _words() -> None:
    _elementwise(WORDS, "words", "word")
    _lists(WORDS)
    _add("words.sort", WORDS, lambda a, f, k: sorted(a[0]), "sort", "ordered",
         do=("sort the words", "put the words in sorted order"), give="the words in sorted order")
    _add("words.by_length", WORDS, lambda a, f, k: sorted(a[0], key=len), "by_length", "ordered",
         level=2, do=("sort the words by length, words of equal length in their old order",),
         give="the words sorted by length, words of equal length in their old order")
    _add("words.join", TEXT, lambda a, f, k: k[0].join(a[0]), "join", "joined",
         constants=("separator",), weight=1.5, do="join the words with {k} between them")
    _add("words.longest", TEXT, lambda a, f, k: max(a[0], key=len, default=""), "longest",
         do="find the first of the longest words, or an empty text if there is none",
         give="the first of the longest words, or an empty text if there is none")
    _add("words.tally", COUNTS, lambda a, f, k: dict(Counter(a[0])), "tally", "counts",
         do="count how often each word occurs", give="how often each word occurs")
    _add("words.lengths", COUNTS, lambda a, f, k: {w: len(w) for w in a[0]}, "lengths",
         do="map each word to its length", give="a map from each word to its length")  # fmt: skip


def _counts() -> None:
    _elementwise(COUNTS, "values", "value")
    _add("counts.total", INT, lambda a, f, k: sum(a[0].values()), "sum", "total",
         do="add up the values of the map", give="the sum of the values of the map")
    _add("counts.largest", INT, lambda a, f, k: max(a[0].values(), default=0), "largest",
         do="find the largest value of the map, or 0 if it is empty",
         give="the largest value of the map, or 0 if it is empty")
    _add("counts.length", INT, lambda a, f, k: len(a[0]), "length",
         do="count the entries of the map", give="how many entries the map has")
    _add("counts.keys", WORDS, lambda a, f, k: sorted(a[0]), "keys",
         do="list the keys of the map in sorted order", give="the keys of the map in sorted order")
    _add("counts.values", NUMBERS, lambda a, f, k: sorted(a[0].values()), "values",
         do="list the values of the map in ascending order",
         give="the values of the map in ascending order")
    _add("counts.best", TEXT, lambda a, f, k: _best(a[0]), "best", level=3,
         do="find the key with the largest value, the first in sorted order if there are several, "
         "or an empty text if the map is empty",
         give="the key with the largest value, the first in sorted order if there are several, "
         "or an empty text if the map is empty")  # fmt: skip


def _product(values: Sequence[int]) -> int:
    result = 1
    for x in values:
        result *= x
    return result


for _fill in (_numbers, _ints, _texts, _words, _counts):
    _fill()
