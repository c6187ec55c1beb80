"""From a composition to code: what the six languages share.

A solution is a row of steps, each bound to a name once. Runs of `keep`, `apply` and what sums
them up are one step (a `Walk`): a loop in C++, Java and Go, a comprehension or a chain of calls
in Python, JavaScript and Rust. All other primitives are templates, in one table for each language.

Templates: `$v` `$w` the values, `$x` an element, `$k` `$j` constants (`$K`: as an unsigned size,
`$c` `$d`: as characters), `$o` the name of the result, `$t` `$s` `$m` fresh names, `$E` `$B` `$L` the types
of elements, boxed elements and lists. The value is the last line's expression; a template of
statements, which name their result `$o`, has several lines and no value line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax.benchmark.embedded.functions import Arg, Constant, Lambda
from geex_jax.benchmark.embedded.operations import (
    APPLY,
    BOOL,
    COUNTS,
    INT,
    KEEP,
    NUMBERS,
    SINKS,
    TEXT,
    WORDS,
)
from geex_jax.benchmark.embedded.trees import Node

VARIABLES = {"int": "x", "word": "w", "char": "c", "value": "value"}
APPLIES = (APPLY, "sizes")
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


@dataclasses.dataclass(frozen=True)
class Walk:
    """Elements of a value, tested, changed, summed up.

    Attributes:
      source: what is walked over.
      tests: predicates that an element must meet.
      change: function of an element, or None.
      sink: "collect", or one of SINKS.
      sink_test: the predicate of "count", "any" and "all".
      result: the kind of what comes out.
    """

    source: Node
    tests: tuple[Lambda, ...]
    change: Lambda | None
    sink: str
    sink_test: Lambda | None
    result: str

    @property
    def variable(self) -> str:
        """The name of an element."""
        kind = self.source.kind
        return {NUMBERS: "x", WORDS: "w", TEXT: "c", COUNTS: "value"}[kind]


def walk_of(node: Node) -> Walk | None:
    """The walk that ends in this node, as long as one loop can be; None for other primitives."""
    name = node.operation.name
    if len(node.args) != 1 or name not in (KEEP, *APPLIES, *SINKS):
        return None
    sink, sink_test, change, child = "collect", None, None, node
    if name in SINKS:
        sink, sink_test, child = name, node.function, node.args[0]
    takes_change = sink in ("collect", "total", "product", "tally") and not child.is_input
    # Characters that are counted in a map become words: only words are changed on the way.
    if takes_change and child.operation.name in APPLIES and _same_walk(child, node):
        change, child = child.function, child.args[0]
    tests: list[Lambda] = []
    while not child.is_input and child.operation.name == KEEP:
        assert child.function is not None
        tests.insert(0, child.function)
        child = child.args[0]
    return Walk(child, tuple(tests), change, sink, sink_test, node.kind)


def _same_walk(child: Node, node: Node) -> bool:
    return child is node or node.operation.name in ("total", "product", "tally")


class Emitter:
    """Writes one solution.

    Args:
      backend: the language.
      problem: the task.
    """

    def __init__(self, backend: Backend, problem: Problem):
        self.backend, self.problem = backend, problem
        self.names = [name for name, _ in problem.inputs]
        self.taken = {*self.names, *VARIABLES.values(), "key", "entry", "i", "d", "a", "b"}
        self.lines: list[str] = []

    def fresh(self, name: str) -> str:
        """A name that is not taken yet."""
        chosen, n = name, 2
        while chosen in self.taken:
            chosen, n = f"{name}{n}", n + 1
        self.taken.add(chosen)
        return chosen

    def run(self) -> list[str]:
        """The lines of the body, without indentation of the whole."""
        value = self.visit(self.problem.root, final=True)
        if value:
            self.lines.append(self.backend.give_back(value))
        return self.lines

    def visit(self, node: Node, final: bool = False) -> str:
        """Writes what a node needs. Returns its value: an expression if final, else a name."""
        backend = self.backend
        if node.is_input:
            return self.constant_input(node)
        key = node.operation.key
        walk = walk_of(node)
        template = backend.template(key)
        if walk and template and not walk.tests and not walk.change and not walk.sink_test:
            walk = None  # the whole value: there may be a plainer way
        if walk:
            source = self.visit(walk.source)
            value = backend.walk(self, walk, source, node.operation.variable, final)
        else:
            args = [self.visit(arg) for arg in node.args]
            value = self.plain(node, args, template)
        if final or not value:
            return value
        if re.fullmatch(r"\w+", value):
            return value
        name = self.fresh(node.operation.variable)
        self.lines.append(backend.bind(name, node.kind, value))
        return name

    def plain(self, node: Node, args: list[str], template: str) -> str:
        """A primitive that is no walk."""
        if node.operation.takes:  # a function of the whole value
            assert node.function is not None
            return self.backend.whole(self, node, args[0])
        if not template:
            raise KeyError(f"{self.backend.name} has no template for {node.key}")
        return self.fill(template, node, args)

    def fill(self, template: str, node: Node, args: list[str]) -> str:
        """A template's statements go to the lines, its value is returned."""
        backend = self.backend
        kind = node.args[0].kind
        words = {"v": args[0], "w": args[-1]}
        for letter, upper, char, constant in zip("kj", "KJ", "cd", node.constants, strict=False):
            words[letter] = self.constant(constant)
            words[upper] = self.constant(constant, unsigned=True)
            words[char] = self.constant(constant, character=True)
        words |= dict(zip("EBL", backend.element_types(kind), strict=True))
        fresh = {"o": node.operation.variable, "t": "running", "s": "stream", "m": "seen"}
        for letter, name in fresh.items():
            if f"${letter}" in template:
                words[letter] = self.fresh(name)
        text = substitute(template, words)
        if "\n" not in text:
            return text
        self.lines += text.split("\n")
        return words["o"]

    def constant(
        self, constant: Constant, unsigned: bool = False, character: bool = False
    ) -> str:
        """A constant as an expression."""
        if isinstance(constant, Arg):
            name = self.names[constant.index]
            return self.backend.unsigned(name) if unsigned else name
        if isinstance(constant, str):
            return self.backend.character(constant) if character else self.backend.text(constant)
        return str(constant)

    def constant_input(self, node: Node) -> str:
        """The name of an input."""
        index = node.constants[0]
        assert isinstance(index, int)
        return self.names[index]

    def function(self, function: Lambda, x: str) -> str:
        """An expression for a function of the element `x`; statements before it to the lines."""
        lines = self.function_lines(function, x)
        self.lines += lines[:-1]
        return lines[-1]

    def function_lines(self, function: Lambda, x: str) -> list[str]:
        """The same; returns the statements with the expression as the last line."""
        backend = self.backend
        if function.name in ("and", "or"):
            one, two = (self.tested(p, x, function.name) for p in function.parts)
            return [f"{one} {backend.logic[function.name]} {two}"]
        if function.name == "not":
            part = function.parts[0]
            if part.name == "not":
                return self.function_lines(part.parts[0], x)
            if part.name in OPPOSITES:
                return self.function_lines(dataclasses.replace(part, name=OPPOSITES[part.name]), x)
            return [backend.negation(self.tested(function.parts[0], x, "not"))]
        if function.name == "then":
            before = self.function_lines(function.parts[0], x)
            after = self.function_lines(function.parts[1], grouped(before[-1]))
            return [*before[:-1], *after]
        if function.name == "if":
            test, then, other = (self.function_lines(p, x)[-1] for p in function.parts)
            return [backend.choice(test, then, other)]
        template = backend.functions.get(function.name) or COMMON[function.name]
        words = {"x": x}
        if "$o" in template:
            words["o"] = self.fresh("flipped")
        if function.constants:
            constant = function.constants[0]
            words["k"] = self.constant(constant)
            words["K"] = self.constant(constant, unsigned=True)
            words["c"] = self.constant(constant, character=True)
        return substitute(template, words).split("\n")

    def all_of(self, tests: Sequence[Lambda], x: str) -> str:
        """The condition that all of these predicates hold."""
        if len(tests) == 1:
            return self.function(tests[0], x)
        joined = f" {self.backend.logic['and']} "
        return joined.join(self.tested(test, x, "and") for test in tests)

    def tested(self, part: Lambda, x: str, inside: str) -> str:
        """A predicate as a part of another one."""
        text = self.function_lines(part, x)[-1]
        mixed = part.name in ("and", "or") and part.name != inside
        bare = inside == "not" and (" " in text or text.startswith("!"))
        return f"({text})" if mixed or bare else text


