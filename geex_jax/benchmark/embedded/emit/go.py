"""Tasks in Go."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import Problem, Row, pascal
from geex_jax.benchmark.embedded.emit.emitter import Emitter
from geex_jax.benchmark.embedded.emit.loops import Loops, fills_map
from geex_jax.benchmark.embedded.emit.walk import Walk
from geex_jax.benchmark.embedded.functions import Lambda
from geex_jax.benchmark.embedded.operations import (
    BOOL,
    COUNTS,
    INT,
    NUMBERS,
    TEXT,
    WORDS,
)
from geex_jax.benchmark.embedded.trees import Node

_COPY = "$o := append($L{}, $v...)\n"
_APPEND = "    $o = append($o, "
_INITIAL = {"total": "0", "product": "1", "count": "0"}
# The packages of the harness: it adds these, and no others, where code names them.
PACKAGES = ("math", "sort", "strconv", "strings")
_EXTREME = "$o := 0\nfor i, x := range $v {\n    if i == 0 || x SIGN $o {\n        $o = x\n    }\n}"

_TYPES = {INT: "int", BOOL: "bool", TEXT: "string", NUMBERS: "[]int", WORDS: "[]string",
         COUNTS: "map[string]int"}  # fmt: skip

_FUNCTIONS = {
    "longer": "len($x) > $k",
    "shorter": "len($x) < $k",
    "starts": "strings.HasPrefix($x, $k)",
    "ends": "strings.HasSuffix($x, $k)",
    "contains": "strings.Contains($x, $k)",
    "vowel": 'strings.ContainsRune("aeiouAEIOU", $x)',
    "digit": "$x >= '0' && $x <= '9'",
    "upper": "$x >= 'A' && $x <= 'Z'",
    "lower": "$x >= 'a' && $x <= 'z'",
    "absolute": "int(math.Abs(float64($x)))",
    "last_digit": "int(math.Abs(float64($x))) % 10",
    "uppercase": "strings.ToUpper($x)",
    "lowercase": "strings.ToLower($x)",
    "backwards": '$o := ""\nfor _, c := range $x {\n    $o = string(c) + $o\n}\n$o',
    "initial": "$x[:1]",
    "final": "$x[len($x)-1:]",
    "size": "len($x)",
}

_OPERATIONS = {
    "length": "len($v)",
    "largest": _EXTREME.replace("SIGN", ">"),
    "smallest": _EXTREME.replace("SIGN", "<"),
    "numbers.sort": _COPY + "sort.Ints($o)",
    "words.sort": _COPY + "sort.Strings($o)",
    "descending": _COPY + "sort.Sort(sort.Reverse(sort.IntSlice($o)))",
    "reverse": "$o := $L{}\nfor i := len($v) - 1; i >= 0; i-- {\n" + _APPEND + "$v[i])\n}",
    "distinct": (
        "$o := $L{}\n$m := map[$E]bool{}\nfor _, x := range $v {\n    if !$m[x] {\n"
        "        $m[x] = true\n        $o = append($o, x)\n    }\n}"
    ),
    "take": "$o := $v\nif len($o) > $k {\n    $o = $o[:$k]\n}",
    "skip": "$o := $L{}\nif len($v) > $k {\n    $o = $v[$k:]\n}",
    "text.skip": '$o := ""\nif len($v) > $k {\n    $o = $v[$k:]\n}',
    "alternate": "$o := $L{}\nfor i := 0; i < len($v); i += 2 {\n" + _APPEND + "$v[i])\n}",
    "running": (
        "$o := $L{}\n$t := 0\nfor _, x := range $v {\n    $t += x\n" + _APPEND + "$t)\n}"
    ),
    "gaps": "$o := $L{}\nfor i := 1; i < len($v); i++ {\n" + _APPEND + "$v[i]-$v[i-1])\n}",
    "upto": "$o := []int{}\nfor i := 1; i <= $v; i++ {\n" + _APPEND + "i)\n}",
    "digits": (
        "$o := []int{}\nfor _, d := range strconv.Itoa(int(math.Abs(float64($v)))) {\n"
        + _APPEND + "int(d-'0'))\n}"
    ),
    "divisors": (
        "$o := []int{}\nfor d := 1; d <= $v; d++ {\n    if $v%d == 0 {\n    "
        + _APPEND + "d)\n    }\n}"
    ),
    "int.text": "strconv.Itoa($v)",
    "palindrome": (
        "$o := true\nfor i := range $v {\n    if $v[i] != $v[len($v)-1-i] {\n"
        "        $o = false\n    }\n}"
    ),
    "replace": "strings.ReplaceAll($v, $k, $j)",
    "split": "strings.Fields($v)",
    "join": "strings.Join($v, $k)",
    "longest": (
        '$o := ""\nfor _, w := range $v {\n    if len(w) > len($o) {\n        $o = w\n    }\n}'
    ),
    "lengths": "$o := map[string]int{}\nfor _, w := range $v {\n    $o[w] = len(w)\n}",
    "by_length": _COPY + (
        "sort.SliceStable($o, func(i, j int) bool {\n    return len($o[i]) < len($o[j])\n})"
    ),
    "keys": (
        "$o := []string{}\nfor key := range $v {\n" + _APPEND + "key)\n}\nsort.Strings($o)"
    ),
    "values": (
        "$o := []int{}\nfor _, value := range $v {\n" + _APPEND + "value)\n}\nsort.Ints($o)"
    ),
    "counts.largest": (
        "$o, $m := 0, false\nfor _, value := range $v {\n    if !$m || value > $o {\n"
        "        $o, $m = value, true\n    }\n}"
    ),
    "best": (
        '$o := ""\nfor key, value := range $v {\n'
        '    if $o == "" || value > $v[$o] || value == $v[$o] && key < $o {\n'
        "        $o = key\n    }\n}"
    ),
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "$o := $v\nif $w > $o {\n    $o = $w\n}",
    "exceeds": "$v > $w",
    "concat": "append(append($L{}, $v...), $w...)",
    "text.concat": "$v + $w",
    "common": (
        "$o := $L{}\nfor _, x := range $v {\n    for _, y := range $w {\n"
        "        if x == y {\n            $o = append($o, x)\n            break\n"
        "        }\n    }\n}"
    ),
    "pairwise": (
        "$o := $L{}\nfor i := 0; i < len($v) && i < len($w); i++ {\n" + _APPEND
        + "$v[i]+$w[i])\n}"
    ),
}  # fmt: skip


class Go(Loops):
    """Go 1.18 and later, with the packages that the harness imports."""

    name, prefix, data = "go", "Go", "go"
    types = _TYPES
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def give_back(self, value: str) -> str:
        """The line that returns."""
        return f"return {value}"

    def bind(self, name: str, kind: str, value: str) -> str:
        """The line that names a value."""
        return f"{name} := {value}"

    def when(self, test: str) -> str:
        """The line that opens a conditional."""
        return f"if {test} {{"

    def statement(self, text: str) -> str:
        """A statement."""
        return text

    def head(self, walk: Walk, source: str) -> list[str]:
        """A loop over elements, or over the entries of a map."""
        first = "key" if fills_map(walk) else "_"
        return [f"for {first}, {walk.variable} := range {source} {{"]

    def empty(self, name: str, walk: Walk) -> str:
        """A number, or a container."""
        made = {TEXT: '""'}.get(walk.result, f"{self.types[walk.result]}{{}}")
        return f"{name} := {_INITIAL.get(walk.sink, made)}"

    def put(self, name: str, walk: Walk, value: str) -> str:
        """Adds, multiplies, or puts into a container."""
        if walk.sink == "tally":
            return f"{name}[{f'string({value})' if walk.source.kind == TEXT else value}]++"
        if fills_map(walk):
            return f"{name}[key] = {value}"
        if walk.sink == "product":
            return f"{name} *= {value}"
        if walk.sink == "total":
            return f"{name} += {value}"
        if walk.result == TEXT:
            return f"{name} += string({value})"
        return f"{name} = append({name}, {value})"

    def changed(self, emitter: Emitter, walk: Walk, change: Lambda, out: str) -> list[str]:
        """Go has no conditional expression."""
        if change.name != "if":
            return super().changed(emitter, walk, change, out)
        test, then, other = (emitter.function_lines(p, walk.variable)[-1] for p in change.parts)
        return [
            self.when(test),
            self.step + self.put(out, walk, then),
            "} else {",
            self.step + self.put(out, walk, other),
            "}",
        ]

    def whole(self, emitter: Emitter, node: Node, x: str) -> str:
        """A function of a whole number or text."""
        function = node.function
        assert function is not None
        if function.name != "if":
            return emitter.function(function, x)
        test, then, other = (emitter.function_lines(p, x)[-1] for p in function.parts)
        out = emitter.fresh(node.operation.variable)
        emitter.lines += [
            f"{out} := {other}",
            self.when(test),
            f"{self.step}{out} = {then}",
            "}",
        ]
        return out

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it."""
        name = pascal(problem.name)
        body = self.body(problem, 1)
        used = [f'    "{p}"\n' for p in PACKAGES if f"{p}." in body]
        imports = "import (\n" + "".join(used) + ")\n" if used else ""
        inner = [*problem.lines, *self.examples(problem, name)]
        docstring = "".join(f"// {line}\n" for line in inner)
        parameters = ", ".join(f"{n} {self.types[k]}" for n, k in problem.inputs)
        line = f"func {name}({parameters}) {self.types[problem.root.kind]} {{\n"
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": f"{imports}\n{docstring}{line}",
            "import": imports,
            "docstring": docstring,
            "declaration": f"\n{line}",
            "canonical_solution": body + "}\n\n",
            "test": self._test(problem, name, problem.tests),
            "test_setup": (
                'package main\n\nimport (\n    "testing"\n'
                '    "github.com/stretchr/testify/assert"\n)\n'
            ),
            "example_test": self._test(problem, name, problem.examples),
        }

    def _test(self, problem: Problem, name: str, cases: Any) -> str:
        lines = [
            f"    assert.Equal({self.literal(problem.root.kind, output)}, "
            f"{self.call(problem, name, inputs)})"
            for inputs, output in cases
        ]
        head = f"func Test{name}(t *testing.T) {{\n    assert := assert.New(t)\n"
        return head + "\n".join(lines) + "\n}\n"

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression."""
        if kind in (NUMBERS, WORDS):
            return f"{self.types[kind]}{{{self.shown(kind, value)[1:-1]}}}"
        if kind == COUNTS:
            return self.types[kind] + self.shown(kind, value)
        return super().literal(kind, value)
