"""Calls as Go tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.render import base
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer, Type
from geex_jax.benchmark.languages.types import Problem

_NEAR = f"""
func geexNear(got, wanted float64) bool {{
    gap, size := got-wanted, wanted
    if gap < 0 {{
        gap = -gap
    }}
    if size < 0 {{
        size = -size
    }}
    if size < 1 {{
        size = 1
    }}
    return gap <= {base.DOUBLE}*size
}}

func geexAllNear(got, wanted []float64) bool {{
    if len(got) != len(wanted) {{
        return false
    }}
    for i := range got {{
        if !geexNear(got[i], wanted[i]) {{
            return false
        }}
    }}
    return true
}}

func geexAnyNear(got interface{{}}, wanted float64) bool {{
    switch value := got.(type) {{
    case float64:
        return geexNear(value, wanted)
    case int:
        return geexNear(float64(value), wanted)
    }}
    return false
}}
"""
_INT = {"int": 64, "int64": 64, "int32": 32, "rune": 32}


class Go(Renderer):
    """`assert.Equal(..., F(...))`."""

    language = "go"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        text = base.problem_text(problem)
        found = re.search(rf"^func\s+{self.name}\s*\(", text, re.MULTILINE)
        if found is None:
            raise NotRenderable("the declaration is not understood")
        inside = base.inside(text, found.end() - 1)
        rest = text[found.end() + len(inside) + 1 :].partition("\n")[0]
        self.result = _type(rest.strip().removesuffix("{"))
        self.types: list[Type] = []
        kind: Type | None = None
        for part in reversed(base.split(inside)):  # a type holds for the names before it
            _, _, written = part.partition(" ")
            kind = _type(written) if written else kind
            if kind is None:
                raise NotRenderable("the declaration is not understood")
            self.types.insert(0, kind)

    def case(self, case: Case) -> str:
        """An assertion."""
        values = ", ".join(_literal(v, t) for v, t in base.matched(case.arguments, self.types))
        call, kind, value = f"{self.name}({values})", self.result, case.expected
        if kind.name == "float64":
            return f"    assert.Equal(true, geexNear({call}, {base.real(value)}))\n"
        if kind.name == "interface{}" and isinstance(value, float):
            return f"    assert.Equal(true, geexAnyNear({call}, {base.real(value)}))\n"
        listed = kind.name.startswith("[") and kind.of[0].name
        wanted = _literal(value, kind, exact=False)
        if listed == "float64":
            if kind.name != "[]":  # an array has to stand somewhere to be sliced
                wanted, many = _literal(value, Type("[]", kind.of)), f"got := {call}; "
                return f"    {{ {many}assert.Equal(true, geexAllNear(got[:], {wanted})) }}\n"
            return f"    assert.Equal(true, geexAllNear({call}, {wanted}))\n"
        if kind.name == "[]" and not value:  # an empty list may be nil
            return f"    assert.Equal(0, len({call}))\n"
        if base.has_float(value) and _may_be_float(kind):
            raise NotRenderable("floats deep inside a value")
        return f"    assert.Equal({wanted}, {call})\n"

    def test(self, statements: Sequence[str]) -> str:
        """A test function, of the name that the data's has."""
        name = re.search(r"\bfunc (Test\w+)", self.problem["test"])
        body = "".join(statements)
        return (
            f"{_NEAR if 'Near(' in body else ''}\n"
            f"func {name[1] if name else 'TestExtended'}(t *testing.T) {{\n"
            f"    assert := assert.New(t)\n{self._imported()}{body}}}\n"
        )

    def _imported(self) -> str:
        """Uses of what the data's tests import for themselves: without any, Go refuses it."""
        out = ""
        for path in re.findall(r'"([\w./]+)"', self.problem.get("test_setup", "")):
            name = path.rpartition("/")[2]
            used = re.search(rf"\b{name}\.[A-Z]\w*", self.problem["test"])
            if used and name not in ("testing", "assert"):
                out += f"    _ = {used[0]}\n"
        return out


def _may_be_float(kind: Type) -> bool:
    return kind.name in ("float64", "interface{}") or any(map(_may_be_float, kind.of))


def _type(text: str) -> Type:
    text = text.strip()
    if found := re.match(r"\[(\d*)\](.+)", text):
        return Type(f"[{found[1]}]", (_type(found[2]),))
    if text.startswith("map["):
        key = base.inside(text, 3)
        return Type("map", (_type(key), _type(text[len(key) + 5 :])))
    return Type(text)


def _written(kind: Type) -> str:
    if kind.name == "map":
        return f"map[{_written(kind.of[0])}]{_written(kind.of[1])}"
    return kind.name + "".join(map(_written, kind.of))


def _literal(value: Any, kind: Type, exact: bool = True) -> str:
    name = kind.name
    if name == "rune" and isinstance(value, str):
        return base.letter(value)
    if name in _INT:
        return base.integer(value, _INT[name], exact=exact)
    if name == "float64":
        return base.real(value)
    if name == "bool":
        return base.boolean(value)
    if name == "string":
        return base.quoted(value)
    if name == "interface{}":
        return _natural(value)
    if name.startswith("["):
        size = int(name[1:-1]) if name != "[]" else None
        inner = [_literal(v, kind.of[0], exact) for v in base.items(value, size)]
        return f"{_written(kind)}{{{', '.join(inner)}}}"
    if name == "map":
        inner = [
            f"{_literal(k, kind.of[0], exact)}: {_literal(v, kind.of[1], exact)}"
            for k, v in base.pairs(value)
        ]
        return f"{_written(kind)}{{{', '.join(inner)}}}"
    raise NotRenderable(f"type {_written(kind)}")


def _natural(value: Any) -> str:
    if value is None:
        return "nil"
    kinds = {bool: "bool", int: "int", float: "float64", str: "string"}
    if type(value) in kinds:
        return _literal(value, Type(kinds[type(value)]))
    some = Type("interface{}")
    if isinstance(value, dict):
        return _literal(value, Type("map", (some, some)))
    # A list of words is []string where anything may be returned.
    texts = bool(value) and all(isinstance(v, str) for v in base.items(value))
    return _literal(value, Type("[]", (Type("string") if texts else some,)))
