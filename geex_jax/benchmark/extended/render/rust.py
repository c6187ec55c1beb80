"""Calls as Rust tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.render import base
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer, Type
from geex_jax.benchmark.languages.types import Problem

_BITS = {"i32": (32, True), "i64": (64, True), "u32": (32, False), "u64": (64, False),
         "usize": (64, False), "isize": (64, True), "u8": (8, False)}  # fmt: skip
_FLOATS = {"f32": base.SINGLE, "f64": base.DOUBLE}

_NEAR = """
    fn geex_near(a: f64, b: f64, e: f64) -> bool {
        a == b || (a - b).abs() <= e * b.abs().max(1.0)
    }
"""


class Rust(Renderer):
    """`assert_eq!(f(...), ...)`."""

    language = "rust"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        found = re.search(rf"\bfn\s+{self.name}\s*(?:<[^>]*>)?\s*\(", self.text)
        if found is None:
            raise NotRenderable("the declaration is not understood")
        inside = base.inside(self.text, found.end() - 1)
        rest = self.text[found.end() + len(inside) + 1 :]
        result = re.match(r"\s*->\s*([^{]+)\{", rest)
        if result is None:
            raise NotRenderable("the declaration is not understood")
        self.result = _type(result[1])
        self.types = [_type(p.partition(":")[2]) for p in base.split(inside)]

    def case(self, case: Case) -> str:
        """An assertion."""
        values = ", ".join(_literal(v, t) for v, t in base.matched(case.arguments, self.types))
        call, wanted = f"{self.name}({values})", _literal(case.expected, self.result, exact=False)
        name, inner = self.result.name, self.result.of
        if name in _FLOATS:
            near = _near("got", "wanted", name)
        elif name == "tuple" and all(t.name in _FLOATS for t in inner):
            near = " && ".join(
                _near(f"got.{i}", f"wanted.{i}", t.name) for i, t in enumerate(inner)
            )
        elif name == "Vec" and inner[0].name in _FLOATS:
            each = _near("*a", "*b", inner[0].name)
            near = f"got.len() == wanted.len() && got.iter().zip(&wanted).all(|(a, b)| {each})"
        elif _holds_floats(self.result):
            raise NotRenderable("floats deep inside a value")
        else:
            return f"        assert_eq!({call}, {wanted});\n"
        kind = _written(self.result)
        return (
            f"        {{ let got: {kind} = {call}; let wanted: {kind} = {wanted}; "
            f"assert!({near}); }}\n"
        )

    def test(self, statements: Sequence[str]) -> str:
        """A module of tests with one test, of the name that the data's has."""
        name = re.search(r"#\[test\]\s*fn (\w+)", self.problem["test"])
        body = "".join(statements)
        return (
            f"\n#[cfg(test)]\nmod tests {{\n    use super::*;\n"
            f"{_NEAR if 'geex_near(' in body else ''}\n    #[test]\n"
            f"    fn {name[1] if name else 'test_extended'}() {{\n{body}    }}\n}}\n"
        )


def _near(got: str, wanted: str, kind: str) -> str:
    return f"geex_near({got} as f64, {wanted} as f64, {_FLOATS[kind]})"


def _holds_floats(kind: Type) -> bool:
    return kind.name in _FLOATS or any(map(_holds_floats, kind.of))


def _type(text: str) -> Type:
    text = re.sub(r"^&\s*(?:'\w+\s+)?(?:mut\s+)?", "&", text.strip())
    if text in ("&str", "&'static str"):
        return Type("&str")
    if text.startswith("&"):
        return Type("&", (_type(text[1:]),))
    if text.startswith("("):
        return Type("tuple", tuple(map(_type, base.split(text[1:-1]))))
    name, opened, rest = text.partition("<")
    if not opened:
        return Type(name)
    return Type(name.strip(), tuple(map(_type, base.split(rest.rstrip()[:-1]))))


def _written(kind: Type) -> str:
    inner = ", ".join(map(_written, kind.of))
    if kind.name == "&":
        return f"&{inner}"
    if kind.name == "tuple":
        return f"({inner})"
    return f"{kind.name}<{inner}>" if inner else kind.name


def _literal(value: Any, kind: Type, exact: bool = True) -> str:
    name = kind.name
    if name in _BITS:
        return base.integer(value, *_BITS[name], exact=exact)
    if name in _FLOATS:
        return base.real(value)
    if name == "bool":
        return base.boolean(value)
    if name == "&str":
        return base.quoted(value)
    if name == "String":
        return f"String::from({base.quoted(value)})"
    if name == "char":
        return base.letter(value)
    if name == "&":
        return f"&{_literal(value, kind.of[0], exact)}"
    if name == "tuple":
        parts = zip(base.items(value, len(kind.of)), kind.of, strict=True)
        return f"({', '.join(_literal(v, t, exact) for v, t in parts)})"
    if name == "Option" and len(kind.of) == 1:
        inner = kind.of[0]
        return f"None::<{_written(inner)}>" if value is None else (
            f"Some({_literal(value, inner, exact)})"
        )  # fmt: skip
    if name == "Vec" and len(kind.of) == 1:
        inner = kind.of[0]
        listed = [_literal(v, inner, exact) for v in base.items(value)]
        return f"vec![{', '.join(listed)}]" if listed else f"Vec::<{_written(inner)}>::new()"
    if name == "HashMap" and len(kind.of) == 2:
        listed = [
            f"({_literal(k, kind.of[0], exact)}, {_literal(v, kind.of[1], exact)})"
            for k, v in base.pairs(value)
        ]
        types = ", ".join(map(_written, kind.of))
        return f"HashMap::<{types}>::from([{', '.join(listed)}])"
    raise NotRenderable(f"type {_written(kind)}")
