"""Calls as JavaScript tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.extended.render import base
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer

# The tests of the data set compare JSON; numbers have to be near where floats were returned.
_NEAR = f"""
const geexNear = (got, wanted) => {{
  if (typeof wanted === 'number') {{
    return typeof got === 'number' &&
      (got === wanted || Math.abs(got - wanted) <= {base.DOUBLE} * Math.max(1, Math.abs(wanted)))
  }}
  if (wanted === null || typeof wanted !== 'object') {{ return (got ?? null) === wanted }}
  if (got === null || typeof got !== 'object') {{ return false }}
  const keys = Object.keys(wanted)
  return Object.keys(got).length === keys.length && keys.every(k => geexNear(got[k], wanted[k]))
}}
"""


class JavaScript(Renderer):
    """`console.assert(...)`."""

    language = "javascript"

    def case(self, case: Case) -> str:
        """A console.assert."""
        call = f"{self.name}({', '.join(map(_literal, case.arguments))})"
        wanted = case.expected
        if base.has_float(wanted) or isinstance(wanted, dict):
            return f"  console.assert(geexNear({call}, {_literal(wanted)}))\n"
        if isinstance(wanted, list | tuple):
            wanted = f"JSON.stringify({_literal(wanted)})"
            return f"  console.assert(JSON.stringify({call}) === {wanted})\n"
        if wanted is None:
            return f"  console.assert(({call} ?? null) === null)\n"
        return f"  console.assert({call} === {_literal(wanted)})\n"

    def test(self, statements: Sequence[str]) -> str:
        """A function, called."""
        body = "".join(statements)
        helper = _NEAR if "geexNear(" in body else ""
        return f"{helper}\nconst testExtended = () => {{\n{body}}}\n\ntestExtended()\n"


def _literal(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int):
        return base.integer(value, 54)  # what a number there holds exactly
    if isinstance(value, float):
        return base.real(value)
    if isinstance(value, str):
        return base.quoted(value, "'")
    if isinstance(value, dict):
        inner = [f"[{_key(k)}]: {_literal(v)}" for k, v in value.items()]
        return f"{{ {', '.join(inner)} }}" if inner else "{}"
    return f"[{', '.join(map(_literal, base.items(value)))}]"


def _key(key: Any) -> str:
    if isinstance(key, bool) or not isinstance(key, int | str):
        raise NotRenderable("a key that is neither text nor number")
    return _literal(key)
