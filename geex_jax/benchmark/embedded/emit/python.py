"""Tasks in Python."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import Backend, Problem, Row, snake
from geex_jax.benchmark.embedded.emit.emitter import Emitter
from geex_jax.benchmark.embedded.emit.walk import Walk
from geex_jax.benchmark.embedded.operations import (
    BOOL,
    COUNTS,
    INT,
    NUMBERS,
    TEXT,
    WORDS,
)

_TYPES = {INT: "int", BOOL: "bool", TEXT: "str", NUMBERS: "List[int]", WORDS: "List[str]",
         COUNTS: "Dict[str, int]"}  # fmt: skip

_FUNCTIONS = {
    "longer": "len($x) > $k",
    "shorter": "len($x) < $k",
    "starts": "$x.startswith($k)",
    "ends": "$x.endswith($k)",
    "contains": "$k in $x",
    "vowel": "$x in 'aeiouAEIOU'",
    "digit": "$x.isdigit()",
    "upper": "$x.isupper()",
    "lower": "$x.islower()",
    "absolute": "abs($x)",
    "last_digit": "abs($x) % 10",
    "halve": "$x // 2",
    "uppercase": "$x.upper()",
    "lowercase": "$x.lower()",
    "backwards": "$x[::-1]",
    "initial": "$x[0]",
    "final": "$x[-1]",
    "size": "len($x)",
}

_OPERATIONS = {
    "total": "sum($v)",
    "product": "$o = 1\nfor x in $v:\n    $o *= x",
    "length": "len($v)",
    "largest": "max($v, default=0)",
    "smallest": "min($v, default=0)",
    "sort": "sorted($v)",
    "descending": "sorted($v, reverse=True)",
    "reverse": "$v[::-1]",
    "distinct": "list(dict.fromkeys($v))",
    "take": "$v[:$k]",
    "skip": "$v[$k:]",
    "alternate": "$v[::2]",
    "running": "$o = []\n$t = 0\nfor x in $v:\n    $t += x\n    $o.append($t)",
    "gaps": "[b - a for a, b in zip($v, $v[1:])]",
    "upto": "list(range(1, $v + 1))",
    "digits": "[int(d) for d in str(abs($v))]",
    "divisors": "[d for d in range(1, $v + 1) if $v % d == 0]",
    "int.text": "str($v)",
    "palindrome": "$v == $v[::-1]",
    "replace": "$v.replace($k, $j)",
    "split": "$v.split()",
    "join": "$k.join($v)",
    "longest": "max($v, key=len, default='')",
    "lengths": "{w: len(w) for w in $v}",
    "by_length": "sorted($v, key=len)",
    "keys": "sorted($v)",
    "values": "sorted($v.values())",
    "counts.total": "sum($v.values())",
    "counts.largest": "max($v.values(), default=0)",
    "best": "max(sorted($v), key=lambda w: $v[w], default='')",
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "max($v, $w)",
    "exceeds": "$v > $w",
    "concat": "$v + $w",
    "common": "[x for x in $v if x in $w]",
    "pairwise": "[a + b for a, b in zip($v, $w)]",
}

_LOGIC = {"and": "and", "or": "or"}


class Python(Backend):
    """Comprehensions and built-in functions."""

    name, prefix, data = "python", "Python", "python"
    types = _TYPES
    logic = _LOGIC
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def text(self, value: str) -> str:
        """In single quotes, as `repr` writes it."""
        return f"'{value}'"

    def negation(self, test: str) -> str:
        """Not."""
        return f"not {test}"

    def choice(self, test: str, then: str, other: str) -> str:
        """A conditional expression."""
        return f"{then} if {test} else {other}"

    def give_back(self, value: str) -> str:
        """The line that returns."""
        return f"return {value}"

    def bind(self, name: str, kind: str, value: str) -> str:
        """The line that names a value."""
        return f"{name} = {value}"

    def walk(self, emitter: Emitter, walk: Walk, source: str, name: str, final: bool) -> str:
        """A comprehension, or a loop that multiplies or counts."""
        x = walk.variable
        tests = list(walk.tests)
        change = emitter.function(walk.change, x) if walk.change else x
        entries = walk.source.kind == COUNTS
        if walk.sink in ("product", "tally"):
            return self._loop(emitter, walk, source, name, change)
        if walk.sink == "count":
            assert walk.sink_test is not None
            tests.append(walk.sink_test)
        head = f"for {x} in {source}{'.values()' if entries else ''}"
        if walk.sink == "collect" and entries:
            head = f"for key, value in {source}.items()"
        made = f"{head} if {emitter.all_of(tests, x)}" if tests else head
        match walk.sink:
            case "count":
                return f"sum(1 {made})"
            case "total":
                return f"sum({change} {made})"
            case "any" | "all":
                assert walk.sink_test is not None
                return f"{walk.sink}({emitter.function(walk.sink_test, x)} {made})"
        if entries:
            return f"{{key: {change} {made}}}"
        return f"''.join({change} {made})" if walk.result == TEXT else f"[{change} {made}]"

    def _loop(self, emitter: Emitter, walk: Walk, source: str, name: str,
              change: str) -> str:  # fmt: skip
        out = emitter.fresh(name)
        product = walk.sink == "product"
        lines = [f"{out} = {'1' if product else '{}'}", f"for {walk.variable} in {source}:"]
        depth = "    "
        if walk.tests:
            lines.append(f"{depth}if {emitter.all_of(walk.tests, walk.variable)}:")
            depth *= 2
        if product:
            lines.append(f"{depth}{out} *= {change}")
        else:
            if walk.change:
                lines.append(f"{depth}key = {change}")
            key = "key" if walk.change else walk.variable
            lines.append(f"{depth}{out}[{key}] = {out}.get({key}, 0) + 1")
        emitter.lines += lines
        return out

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression."""
        return repr(value)

    def shown(self, kind: str, value: Any, argument: bool = False) -> str:
        """A value as in the examples."""
        return repr(value)

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it."""
        name = snake(problem.name)
        parameters = ", ".join(f"{n}: {self.types[k]}" for n, k in problem.inputs)
        used = [w for w in ("Dict", "List") if any(w in self.types[k] for k in problem.kinds)]
        head = f"from typing import {', '.join(used)}\n\n\n" if used else ""
        declaration = f"{head}def {name}({parameters}) -> {self.types[problem.root.kind]}:\n"
        inner = [*problem.lines, *self.examples(problem, name)]
        text = "\n".join(f"    {line}" for line in inner)
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": f'{declaration}    """ {text.strip()}\n    """\n',
            "canonical_solution": self.body(problem, 1),
            "test": "\n" + self._check(problem, name, problem.tests),
            "text": text,
            "declaration": declaration,
            "example_test": self._check(problem, name, problem.examples),
        }

    def _check(self, problem: Problem, name: str, cases: Any) -> str:
        lines = [
            f"    assert {self.call(problem, name, inputs)} == {output!r}"
            for inputs, output in cases
        ]
        return f"def check({name}):\n" + "\n".join(lines) + f"\n\ncheck({name})\n"
