"""Calls as Java tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.render import base
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer, Type
from geex_jax.benchmark.languages.types import Problem

_U = "java.util."
_SAME = f"""
    static {_U}Map<Object, Object> pairs(Object... pairs) {{
        {_U}Map<Object, Object> map = new {_U}HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) map.put(pairs[i], pairs[i + 1]);
        return map;
    }}

    static boolean same(Object a, Object b) {{
        if (a instanceof {_U}Optional) a = (({_U}Optional<?>) a).orElse(null);
        if (a instanceof Character && b instanceof String) a = a.toString();
        if (a instanceof Number && b instanceof Number) {{
            double x = ((Number) a).doubleValue(), y = ((Number) b).doubleValue();
            if (a instanceof Double || a instanceof Float || b instanceof Double)
                return x == y || Math.abs(x - y) <= {base.DOUBLE} * Math.max(1, Math.abs(y));
            return ((Number) a).longValue() == ((Number) b).longValue();
        }}
        if (a instanceof {_U}List && b instanceof {_U}List) {{
            {_U}Iterator<?> i = (({_U}List<?>) a).iterator(), j = (({_U}List<?>) b).iterator();
            while (i.hasNext() && j.hasNext()) if (!same(i.next(), j.next())) return false;
            return !i.hasNext() && !j.hasNext();
        }}
        if (a instanceof {_U}Map && b instanceof {_U}Map) {{
            {_U}Map<?, ?> m = ({_U}Map<?, ?>) a, n = ({_U}Map<?, ?>) b;
            if (m.size() != n.size()) return false;
            for (Object key : n.keySet())
                if (!m.containsKey(key) || !same(m.get(key), n.get(key))) return false;
            return true;
        }}
        return {_U}Objects.equals(a, b);
    }}

    static void check(boolean right) {{
        if (!right) throw new AssertionError();
    }}
"""
_BOXES = {"int": "Integer", "long": "Long", "double": "Double", "boolean": "Boolean"}


class Java(Renderer):
    """Calls of `new Solution()`, arguments typed as the declaration has them."""

    language = "java"

    def __init__(self, problem: Problem):
        super().__init__(problem)
        text = base.problem_text(problem)
        found = re.search(rf"^\s*public\s+[\w<>, ]+?\s+{self.name}\s*\(", text, re.MULTILINE)
        if found is None:
            raise NotRenderable("the declaration is not understood")
        inside = base.inside(text, found.end() - 1)
        self.types = [base.generic(p.rpartition(" ")[0]) for p in base.split(inside)]

    def case(self, case: Case) -> str:
        """A check that throws."""
        values = ", ".join(_literal(v, t) for v, t in base.matched(case.arguments, self.types))
        return f"        check(same(s.{self.name}({values}), {_expected(case.expected)}));\n"

    def test(self, statements: Sequence[str]) -> str:
        """The class Main."""
        return (
            f"public class Main {{{_SAME}\n"
            "    public static void main(String[] args) throws Exception {\n"
            f"        Solution s = new Solution();\n{''.join(statements)}    }}\n}}\n"
        )


def _literal(value: Any, kind: Type) -> str:
    name = _BOXES.get(kind.name, kind.name)
    if name == "Integer":
        return base.integer(value)
    if name == "Long":
        return f"{base.integer(value, 64)}L"
    if name == "Double":
        return base.real(value)
    if name == "Boolean":
        return base.boolean(value)
    if name == "String":
        return base.quoted(value)
    if name == "Object":
        return _natural(value)
    if name == "List" and len(kind.of) == 1:
        inner = kind.of[0]
        listed = ", ".join(_literal(v, inner) for v in base.items(value))
        return f"new {_U}ArrayList<{inner}>({_U}Arrays.<{inner}>asList({listed}))"
    if name == "Map" and [str(x) for x in kind.of] == ["Object", "Object"]:
        return _natural(dict(base.pairs(value)))
    raise NotRenderable(f"type {kind}")


def _natural(value: Any) -> str:
    """An argument that may be anything."""
    if isinstance(value, list | tuple):
        return f"new {_U}ArrayList<Object>({_U}Arrays.<Object>asList({_inner(value)}))"
    if value is None:
        raise NotRenderable("null as an argument")
    return _expected(value)


def _inner(value: Sequence[Any]) -> str:
    # Alone, null would be the array itself.
    return ", ".join("(Object) null" if v is None else _natural(v) for v in value)


def _expected(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return base.boolean(value)
    if isinstance(value, int):
        return f"{base.integer(value, 64)}L" if abs(value) >= 2**31 else str(value)
    if isinstance(value, float):
        return base.real(value)
    if isinstance(value, str):
        return base.quoted(value)
    if isinstance(value, dict):
        return f"pairs({', '.join(_expected(x) for pair in value.items() for x in pair)})"
    inner = ", ".join("(Object) null" if v is None else _expected(v) for v in base.items(value))
    return f"{_U}Arrays.<Object>asList({inner})"
