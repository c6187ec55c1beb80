"""Tasks in JavaScript."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import Backend, Problem, Row, camel
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

_TYPES = {INT: "", BOOL: "", TEXT: "", NUMBERS: "", WORDS: "", COUNTS: ""}

_FUNCTIONS = {
    "even": "$x % 2 === 0",
    "odd": "$x % 2 !== 0",
    "multiple": "$x % $k === 0",
    "equal": "$x === $k",
    "unlike": "$x !== $k",
    "is": "$x === $c",
    "isnt": "$x !== $c",
    "longer": "$x.length > $k",
    "shorter": "$x.length < $k",
    "starts": "$x.startsWith($k)",
    "ends": "$x.endsWith($k)",
    "contains": "$x.includes($k)",
    "not_multiple": "$x % $k !== 0",
    "vowel": "'aeiouAEIOU'.includes($x)",
    "digit": "$x >= '0' && $x <= '9'",
    "upper": "$x >= 'A' && $x <= 'Z'",
    "lower": "$x >= 'a' && $x <= 'z'",
    "absolute": "Math.abs($x)",
    "last_digit": "Math.abs($x) % 10",
    "uppercase": "$x.toUpperCase()",
    "lowercase": "$x.toLowerCase()",
    "backwards": "[...$x].reverse().join('')",
    "initial": "$x[0]",
    "final": "$x[$x.length - 1]",
    "size": "$x.length",
}

_OPERATIONS = {
    "total": "$v.reduce((a, b) => a + b, 0)",
    "product": "$v.reduce((a, b) => a * b, 1)",
    "length": "$v.length",
    "largest": "$v.length > 0 ? Math.max(...$v) : 0",
    "smallest": "$v.length > 0 ? Math.min(...$v) : 0",
    "numbers.sort": "[...$v].sort((a, b) => a - b)",
    "words.sort": "[...$v].sort()",
    "descending": "[...$v].sort((a, b) => b - a)",
    "reverse": "[...$v].reverse()",
    "distinct": "[...new Set($v)]",
    "take": "$v.slice(0, $k)",
    "skip": "$v.slice($k)",
    "alternate": "$v.filter((_, i) => i % 2 === 0)",
    "running": "const $o = []\nlet $t = 0\nfor (const x of $v) {\n  $t += x\n  $o.push($t)\n}",
    "gaps": "$v.slice(1).map((x, i) => x - $v[i])",
    "upto": "Array.from({ length: Math.max($v, 0) }, (_, i) => i + 1)",
    "digits": "[...String(Math.abs($v))].map(Number)",
    "divisors": (
        "const $o = []\nfor (let d = 1; d <= $v; d++) {\n  if ($v % d === 0) {\n"
        "    $o.push(d)\n  }\n}"
    ),
    "int.text": "String($v)",
    "palindrome": "$v === [...$v].reverse().join('')",
    "replace": "$v.replaceAll($k, $j)",
    "split": "$v.split(' ').filter((w) => w !== '')",
    "join": "$v.join($k)",
    "longest": "$v.reduce((a, b) => (b.length > a.length ? b : a), '')",
    "lengths": "Object.fromEntries($v.map((w) => [w, w.length]))",
    "by_length": "[...$v].sort((a, b) => a.length - b.length)",
    "keys": "Object.keys($v).sort()",
    "values": "Object.values($v).sort((a, b) => a - b)",
    "counts.total": "Object.values($v).reduce((a, b) => a + b, 0)",
    "counts.length": "Object.keys($v).length",
    "counts.largest": "Object.keys($v).length > 0 ? Math.max(...Object.values($v)) : 0",
    "best": (
        "let $o = ''\nfor (const key of Object.keys($v).sort()) {\n"
        "  if ($o === '' || $v[key] > $v[$o]) {\n    $o = key\n  }\n}"
    ),
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "Math.max($v, $w)",
    "exceeds": "$v > $w",
    "concat": "$v.concat($w)",
    "common": "$v.filter((x) => $w.includes(x))",
    "pairwise": "$v.slice(0, $w.length).map((x, i) => x + $w[i])",
}


class JavaScript(Backend):
    """Chains of array methods."""

    name, prefix, data = "javascript", "JavaScript", "js"
    step = "  "
    types = _TYPES
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def text(self, value: str) -> str:
        """In single quotes."""
        return f"'{value}'"

    def give_back(self, value: str) -> str:
        """The line that returns."""
        return f"return {value}"

    def bind(self, name: str, kind: str, value: str) -> str:
        """The line that names a value."""
        return f"const {name} = {value}"

    def walk(self, emitter: Emitter, walk: Walk, source: str, name: str, final: bool) -> str:
        """A chain of filter, map and what sums up."""
        x = walk.variable
        collects = walk.sink == "collect"
        entries = walk.source.kind == COUNTS and collects
        parameter = "([key, value])" if entries else f"({x})"
        chain = {TEXT: f"[...{source}]", COUNTS: f"Object.values({source})"}.get(
            walk.source.kind, source
        )
        if entries:
            chain = f"Object.entries({source})"
        if walk.tests:
            chain += f".filter({parameter} => {emitter.all_of(walk.tests, x)})"
        if walk.change:
            change = emitter.function(walk.change, x)
            chain += f".map({parameter} => {f'[key, {change}]' if entries else change})"
        match walk.sink:
            case "total":
                return f"{chain}.reduce((a, b) => a + b, 0)"
            case "product":
                return f"{chain}.reduce((a, b) => a * b, 1)"
            case "count" | "any" | "all":
                assert walk.sink_test is not None
                test = emitter.function(walk.sink_test, x)
                if walk.sink == "count":
                    return f"{chain}.filter(({x}) => {test}).length"
                return f"{chain}.{'some' if walk.sink == 'any' else 'every'}(({x}) => {test})"
            case "tally":
                out = emitter.fresh(name)
                over = chain if walk.tests or walk.change else source
                emitter.lines += [f"const {out} = {{}}", f"for (const {x} of {over}) {{",
                                  f"  {out}[{x}] = ({out}[{x}] || 0) + 1", "}"]  # fmt: skip
                return out
        if entries:
            return f"Object.fromEntries({chain})"
        return f"{chain}.join('')" if walk.result == TEXT else chain

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it."""
        name = camel(problem.name)
        line = f"const {name} = ({', '.join(n for n, _ in problem.inputs)}) => {{\n"
        inner = [*problem.lines, *self.examples(problem, name)]
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": "/* " + "\n  ".join(inner) + f"\n  */\n{line}",
            "canonical_solution": self.body(problem, 1) + "}\n\n",
            "test": self._test(problem, name, problem.tests, "\n"),
            "declaration": f"\n{line}",
            "example_test": self._test(problem, name, problem.examples, ""),
        }

    def _test(self, problem: Problem, name: str, cases: Any, blank: str) -> str:
        kind = problem.root.kind
        tester = f"test{name[0].upper()}{name[1:]}"
        lines = []
        for inputs, output in cases:
            call = self.call(problem, name, inputs)
            expected = self.literal(kind, output)
            if kind == COUNTS:  # whatever the order of the keys
                call = f"JSON.stringify(Object.entries({call}).sort())"
                pairs = ", ".join(f"['{w}', {v}]" for w, v in _entries(output))
                expected = f"JSON.stringify([{pairs}])"
            elif kind in (NUMBERS, WORDS):
                call, expected = f"JSON.stringify({call})", f"JSON.stringify({expected})"
            lines.append(f"  console.assert({call} === {expected})")
        body = "\n".join(lines)
        return f"const {tester} = () => {{\n{body}\n}}\n{blank}{tester}()\n"

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression."""
        if kind == COUNTS:
            return "{ " + ", ".join(f"{w}: {v}" for w, v in value.items()) + " }" if value else "{}"
        return self.shown(kind, value)


def _entries(counts: dict[str, int]) -> list[tuple[str, int]]:
    """In the order of JavaScript's `sort`, which compares pairs as texts."""
    return sorted(counts.items(), key=lambda pair: f"{pair[0]},{pair[1]}")
