"""From a composition to the lines of a solution, in any of the languages.

A solution is a row of steps, each bound to a name once. Runs of `keep`, `apply` and what sums
them up are one step (a `Walk`): a loop in C++, Java and Go, a comprehension or a chain of calls
in Python, JavaScript and Rust. All other primitives are templates, in one table for each language.

Templates: `$v` `$w` the values, `$x` an element, `$k` `$j` constants (`$K`: as an unsigned size,
`$c` `$d`: as characters), `$o` the name of the result, `$t` `$s` `$m` fresh names, `$E` `$B` `$L`
the types of elements, boxed elements and lists. A template of one line is an expression; one of
several lines is statements that name their result `$o`. Functions of an element may have
statements before the expression in their last line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from geex_jax.benchmark.embedded.emit.base import Backend, Problem
from geex_jax.benchmark.embedded.emit.walk import VARIABLES, walk_of
from geex_jax.benchmark.embedded.functions import Arg, Constant, Lambda
from geex_jax.benchmark.embedded.trees import Node

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

    def constant(self, constant: Constant, unsigned: bool = False, character: bool = False) -> str:
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


def substitute(template: str, words: Mapping[str, str]) -> str:
    """Replaces `$a` by `words["a"]`."""
    return re.sub(r"\$([A-Za-z])", lambda m: words[m[1]], template)


def grouped(expression: str) -> str:
    """The expression in parentheses, unless it is one thing already."""
    return expression if re.fullmatch(r"[\w.]+(\([^()]*\))?", expression) else f"({expression})"