# Functions that look alike in most languages.
COMMON = {
    "even": "$x % 2 == 0",
    "odd": "$x % 2 != 0",
    "positive": "$x > 0",
    "negative": "$x < 0",
    "above": "$x > $k",
    "below": "$x < $k",
    "least": "$x >= $k",
    "most": "$x <= $k",
    "multiple": "$x % $k == 0",
    "equal": "$x == $k",
    "unlike": "$x != $k",
    "is": "$x == $c",
    "isnt": "$x != $c",
    "add": "$x + $k",
    "subtract": "$x - $k",
    "multiply": "$x * $k",
    "square": "$x * $x",
    "negate": "-$x",
    "halve": "$x / 2",
    "identity": "$x",
    "not_positive": "$x <= 0",
    "not_negative": "$x >= 0",
    "not_multiple": "$x % $k != 0",
    "constant": "$k",
    "suffix": "$x + $k",
    "prefix": "$k + $x",
    "twice": "$x + $x",
}

OPPOSITES = {
    "even": "odd",
    "odd": "even",
    "positive": "not_positive",
    "negative": "not_negative",
    "above": "most",
    "below": "least",
    "least": "below",
    "most": "above",
    "multiple": "not_multiple",
    "equal": "unlike",
    "unlike": "equal",
    "is": "isnt",
    "isnt": "is",
}


def substitute(template: str, words: Mapping[str, str]) -> str:
    """Replaces `$a` by `words["a"]`."""
    return re.sub(r"\$([A-Za-z])", lambda m: words[m[1]], template)


def grouped(expression: str) -> str:
    """The expression in parentheses, unless it is one thing already."""
    return expression if re.fullmatch(r"[\w.]+(\([^()]*\))?", expression) else f"({expression})"


def indent(lines: Sequence[str], by: str) -> list[str]:
    """The lines, moved to the right."""
    return [by + line if line else line for line in lines]


class Backend:
    """One language.

    Class attributes:
      name: "cpp"; also the key of a task's rows. title: as in `geex_jax.languages`.
      prefix: of task ids. indent: of one level.
      types: kind -> type. functions, operations: templates. logic: "and" and "or".
    """

    name = title = prefix = ""
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
        return "\n".join(indent(Emitter(self, problem).run(), self.step * depth)) + "\n"

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


def snake(words: Sequence[str]) -> str:
    """keep_even."""
    return "_".join(words)


def camel(words: Sequence[str]) -> str:
    """keepEven."""
    return words[0] + "".join(w.capitalize() for w in words[1:])


def pascal(words: Sequence[str]) -> str:
    """KeepEven."""
    return "".join(w.capitalize() for w in words)
