"""Tasks in Java."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import Problem, Row, camel
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

_LIST = "List<$B> $o = new ArrayList<>();\n"
_COPY = "List<$B> $o = new ArrayList<>($v);\n"
_INITIAL = {"total": "0", "product": "1", "count": "0"}

_TYPES = {INT: "int", BOOL: "boolean", TEXT: "String", NUMBERS: "List<Integer>",
         WORDS: "List<String>", COUNTS: "Map<String, Integer>"}  # fmt: skip

_FUNCTIONS = {
    "longer": "$x.length() > $k",
    "shorter": "$x.length() < $k",
    "starts": "$x.startsWith($k)",
    "ends": "$x.endsWith($k)",
    "contains": "$x.contains($k)",
    "vowel": '"aeiouAEIOU".indexOf($x) >= 0',
    "digit": "Character.isDigit($x)",
    "upper": "Character.isUpperCase($x)",
    "lower": "Character.isLowerCase($x)",
    "absolute": "Math.abs($x)",
    "last_digit": "Math.abs($x) % 10",
    "uppercase": "$x.toUpperCase()",
    "lowercase": "$x.toLowerCase()",
    "backwards": "new StringBuilder($x).reverse().toString()",
    "initial": "$x.substring(0, 1)",
    "final": "$x.substring($x.length() - 1)",
    "size": "$x.length()",
}

_OPERATIONS = {
    "length": "$v.size()",
    "largest": "$v.isEmpty() ? 0 : Collections.max($v)",
    "smallest": "$v.isEmpty() ? 0 : Collections.min($v)",
    "sort": _COPY + "Collections.sort($o);",
    "descending": _COPY + "Collections.sort($o, Collections.reverseOrder());",
    "reverse": _COPY + "Collections.reverse($o);",
    "distinct": "new ArrayList<>(new LinkedHashSet<>($v))",
    "take": "$v.subList(0, Math.min($k, $v.size()))",
    "skip": "$v.subList(Math.min($k, $v.size()), $v.size())",
    "alternate": _LIST + "for (int i = 0; i < $v.size(); i += 2) {\n    $o.add($v.get(i));\n}",
    "running": _LIST + "int $t = 0;\nfor (int x : $v) {\n    $t += x;\n    $o.add($t);\n}",
    "gaps": _LIST + (
        "for (int i = 1; i < $v.size(); i++) {\n    $o.add($v.get(i) - $v.get(i - 1));\n}"
    ),
    "upto": _LIST + "for (int i = 1; i <= $v; i++) {\n    $o.add(i);\n}",
    "digits": _LIST + (
        "for (char d : String.valueOf(Math.abs($v)).toCharArray()) {\n    $o.add(d - '0');\n}"
    ),
    "divisors": _LIST + (
        "for (int d = 1; d <= $v; d++) {\n    if ($v % d == 0) {\n        $o.add(d);\n    }\n}"
    ),
    "int.text": "String.valueOf($v)",
    "text.take": "$v.substring(0, Math.min($k, $v.length()))",
    "text.skip": "$v.substring(Math.min($k, $v.length()))",
    "palindrome": "new StringBuilder($v).reverse().toString().equals($v)",
    "replace": "$v.replace($c, $d)",
    "split": (
        "List<String> $o = new ArrayList<>();\nfor (String w : $v.split(\" \")) {\n"
        "    if (!w.isEmpty()) {\n        $o.add(w);\n    }\n}"
    ),
    "join": "String.join($k, $v)",
    "longest": (
        "String $o = \"\";\nfor (String w : $v) {\n    if (w.length() > $o.length()) {\n"
        "        $o = w;\n    }\n}"
    ),
    "lengths": (
        "Map<String, Integer> $o = new HashMap<>();\nfor (String w : $v) {\n"
        "    $o.put(w, w.length());\n}"
    ),
    "by_length": _COPY + "$o.sort(Comparator.comparing(String::length));",
    "keys": "List<String> $o = new ArrayList<>($v.keySet());\nCollections.sort($o);",
    "values": "List<Integer> $o = new ArrayList<>($v.values());\nCollections.sort($o);",
    "counts.largest": "$v.isEmpty() ? 0 : Collections.max($v.values())",
    "best": (
        "String $o = \"\";\nfor (String key : new TreeSet<>($v.keySet())) {\n"
        "    if ($o.isEmpty() || $v.get(key) > $v.get($o)) {\n        $o = key;\n    }\n}"
    ),
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "Math.max($v, $w)",
    "exceeds": "$v > $w",
    "concat": _COPY + "$o.addAll($w);",
    "text.concat": "$v + $w",
    "common": _LIST + (
        "for ($E x : $v) {\n    if ($w.contains(x)) {\n        $o.add(x);\n    }\n}"
    ),
    "pairwise": _LIST + (
        "for (int i = 0; i < Math.min($v.size(), $w.size()); i++) {\n"
        "    $o.add($v.get(i) + $w.get(i));\n}"
    ),
}  # fmt: skip


class Java(Loops):
    """Loops over lists, and the methods of `Collections`."""

    name, prefix, data = "java", "Java", "java"
    types = _TYPES
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def boxed(self, kind: str) -> str:
        """Integer or String."""
        return "Integer" if kind == INT else "String"

    def head(self, walk: Walk, source: str) -> list[str]:
        """A loop over elements, or over the keys of a map."""
        kind, x = walk.source.kind, walk.variable
        if fills_map(walk):
            return [f"for (String key : {source}.keySet()) {{",
                    f"int value = {source}.get(key);"]  # fmt: skip
        if kind == COUNTS:
            return [f"for (int value : {source}.values()) {{"]
        if kind == TEXT:
            return [f"for (char c : {source}.toCharArray()) {{"]
        return [f"for ({'int' if kind == NUMBERS else 'String'} {x} : {source}) {{"]

    def empty(self, name: str, walk: Walk) -> str:
        """A number, or a container."""
        if walk.sink in _INITIAL:
            return f"int {name} = {_INITIAL[walk.sink]};"
        if walk.result == TEXT:
            return f"StringBuilder {name} = new StringBuilder();"
        made = "HashMap" if walk.result == COUNTS else "ArrayList"
        return f"{self.types[walk.result]} {name} = new {made}<>();"

    def put(self, name: str, walk: Walk, value: str) -> str:
        """Adds, multiplies, or puts into a container."""
        if walk.sink == "tally":
            key = f"String.valueOf({value})" if walk.source.kind == TEXT else value
            return f"{name}.put({key}, {name}.getOrDefault({key}, 0) + 1);"
        if fills_map(walk):
            return f"{name}.put(key, {value});"
        if walk.sink == "product":
            return f"{name} *= {value};"
        if walk.sink == "total":
            return f"{name} += {value};"
        return f"{name}.{'append' if walk.result == TEXT else 'add'}({value});"

    def collected(self, name: str, walk: Walk) -> str:
        """A StringBuilder becomes a String."""
        return f"{name}.toString()" if walk.result == TEXT and walk.sink == "collect" else name

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it."""
        name = camel(problem.name)
        parameters = ", ".join(f"{self.types[k]} {n}" for n, k in problem.inputs)
        head = "import java.util.*;\nimport java.lang.*;\n\nclass Solution {\n"
        line = f"    public {self.types[problem.root.kind]} {name}({parameters}) {{\n"
        inner = [*problem.lines, *self.examples(problem, name)]
        text = "\n".join(f"    {one}" for one in inner)
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": f"{head}    /**\n{text}\n     */\n{line}",
            "canonical_solution": self.body(problem, 2) + "    }\n}",
            "test": self._test(problem, name, problem.tests),
            "text": text,
            "declaration": head + line,
            "example_test": self._test(problem, name, problem.examples) + "\n",
        }

    def _test(self, problem: Problem, name: str, cases: Any) -> str:
        kind = problem.root.kind
        tests = []
        for inputs, output in cases:
            call, expected = f"s.{self.call(problem, name, inputs)}", self._expected(kind, output)
            if kind in (INT, BOOL):
                tests.append(f"{call} == {expected}")
            elif kind == TEXT:
                tests.append(f"Objects.equals({call}, {expected})")
            else:
                tests.append(f"{call}.equals({expected})")
        lines = ",\n".join(f"                {test}" for test in tests)
        return (
            "public class Main {\n    public static void main(String[] args) {\n"
            "        Solution s = new Solution();\n"
            f"        List<Boolean> correct = Arrays.asList(\n{lines}\n        );\n"
            "        if (correct.contains(false)) {\n"
            "            throw new AssertionError();\n        }\n    }\n}"
        )

    def _expected(self, kind: str, value: Any) -> str:
        if kind == COUNTS:
            # Map.of takes ten pairs at most.
            inner = ", ".join(f'Map.entry("{w}", {v})' for w, v in value.items())
            return f"Map.ofEntries({inner})"
        return self.shown(kind, value, argument=True)

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression: containers that can be changed."""
        if kind == COUNTS:
            inner = ", ".join(f'"{w}", {v}' for w, v in value.items())
            return f"new HashMap<>(Map.of({inner}))"
        if kind in (NUMBERS, WORDS):
            return f"new ArrayList<>({self.shown(kind, value, argument=True)})"
        return super().literal(kind, value)

    def shown(self, kind: str, value: Any, argument: bool = False) -> str:
        """A value as in the examples: arguments as code, results as Java prints them."""
        if argument and kind in (NUMBERS, WORDS):
            inner = INT if kind == NUMBERS else TEXT
            items = ", ".join(self.shown(inner, x) for x in value)
            return f"Arrays.asList({items})" if value else "List.of()"
        return super().shown(kind, value)
