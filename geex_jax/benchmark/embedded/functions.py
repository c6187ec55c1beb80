"""Functions of one element: what `keep`, `apply`, `count`, ... do with numbers, words, letters.

A `Lambda` is a function with its constants. Five of them ("and", "or", "not", "then", "if") are
made of others, which are its parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

VOWELS = "aeiouAEIOU"


@dataclasses.dataclass(frozen=True)
class Arg:
    """A constant that the caller gives: the task's input of that number."""

    index: int


Constant = int | str | Arg


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of one element.

    Attributes:
      source: "int", "word" or "char"; target: "bool" (a predicate), "int" or "word".
      phrases: English, the first is the plain one; predicates begin with a plural verb.
      run: the function itself: (element, *constants) -> value.
      constants: what each constant is: "digit" (2 to 9) or "letter".
      level: the lowest level that has it.
      total: False: not for an empty word.
    """

    source: str
    target: str
    phrases: tuple[str, ...]
    run: Callable[..., Any]
    constants: tuple[str, ...] = ()
    level: int = 1
    total: bool = True


def _predicate(source: str, run: Callable[..., bool], *phrases: str, **more: Any) -> Function:
    return Function(source, "bool", phrases, run, **more)


FUNCTIONS: dict[str, Function] = {
    # numbers -> yes or no
    "even": _predicate("int", lambda x: x % 2 == 0, "are even"),
    "odd": _predicate("int", lambda x: x % 2 != 0, "are odd", "are not even"),
    "positive": _predicate("int", lambda x: x > 0, "are positive", "are greater than zero"),
    "negative": _predicate("int", lambda x: x < 0, "are negative", "are less than zero"),
    "above": _predicate("int", lambda x, k: x > k, "are greater than {k}", "are above {k}",
                        constants=("digit",)),
    "below": _predicate("int", lambda x, k: x < k, "are less than {k}", "are below {k}",
                        constants=("digit",)),
    "multiple": _predicate("int", lambda x, k: x % k == 0, "are divisible by {k}",
                           "are multiples of {k}", constants=("factor",)),
    "equal": _predicate("int", lambda x, k: x == k, "are equal to {k}", constants=("digit",)),
    "unlike": _predicate("int", lambda x, k: x != k, "are different from {k}",
                         "are not equal to {k}", constants=("digit",)),
    "least": _predicate("int", lambda x, k: x >= k, "are at least {k}", constants=("digit",),
                        level=3),
    "most": _predicate("int", lambda x, k: x <= k, "are at most {k}", constants=("digit",),
                       level=3),
    # words -> yes or no
    "longer": _predicate("word", lambda w, k: len(w) > k, "have more than {k} letters",
                         constants=("size",)),
    "shorter": _predicate("word", lambda w, k: len(w) < k, "have fewer than {k} letters",
                          constants=("size",)),
    "starts": _predicate("word", lambda w, k: w.startswith(k), "start with {k}",
                         "begin with {k}", constants=("letter",)),
    "ends": _predicate("word", lambda w, k: w.endswith(k), "end with {k}",
                       constants=("letter",)),
    "contains": _predicate("word", lambda w, k: k in w, "contain {k}", constants=("letter",)),
    # letters -> yes or no
    "vowel": _predicate("char", lambda c: c in VOWELS, "are vowels"),
    "digit": _predicate("char", lambda c: "0" <= c <= "9", "are digits"),
    "upper": _predicate("char", lambda c: "A" <= c <= "Z", "are uppercase letters"),
    "lower": _predicate("char", lambda c: "a" <= c <= "z", "are lowercase letters"),
    "is": _predicate("char", lambda c, k: c == k, "are equal to {k}", constants=("letter",)),
    "isnt": _predicate("char", lambda c, k: c != k, "are different from {k}",
                       "are not equal to {k}", constants=("letter",)),
    # numbers -> numbers
    "add": Function("int", "int", ("add {k} to {it}", "increase {it} by {k}"),
                    lambda x, k: x + k, ("digit",)),
    "subtract": Function("int", "int", ("subtract {k} from {it}", "decrease {it} by {k}"),
                         lambda x, k: x - k, ("digit",)),
    "multiply": Function("int", "int", ("multiply {it} by {k}",), lambda x, k: x * k,
                         ("digit",)),
    "square": Function("int", "int", ("square {it}", "multiply {it} by itself"),
                       lambda x: x * x),
    "negate": Function("int", "int", ("negate {it}", "change the sign of {it}"), lambda x: -x),
    "absolute": Function("int", "int", ("replace {it} by its absolute value",), abs),
    "last_digit": Function("int", "int", ("replace {it} by its last digit",),
                           lambda x: abs(x) % 10),
    "halve": Function("int", "int", ("divide {it} by 2",), lambda x: x // 2, level=99),
    "identity": Function("int", "int", ("leave {it} unchanged",), lambda x: x, level=99),
    "constant": Function("int", "int", ("replace {it} by {k}",), lambda x, k: k, ("digit",),
                         level=99),
    # words -> words
    "uppercase": Function("word", "word", ("convert {it} to uppercase",), str.upper),
    "lowercase": Function("word", "word", ("convert {it} to lowercase",), str.lower),
    "backwards": Function("word", "word", ("reverse {it}", "turn {it} around"),
                          lambda w: w[::-1]),
    "initial": Function("word", "word", ("replace {it} by its first letter",),
                        lambda w: w[:1], total=False),
    "final": Function("word", "word", ("replace {it} by its last letter",), lambda w: w[-1:],
                      total=False),
    "suffix": Function("word", "word", ("append {k} to {it}", "add {k} at the end of {it}"),
                       lambda w, k: w + k, ("letter",)),
    "prefix": Function("word", "word", ("put {k} in front of {it}",), lambda w, k: k + w,
                       ("letter",)),
    "twice": Function("word", "word", ("repeat {it} twice", "write {it} two times"),
                      lambda w: w + w),
    # words -> numbers
    "size": Function("word", "int", ("replace {it} by its length",), len),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Lambda:
    """A function with its constants, or a combination of others.

    Attributes:
      name: of FUNCTIONS, or "and", "or", "not", "then" (the first part, then the second), "if"
        (condition, function where it holds, function elsewhere).
    """

    name: str
    constants: tuple[Constant, ...] = ()
    parts: tuple[Lambda, ...] = ()

    @property
    def source(self) -> str:
        """ "int", "word" or "char"."""
        return self.parts[0].source if self.parts else FUNCTIONS[self.name].source

    @property
    def target(self) -> str:
        """ "bool", "int" or "word"."""
        return self.parts[-1].target if self.parts else FUNCTIONS[self.name].target

    def bind(self, inputs: Sequence[Any]) -> Callable[[Any], Any]:
        """The function of an element; `inputs` are the task's, for constants that are."""
        parts = [part.bind(inputs) for part in self.parts]
        match self.name:
            case "and":
                return lambda x: parts[0](x) and parts[1](x)
            case "or":
                return lambda x: parts[0](x) or parts[1](x)
            case "not":
                return lambda x: not parts[0](x)
            case "then":
                return lambda x: parts[1](parts[0](x))
            case "if":
                return lambda x: parts[1 if parts[0](x) else 2](x)
        run = FUNCTIONS[self.name].run
        if not self.constants:
            return run
        k = value(self.constants[0], inputs)
        return lambda x: run(x, k)

    @property
    def asks(self) -> bool:
        """Whether one of its constants is an input."""
        return any(isinstance(k, Arg) for leaf in self.leaves() for k in leaf.constants)

    def leaves(self) -> list[Lambda]:
        """The functions of FUNCTIONS that it is made of, in reading order."""
        return [leaf for part in self.parts for leaf in part.leaves()] if self.parts else [self]


def value(constant: Constant, inputs: Sequence[Any]) -> Any:
    """A constant's value, from the inputs if the caller gives it."""
    return inputs[constant.index] if isinstance(constant, Arg) else constant
