"""What the renderers of the languages share: types, signatures, literals."""

from __future__ import annotations

import abc
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.reading import Arguments
from geex_jax.benchmark.humaneval_x import programs
from geex_jax.benchmark.languages.types import Problem

SINGLE, DOUBLE = 1e-4, 1e-6  # largest differences of floats, relative where above 1


class NotRenderable(Exception):
    """A language's types do not hold a value, or its declaration is not understood."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One call and what has to come back; both Python literals."""

    arguments: Arguments
    expected: Any


@dataclasses.dataclass(frozen=True)
class Type:
    """A type as `vector<int>`: its name, and what stands in the brackets."""

    name: str
    of: tuple[Type, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}<{', '.join(map(str, self.of))}>" if self.of else self.name


class Renderer(abc.ABC):
    """Writes calls as tests of one problem in one language.

    Args:
      problem: of that language.

    Raises:
      NotRenderable: its declaration is not understood.
    """

    language = ""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.text = problem["declaration"] + problem["canonical_solution"]
        self.name = self._function()

    def _function(self) -> str:
        """The function that the data's own tests call."""
        found = programs.functions(self.language, self.text)
        found += programs.functions(self.language, problem_text(self.problem))
        called = [n for n in found if re.search(rf"\b{n}\s*\(", self.problem["test"])]
        if not called:
            raise NotRenderable("the function that the tests call was not found")
        return called[0]

    @abc.abstractmethod
    def case(self, case: Case) -> str:
        """A statement of the tests.

        Raises:
          NotRenderable: the types of the language do not hold a value.
        """

    @abc.abstractmethod
    def test(self, statements: Sequence[str]) -> str:
        """The whole test, in the shape of the data's own."""


_COMMENTS = re.compile(r"/\*.*?\*/|^\s*//[^\n]*", re.DOTALL | re.MULTILINE)


def problem_text(problem: Problem) -> str:
    """All of a problem's program but tests and comments, which hold calls as examples."""
    whole = problem["prompt"] + problem["declaration"] + problem["canonical_solution"]
    return _COMMENTS.sub("", whole)


def split(text: str, opened: str = "<([{", closed: str = ">)]}") -> list[str]:
    """Splits at the commas that stand in no brackets; without empty parts."""
    parts, depth, begin = [], 0, 0
    for place, sign in enumerate(text):
        depth += (sign in opened) - (sign in closed)
        if sign == "," and depth == 0:
            parts.append(text[begin:place])
            begin = place + 1
    parts.append(text[begin:])
    return [p.strip() for p in parts if p.strip()]


def generic(text: str) -> Type:
    """Reads `map<string, vector<int>>`."""
    text = text.strip()
    name, opened, rest = text.partition("<")
    if not opened:
        return Type(" ".join(text.split()))
    if not rest.rstrip().endswith(">"):
        raise NotRenderable(f"type {text!r}")
    return Type(name.strip(), tuple(generic(p) for p in split(rest.rstrip()[:-1])))


def inside(text: str, opened: int) -> str:
    """What stands in the brackets that open at `opened`."""
    depth = 0
    for place in range(opened, len(text)):
        depth += (text[place] in "([") - (text[place] in ")]")
        if depth == 0:
            return text[opened + 1 : place]
    raise NotRenderable("a bracket of the declaration does not close")


def has_float(value: Any) -> bool:
    """Whether a float is somewhere in it."""
    if isinstance(value, dict):
        return any(map(has_float, value.values()))
    if isinstance(value, list | tuple):
        return any(map(has_float, value))
    return isinstance(value, float)


def quoted(value: Any, quote: str = '"') -> str:
    """A string literal as C++, Java, Go, Rust and JavaScript write it."""
    if not isinstance(value, str):
        raise NotRenderable(f"{type(value).__name__} where a string is wanted")
    if not all(c in "\n\t" or " " <= c <= "~" for c in value):
        raise NotRenderable("characters beyond printable ASCII")
    text = json.dumps(value)[1:-1]
    return quote + (text if quote == '"' else text.replace('\\"', '"').replace("'", "\\'")) + quote


def letter(value: Any) -> str:
    """A character literal."""
    if not isinstance(value, str) or len(value) != 1:
        raise NotRenderable("no single character")
    return quoted(value, "'")


def boolean(value: Any) -> str:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise NotRenderable(f"{type(value).__name__} where a boolean is wanted")
    return "true" if value else "false"


def integer(value: Any, bits: int = 32, signed: bool = True, exact: bool = True) -> str:
    """A whole number that fits; with `exact` no float, however whole."""
    if isinstance(value, float) and not exact and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotRenderable(f"{type(value).__name__} where a whole number is wanted")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    if not low < value < high:
        raise NotRenderable("a number beyond its type")
    return str(value)


def real(value: Any) -> str:
    """A floating-point number, with point or exponent."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NotRenderable(f"{type(value).__name__} where a number is wanted")
    return repr(float(value))


def items(value: Any, size: int | None = None) -> list[Any]:
    """The items of a list or tuple, of that size if one is given."""
    if not isinstance(value, list | tuple):
        raise NotRenderable(f"{type(value).__name__} where a list is wanted")
    if size is not None and len(value) != size:
        raise NotRenderable(f"{len(value)} items where {size} are wanted")
    return list(value)


def pairs(value: Any) -> list[tuple[Any, Any]]:
    """The pairs of a dictionary."""
    if not isinstance(value, dict):
        raise NotRenderable(f"{type(value).__name__} where a map is wanted")
    return list(value.items())


def matched(arguments: Arguments, types: Sequence[Type]) -> list[tuple[Any, Type]]:
    """Arguments with their types."""
    if len(arguments) != len(types):
        raise NotRenderable("another number of arguments")
    return list(zip(arguments, types, strict=True))
