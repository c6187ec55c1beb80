"""What a language brings to write tasks down, and what it gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.benchmark.embedded.emit.walk import Walk
from geex_jax.benchmark.embedded.operations import BOOL, COUNTS, INT, NUMBERS, TEXT, WORDS
from geex_jax.benchmark.embedded.trees import Node

if TYPE_CHECKING:
    from geex_jax.benchmark.embedded.emit.emitter import Emitter

Case = tuple[tuple[Any, ...], Any]  # inputs, output
Row = dict[str, str]


@dataclasses.dataclass(frozen=True)
class Problem:
    """What a language needs to write a task down.

    Attributes:
      number: of the task.
      name: words of the function's name. inputs: (name, kind) of each. root: the composition.
      lines: the description. tests, examples: cases.
    """

    number: int
    name: tuple[str, ...]
    inputs: tuple[tuple[str, str], ...]
    root: Node
    lines: tuple[str, ...]
    tests: tuple[Case, ...]
    examples: tuple[Case, ...]

    @property
    def kinds(self) -> set[str]:
        """Kinds of inputs and output."""
        return {kind for _, kind in self.inputs} | {self.root.kind}


class Backend:
    """One language.

    Class attributes:
      name: "cpp"; also the key of a task's rows. prefix: of task ids. data: of file names.
      step: one level of indentation.
      types: kind -> type. functions, operations: templates. logic: "and" and "or".
    """

    name = prefix = data = ""
    step = "    "
    types: Mapping[str, str] = {}
    functions: Mapping[str, str] = {}
    operations: Mapping[str, str] = {}
    logic: Mapping[str, str] = {"and": "&&", "or": "||"}

    def template(self, key: str) -> str:
        """The template of a primitive: of this kind, or of its name; "" if there is none."""
        return self.operations.get(key) or self.operations.get(key.split(".")[1], "")

    def element_types(self, kind: str) -> tuple[str, str, str]:
        """Types of an element, of a boxed one, and of the list."""
        element = INT if kind in (NUMBERS, INT, COUNTS) else TEXT
        return self.types[element], self.boxed(element), self.types.get(kind, "")

    def boxed(self, kind: str) -> str:
        """The type inside of containers."""
        return self.types[kind]

    def unsigned(self, name: str) -> str:
        """A name as a size."""
        return name

    def text(self, value: str) -> str:
        """A literal of a text: no quotes, no backslashes in it."""
        return f'"{value}"'

    def character(self, value: str) -> str:
        """A literal of a character."""
        return f"'{value}'"

    def negation(self, test: str) -> str:
        """Not."""
        return f"!{test}"

    def choice(self, test: str, then: str, other: str) -> str:
        """A conditional expression."""
        return f"{test} ? {then} : {other}"

    def give_back(self, value: str) -> str:
        """The line that returns."""
        return f"return {value};"

    def bind(self, name: str, kind: str, value: str) -> str:
        """The line that names a value."""
        return f"{self.types[kind]} {name} = {value};"

    def walk(self, emitter: Emitter, walk: Walk, source: str, name: str, final: bool) -> str:
        """Writes a walk; returns its value, or "" if it has returned."""
        raise NotImplementedError

    def whole(self, emitter: Emitter, node: Node, x: str) -> str:
        """A function of a whole number or text."""
        assert node.function is not None
        return emitter.function(node.function, x)

    def body(self, problem: Problem, depth: int) -> str:
        """The lines of a solution, `depth` levels in."""
        from geex_jax.benchmark.embedded.emit.emitter import Emitter

        lines = Emitter(self, problem).run()
        return "\n".join(indent(lines, self.step * depth)) + "\n"

    def row(self, problem: Problem) -> Row:
        """The task in this language: a row of HumanEval-X."""
        raise NotImplementedError

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression of its kind."""
        if kind == BOOL:
            return "true" if value else "false"
        return self.text(value) if kind == TEXT else str(value)

    def shown(self, kind: str, value: Any, argument: bool = False) -> str:
        """A value as in the examples of a description."""
        del argument
        if kind in (NUMBERS, WORDS):
            inner = INT if kind == NUMBERS else TEXT
            return "[" + ", ".join(self.shown(inner, x) for x in value) + "]"
        if kind == COUNTS:
            items = (f"{self.text(w)}: {v}" for w, v in value.items())
            return "{" + ", ".join(items) + "}"
        return Backend.literal(self, kind, value)

    def examples(self, problem: Problem, name: str) -> list[str]:
        """Lines of a description that show what comes out."""
        kinds = [kind for _, kind in problem.inputs]
        out = []
        for inputs, output in problem.examples:
            shown = (self.shown(k, v, True) for k, v in zip(kinds, inputs, strict=True))
            out += [f">>> {name}({', '.join(shown)})", self.shown(problem.root.kind, output)]
        return out

    def call(self, problem: Problem, name: str, inputs: tuple[Any, ...]) -> str:
        """A call with these inputs."""
        kinds = (kind for _, kind in problem.inputs)
        values = (self.literal(k, v) for k, v in zip(kinds, inputs, strict=True))
        return f"{name}({', '.join(values)})"


def indent(lines: Sequence[str], by: str) -> list[str]:
    """The lines, moved to the right."""
    return [by + line if line else line for line in lines]


def snake(words: Sequence[str]) -> str:
    """keep_even."""
    return "_".join(words)


def camel(words: Sequence[str]) -> str:
    """keepEven."""
    return words[0] + "".join(w.capitalize() for w in words[1:])


def pascal(words: Sequence[str]) -> str:
    """KeepEven."""
    return "".join(w.capitalize() for w in words)
