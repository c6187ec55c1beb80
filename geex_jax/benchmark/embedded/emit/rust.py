"""Tasks in Rust."""

from __future__ import annotations

from typing import Any

from geex_jax.benchmark.embedded.emit.base import (
    Backend,
    Problem,
    Row,
    indent,
    snake,
)
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

_SORTED = "let mut $o = $v.clone();\n$o."

_TYPES = {INT: "i32", BOOL: "bool", TEXT: "String", NUMBERS: "Vec<i32>", WORDS: "Vec<String>",
         COUNTS: "HashMap<String, i32>"}  # fmt: skip

_FUNCTIONS = {
    "longer": "$x.len() > $K",
    "shorter": "$x.len() < $K",
    "starts": "$x.starts_with($c)",
    "ends": "$x.ends_with($c)",
    "contains": "$x.contains($c)",
    "vowel": '"aeiouAEIOU".contains($x)',
    "digit": "$x.is_ascii_digit()",
    "upper": "$x.is_ascii_uppercase()",
    "lower": "$x.is_ascii_lowercase()",
    "absolute": "$x.abs()",
    "last_digit": "$x.abs() % 10",
    "uppercase": "$x.to_uppercase()",
    "lowercase": "$x.to_lowercase()",
    "backwards": "$x.chars().rev().collect::<String>()",
    "initial": "$x[..1].to_string()",
    "final": "$x[$x.len() - 1..].to_string()",
    "suffix": 'format!("{}{}", $x, $k)',
    "prefix": 'format!("{}{}", $k, $x)',
    "twice": "$x.repeat(2)",
    "size": "$x.len() as i32",
}

_OPERATIONS = {
    "total": "$v.iter().sum()",
    "product": "$v.iter().product()",
    "length": "$v.len() as i32",
    "largest": "$v.iter().copied().max().unwrap_or(0)",
    "smallest": "$v.iter().copied().min().unwrap_or(0)",
    "sort": _SORTED + "sort();",
    "descending": _SORTED + "sort_by(|a, b| b.cmp(a));",
    "reverse": "$v.iter().rev().cloned().collect()",
    "distinct": (
        "let mut $o = Vec::new();\nfor x in &$v {\n    if !$o.contains(x) {\n"
        "        $o.push(x.clone());\n    }\n}"
    ),
    "take": "$v.iter().take($K).cloned().collect()",
    "skip": "$v.iter().skip($K).cloned().collect()",
    "alternate": "$v.iter().step_by(2).cloned().collect()",
    "running": (
        "let mut $o = Vec::new();\nlet mut $t = 0;\nfor x in &$v {\n    $t += x;\n"
        "    $o.push($t);\n}"
    ),
    "gaps": "$v.windows(2).map(|p| p[1] - p[0]).collect()",
    "upto": "(1..=$v).collect()",
    "digits": "$v.abs().to_string().chars().map(|d| d.to_digit(10).unwrap() as i32).collect()",
    "divisors": "(1..=$v).filter(|d| $v % d == 0).collect()",
    "int.text": "$v.to_string()",
    "text.take": "$v.chars().take($K).collect()",
    "text.skip": "$v.chars().skip($K).collect()",
    "palindrome": "$v.chars().eq($v.chars().rev())",
    "replace": "$v.replace($c, $j)",
    "split": "$v.split_whitespace().map(|w| w.to_string()).collect()",
    "join": "$v.join($k)",
    "longest": (
        "let mut $o = String::new();\nfor w in &$v {\n    if w.len() > $o.len() {\n"
        "        $o = w.clone();\n    }\n}"
    ),
    "lengths": "$v.iter().map(|w| (w.clone(), w.len() as i32)).collect()",
    "by_length": _SORTED + "sort_by_key(|w| w.len());",
    "keys": "let mut $o: Vec<String> = $v.keys().cloned().collect();\n$o.sort();",
    "values": "let mut $o: Vec<i32> = $v.values().cloned().collect();\n$o.sort();",
    "counts.total": "$v.values().sum()",
    "counts.largest": "$v.values().copied().max().unwrap_or(0)",
    "best": (
        "let mut keys: Vec<String> = $v.keys().cloned().collect();\nkeys.sort();\n"
        "let mut $o = String::new();\nfor key in keys {\n"
        "    if $o.is_empty() || $v[&key] > $v[&$o] {\n        $o = key;\n    }\n}"
    ),
    "plus": "$v + $w",
    "minus": "$v - $w",
    "times": "$v * $w",
    "larger": "$v.max($w)",
    "exceeds": "$v > $w",
    "concat": "[$v.clone(), $w.clone()].concat()",
    "common": "$v.iter().filter(|x| $w.contains(x)).cloned().collect()",
    "pairwise": "$v.iter().zip($w.iter()).map(|(a, b)| a + b).collect()",
}  # fmt: skip


