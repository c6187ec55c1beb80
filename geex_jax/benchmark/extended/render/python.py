"""Calls as Python tests."""

from __future__ import annotations

from collections.abc import Sequence

from geex_jax.benchmark.extended import reading
from geex_jax.benchmark.extended.render.base import (
    DOUBLE,
    Case,
    NotRenderable,
    Renderer,
    has_float,
)
from geex_jax.benchmark.languages.types import Problem

SLOW = 0.25  # CPU seconds of one call; other languages and samples take their time too

# Lists and tuples are alike, and numbers are near where one of them is a float.
_SAME = f"""
def geex_same(got, wanted):
    if type(wanted) in (list, tuple):
        return type(got) in (list, tuple) and len(got) == len(wanted) and all(
            geex_same(a, b) for a, b in zip(got, wanted))
    if type(wanted) is dict:
        return type(got) is dict and got.keys() == wanted.keys() and all(
            geex_same(got[k], wanted[k]) for k in wanted)
    if type(wanted) is float:
        return got == wanted or abs(got - wanted) <= {DOUBLE} * max(1.0, abs(wanted))
    return got == wanted

"""


class Python(Renderer):
    """`assert candidate(...) == expected`."""

    language = "python"

    def __init__(self, problem: Problem):
        self.problem = problem
        try:
            self.name = reading.read(problem).function
        except reading.NotReadable as error:
            raise NotRenderable(str(error)) from None

    def case(self, case: Case) -> str:
        """An assert."""
        call = f"candidate({', '.join(map(repr, case.arguments))})"
        if has_float(case.expected) or isinstance(case.expected, list | tuple | dict):
            return f"    assert geex_same({call}, {case.expected!r})\n"
        return f"    assert {call} == {case.expected!r}\n"

    def test(self, statements: Sequence[str]) -> str:
        """A function `check`, called with the candidate."""
        body = "".join(statements)
        helper = _SAME if "geex_same(" in body else ""
        return f"{helper}\ndef check(candidate):\n{body}\ncheck({self.name})\n"


def probe(name: str, calls: Sequence[reading.Arguments], marks: tuple[str, str]) -> str:
    """Tests that end with an error whose text tells what each call returned.

    A verdict carries the end of standard error, and nothing else that a program says. For a
    call that raised, or took more than SLOW seconds, it is None.
    """
    lines = [f"    lambda: {name}({', '.join(map(repr, call))}),\n" for call in calls]
    return f"""
import signal
def _late(number, frame):
    raise TimeoutError
signal.signal(signal.SIGPROF, _late)
_found = []
for _call in [
{"".join(lines)}]:
    try:
        signal.setitimer(signal.ITIMER_PROF, {SLOW})
        _found.append(repr(_call()))
    except Exception:
        _found.append(None)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
raise RuntimeError({marks[0]!r} + repr(_found) + {marks[1]!r})
"""
