"""Calls as C++ tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.render import base
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer, Type
from geex_jax.benchmark.languages.types import Problem

_NEAR = f"""
inline bool geex_near(double a, double b, double e) {{
    return a == b || (a > b ? a - b : b - a) <= e * (b > 1 ? b : b < -1 ? -b : 1);
}}
template <class T> bool geex_same(const T &a, const T &b) {{ return a == b; }}
inline bool geex_same(double a, double b) {{ return geex_near(a, b, {base.DOUBLE}); }}
inline bool geex_same(float a, float b) {{ return geex_near(a, b, {base.SINGLE}); }}
template <class T> bool geex_same(const std::vector<T> &a, const std::vector<T> &b) {{
    if (a.size() != b.size()) return false;
    for (size_t i = 0; i < a.size(); i++)
        if (!geex_same(a[i], b[i])) return false;
    return true;
}}
"""


class Cpp(Renderer):
    """`assert (f(...) == ...)`, with types as the declaration has them."""

    language = "cpp"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        found = re.search(
            rf"^[ \t]*([\w:<>, \t]+?)\s+{self.name}\s*\(",
            base.problem_text(problem), re.MULTILINE,
        )  # fmt: skip
        if found is None:
            raise NotRenderable("the declaration is not understood")
        text = base.inside(base.problem_text(problem), found.end() - 1)
        self.result = _type(found[1])
        self.types = [_type(re.sub(r"\s*\b\w+$", "", p)) for p in base.split(text)]

    def case(self, case: Case) -> str:
        """An assert."""
        values = ", ".join(_literal(v, t) for v, t in base.matched(case.arguments, self.types))
        wanted = _literal(case.expected, self.result, exact=False)
        return f"    assert (geex_same({self.name}({values}), {wanted}));\n"

    def test(self, statements: Sequence[str]) -> str:
        """A main function."""
        return (
            f"#undef NDEBUG\n#include<assert.h>\n{_NEAR}int main(){{\n{''.join(statements)}\n}}\n"
        )


def _type(text: str) -> Type:
    return base.generic(re.sub(r"\b(?:const|std::)\s*|&\s*$", "", text))


def _literal(value: Any, kind: Type, exact: bool = True) -> str:
    name = kind.name.removeprefix("std::")
    if name == "int":
        return base.integer(value, exact=exact)
    if name in ("long long", "long"):
        return f"({name}){base.integer(value, 64, exact=exact)}LL"
    if name in ("float", "double"):
        return f"({name}){base.real(value)}"
    if name == "bool":
        return base.boolean(value)
    if name == "string":
        return f"string({base.quoted(value)})"
    if name == "char":
        return base.letter(value)
    if name == "vector" and len(kind.of) == 1:
        inner = [_literal(v, kind.of[0], exact) for v in base.items(value)]
        return f"{kind}{{{', '.join(inner)}}}"
    if name == "map" and len(kind.of) == 2:
        inner = [
            f"{{{_literal(k, kind.of[0], exact)}, {_literal(v, kind.of[1], exact)}}}"
            for k, v in base.pairs(value)
        ]
        return f"{kind}{{{', '.join(inner)}}}"
    raise NotRenderable(f"type {kind}")