class Rust(Backend):
    """Chains of iterators."""

    name, prefix, data = "rust", "Rust", "rust"
    types = _TYPES
    functions = _FUNCTIONS
    operations = _OPERATIONS

    def unsigned(self, name: str) -> str:
        """A name as a size."""
        return f"{name} as usize"

    def choice(self, test: str, then: str, other: str) -> str:
        """A conditional expression."""
        return f"if {test} {{ {then} }} else {{ {other} }}"

    def give_back(self, value: str) -> str:
        """The last expression is the value."""
        return value

    def bind(self, name: str, kind: str, value: str) -> str:
        """The line that names a value."""
        return f"let {name}: {self.types[kind]} = {value};"

    def walk(self, emitter: Emitter, walk: Walk, source: str, name: str, final: bool) -> str:
        """A chain of iterators."""
        kind, x = walk.source.kind, walk.variable
        collects = walk.sink == "collect"
        entries = kind == COUNTS and collects
        tested, taken, chain = {
            WORDS: (f"|{x}|", f"|{x}|", f"{source}.iter()"),
            TEXT: (f"|&{x}|", f"|{x}|", f"{source}.chars()"),
            NUMBERS: (f"|&&{x}|", f"|&{x}|", f"{source}.iter()"),
            COUNTS: (f"|&&{x}|", f"|&{x}|", f"{source}.values()"),
        }[kind]
        if entries:
            tested, taken, chain = "|(_, &value)|", "|(key, &value)|", f"{source}.iter()"
        if walk.tests:
            chain += f".filter({tested} {emitter.all_of(walk.tests, x)})"
        if walk.change:
            change = emitter.function(walk.change, x)
            chain += f".map({taken} {f'(key.clone(), {change})' if entries else change})"
        elif entries:
            chain += f".map({taken} (key.clone(), value))"
        match walk.sink:
            case "total" | "product":
                return f"{chain}.{'sum' if walk.sink == 'total' else 'product'}()"
            case "count" | "any" | "all":
                assert walk.sink_test is not None
                test = emitter.function(walk.sink_test, x)
                if walk.sink == "count":
                    return f"{chain}.filter({tested} {test}).count() as i32"
                return f"{chain}.{walk.sink}({taken} {test})"
            case "tally":
                return self._tally(emitter, walk, chain, name)
        changed = walk.change or entries or kind == TEXT
        return f"{chain}.collect()" if changed else f"{chain}.cloned().collect()"

    def _tally(self, emitter: Emitter, walk: Walk, chain: str, name: str) -> str:
        out, x = emitter.fresh(name), walk.variable
        key = f"{x}.to_string()" if walk.source.kind == TEXT else f"{x}.clone()"
        emitter.lines += [f"let mut {out}: HashMap<String, i32> = HashMap::new();",
                          f"for {x} in {chain} {{",
                          f"    *{out}.entry({key}).or_insert(0) += 1;", "}"]  # fmt: skip
        return out

    def row(self, problem: Problem) -> Row:
        """The task as HumanEval-X has it: the prompt is the description alone."""
        name = snake(problem.name)
        parameters = ", ".join(f"{n}: {self.types[k]}" for n, k in problem.inputs)
        result = self.types[problem.root.kind]
        body = self.body(problem, 1)
        needs_map = COUNTS in problem.kinds or "HashMap" in body
        use = "use std::collections::HashMap;\n\n" if needs_map else ""
        inner = [*problem.lines, *self.examples(problem, name)]
        return {
            "task_id": f"{self.prefix}/{problem.number}",
            "prompt": "\n/*\n" + "\n".join(indent(inner, "    ")) + "\n*/\n",
            "declaration": f"\n{use}fn {name}({parameters}) -> {result} {{\n",
            "canonical_solution": f"\n{body}}}\n",
            "test": self._tests(problem, name, problem.tests),
            "example_test": self._tests(problem, name, problem.examples),
        }

    def _tests(self, problem: Problem, name: str, cases: Any) -> str:
        lines = [
            f"        assert_eq!({self.call(problem, name, inputs)}, "
            f"{self._expected(problem.root.kind, output)});"
            for inputs, output in cases
        ]
        return (
            "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n"
            f"    fn test_{name}() {{\n" + "\n".join(lines) + "\n    }\n\n}\n"
        )

    def _expected(self, kind: str, value: Any) -> str:
        if kind == WORDS and value:
            return "vec![" + ", ".join(map(self.text, value)) + "]"
        return self.text(value) if kind == TEXT else self.literal(kind, value)

    def literal(self, kind: str, value: Any) -> str:
        """A value as an expression."""
        if kind == TEXT:
            return f"{self.text(value)}.to_string()"
        if kind == NUMBERS:
            return f"vec!{value}" if value else "Vec::<i32>::new()"
        if kind == WORDS:
            inner = ", ".join(self.literal(TEXT, w) for w in value)
            return f"vec![{inner}]" if value else "Vec::<String>::new()"
        if kind == COUNTS:
            inner = ", ".join(f"({self.literal(TEXT, w)}, {v})" for w, v in value.items())
            return f"HashMap::from([{inner}])" if value else "HashMap::new()"
        return super().literal(kind, value)
