"""Tasks in C++."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import Problem, Row, snake
from geex_jax.benchmark.embedded.emit.loops import Loops, fills_map
from geex_jax.benchmark.embedded.emit.walk import Walk
from geex_jax.benchmark.embedded.operations import (
    BOOL,
    COUNTS,
    INT,
    NUMBERS,
    TEXT,
    WORDS,
)

_COPY = "$L $o = $v;\n"
_PUSH = "    $o.push_back("
_INDEXED = "vector<$E> $o;\nfor (int i = 0; i < (int)$v.size(); i"
_INITIAL = {"total": "0", "product": "1", "count": "0"}

_TYPES = {INT: "int", BOOL: "bool", TEXT: "string", NUMBERS: "vector<int>",
         WORDS: "vector<string>", COUNTS: "map<string, int>"}  # fmt: skip

_FUNCTIONS = {
    "longer": "$x.size() > $K",
    "shorter": "$x.size() < $K",
    "starts": "$x[0] == $c",
    "ends": "!$x.empty() && $x.back() == $c",
    "contains": "$x.find($c) != string::npos",
    "vowel": 'string("aeiouAEIOU").find($x) != string::npos',
    "digit": "isdigit($x)",
    "upper": "isupper($x)",
    "lower": "islower($x)",
    "absolute": "abs($x)",
    "last_digit": "abs($x) % 10",
    "uppercase": "transform($x.begin(), $x.end(), $x.begin(), ::toupper);\n$x",
    "lowercase": "transform($x.begin(), $x.end(), $x.begin(), ::tolower);\n$x",
    "backwards": "string($x.rbegin(), $x.rend())",
    "initial": "$x.substr(0, 1)",
    "final": "$x.substr($x.size() - 1)",
    "size": "$x.size()",
}

_OPERATIONS = {
    "length": "$v.size()",
    "largest": "$v.empty() ? 0 : *max_element($v.begin(), $v.end())",
    "smallest": "$v.empty() ? 0 : *min_element($v.begin(), $v.end())",
    "sort": _COPY + "sort($o.begin(), $o.end());",
    "descending": _COPY + "sort($o.rbegin(), $o.rend());",
    "reverse": "$L($v.rbegin(), $v.rend())",
    "distinct": (
        "$L $o;\nfor ($E x : $v) {\n    if (find($o.begin(), $o.end(), x) == $o.end()) {\n"
        "        $o.push_back(x);\n    }\n}"
    ),
    "take": "$L($v.begin(), $v.begin() + min($k, (int)$v.size()))",
    "skip": "$L($v.begin() + min($k, (int)$v.size()), $v.end())",
    "alternate": _INDEXED + " += 2) {\n" + _PUSH + "$v[i]);\n}",
    "running": "$L $o;\nint $t = 0;\nfor (int x : $v) {\n    $t += x;\n" + _PUSH + "$t);\n}",
    "gaps": (
        "$L $o;\nfor (int i = 1; i < (int)$v.size(); i++) {\n"
        + _PUSH + "$v[i] - $v[i - 1]);\n}"
    ),
    "upto": "vector<int> $o;\nfor (int i = 1; i <= $v; i++) {\n" + _PUSH + "i);\n}",
    "digits": (
        "vector<int> $o;\nfor (char d : to_string(abs($v))) {\n" + _PUSH + "d - '0');\n}"
    ),
    "divisors": (
        "vector<int> $o;\nfor (int d = 1; d <= $v; d++) {\n    if ($v % d == 0) {\n"
        "        $o.push_back(d);\n    }\n}"
    ),
    "int.text": "to_string($v)",
    "text.take": "$v.substr(0, $k)",
    "text.skip": "$v.substr(min($k, (int)$v.size()))",
    "palindrome": "$v == string($v.rbegin(), $v.rend())",
    "replace": _COPY + "replace($o.begin(), $o.end(), $c, $d);",
    "split": (
        "vector<string> $o;\nstringstream $s($v);\nfor (string w; $s >> w;) {\n"
        + _PUSH + "w);\n}"
    ),
    "join": (
        "string $o;\nfor (string w : $v) {\n    if (!$o.empty()) {\n        $o += $k;\n    }\n"
        "    $o += w;\n}"
    ),
    "longest": (
        "string $o;\nfor (string w : $v) {\n    if (w.size() > $o.size()) {\n"
        "        $o = w;\n    }\n}"
    ),
    "lengths": "map<string, int> $o;\nfor (string w : $v) {\n    $o[w] = w.size();\n}",
    "by_length": _COPY + (
        "stable_sort($o.begin(), $o.end(), [](const string& a, const string& b) {\n"
        "    return a.size() < b.size();\n});"
    ),
    "keys": "vector<string> $o;\nfor (auto& entry : $v) {\n" + _PUSH + "entry.first);\n}",
    "values": (
        "vector<int> $o;\nfor (auto& entry : $v) {\n" + _PUSH + "entry.second);\n}\n"
        "sort($o.begin(), $o.end());"
    ),
    "counts.largest": (
        "int $o = $v.empty() ? 0 : $v.begin()->second;\nfor (auto& entry : $v) {\n"
        "    $o = max($o, entry.second);\n}"
    ),
    "best": (
        "string $o;\nfor (auto& entry : $v) {\n"
        "    if ($o.empty() || entry.second > $v[$o]) {\n        $o = entry.first;\n    }\n}"
    ),
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "max($v, $w)",
    "exceeds": "$v > $w",
    "concat": _COPY + "$o.insert($o.end(), $w.begin(), $w.end());",
    "text.concat": "$v + $w",
    "common": (
        "$L $o;\nfor ($E x : $v) {\n    if (find($w.begin(), $w.end(), x) != $w.end()) {\n"
        "        $o.push_back(x);\n    }\n}"
    ),
    "pairwise": (
        "$L $o;\nfor (int i = 0; i < (int)min($v.size(), $w.size()); i++) {\n"
        + _PUSH + "$v[i] + $w[i]);\n}"
    ),
}  # fmt: skip


class Cpp(Loops):
    """C++11, as the harness compiles it."""

    name, prefix, data = "cpp", "CPP", "cpp"
    types = _TYPES
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def unsigned(self, name: str) -> str:
        """A name as a size."""
        return f"(size_t){name}"

    def head(self, walk: Walk, source: str) -> list[str]:
        """A loop over elements, or over the entries of a map."""
        kind, x = walk.source.kind, walk.variable
        if kind == COUNTS:
            return [f"for (auto& entry : {source}) {{", "int value = entry.second;"]
        element = {NUMBERS: "int", WORDS: "string", TEXT: "char"}[kind]
        return [f"for ({element} {x} : {source}) {{"]

    def empty(self, name: str, walk: Walk) -> str:
        """A number, or a container."""
        if walk.sink in _INITIAL:
            return f"int {name} = {_INITIAL[walk.sink]};"
        return f"{self.types[walk.result]} {name};"

    def put(self, name: str, walk: Walk, value: str) -> str:
        """Adds, multiplies, or puts into a container."""
        if walk.sink == "tally":
            key = f"string(1, {value})" if walk.source.kind == TEXT else value
            return f"{name}[{key}]++;"
        if fills_map(walk):
            return f"{name}[entry.first] = {value};"
        if walk.sink == "product":
            return f"{name} *= {value};"
        if walk.sink == "total" or walk.result == TEXT:
            return f"{name} += {value};"
        return f"{name}.push_back({value});"

    def whole(self, emitter: Any, node: Any, x: str) -> str:
        """A function of a whole number or text; what changes in place works on a copy."""
        lines = emitter.function_lines(node.function, x)
        if len(lines) == 1:
            return lines[0]
        out = emitter.fresh(node.operation.variable)
        emitter.lines.append(f"string {out} = {x};")
        *before, value = emitter.function_lines(node.function, out)
        emitter.lines += before
        return value

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it."""
        name = snake(problem.name)
        parameters = ", ".join(f"{self.types[k]} {n}" for n, k in problem.inputs)
        head = f"{self.types[problem.root.kind]} {name}({parameters}){{\n"
        body = self.body(problem, 1)
        text = head + body
        wanted = {
            "vector": ("vector<",),
            "string": ("string",),
            "map": ("map<",),
            "sstream": ("stringstream",),
            "algorithm": ("sort(", "find(", "_element(", "transform(", "replace("),
        }
        includes = "".join(
            f"#include<{header}>\n"
            for header, signs in wanted.items()
            if any(sign in text for sign in signs)
        )
        spaces = "using namespace std;\n"
        more = "".join(f"#include<{x}>\n" for x in ("algorithm", "math.h", "stdlib.h")
                       if x not in includes)  # fmt: skip
        described = "\n".join([*problem.lines, *self.examples(problem, name)])
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": f"/*\n{described}\n*/\n{includes}{spaces}{head}",
            "canonical_solution": body + "}\n",
            "test": self._test(problem, name, problem.tests),
            "declaration": f"{includes}{spaces}{more}{head}",
            "example_test": self._test(problem, name, problem.examples),
        }

    def _test(self, problem: Problem, name: str, cases: Any) -> str:
        kind = problem.root.kind
        same = kind in (NUMBERS, WORDS, COUNTS)
        lines = ["#undef NDEBUG", "#include<assert.h>"]
        if same:
            lines += [f"bool issame({self.types[kind]} a, {self.types[kind]} b){{",
                      "    return a == b;", "}"]  # fmt: skip
        lines.append("int main(){")
        for inputs, output in cases:
            call, expected = self.call(problem, name, inputs), self.literal(kind, output)
            test = f"issame({call}, {expected})" if same else f"{call} == {expected}"
            lines.append(f"    assert ({test});")
        return "\n".join([*lines, "}\n"])

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression."""
        if kind in (NUMBERS, WORDS):
            inner = INT if kind == NUMBERS else TEXT
            return "{" + ", ".join(self.literal(inner, x) for x in value) + "}"
        if kind == COUNTS:
            return "{" + ", ".join(f'{{"{w}", {v}}}' for w, v in value.items()) + "}"
        return super().literal(kind, value)

    def shown(self, kind: str, value: Any, argument: bool = False) -> str:
        """A value as in the examples."""
        return self.literal(kind, value)
