"""Walks as loops, for C++, Java and Go."""

from __future__ import annotations

from geex_jax.benchmark.embedded.emit.base import Backend, indent
from geex_jax.benchmark.embedded.emit.emitter import Emitter
from geex_jax.benchmark.embedded.emit.walk import Walk
from geex_jax.benchmark.embedded.functions import Lambda
from geex_jax.benchmark.embedded.operations import COUNTS, TEXT


class Loops(Backend):
    """A language whose walks are loops; it says how a loop and a container look."""

    def head(self, walk: Walk, source: str) -> list[str]:
        """The line that opens the loop, and lines at its beginning."""
        raise NotImplementedError

    def empty(self, name: str, walk: Walk) -> str:
        """The line that makes what the loop fills."""
        raise NotImplementedError

    def put(self, name: str, walk: Walk, value: str) -> str:
        """The line that adds a value."""
        raise NotImplementedError

    def collected(self, name: str, walk: Walk) -> str:
        """The value of what was filled."""
        del walk
        return name

    def when(self, test: str) -> str:
        """The line that opens a conditional."""
        return f"if ({test}) {{"

    def statement(self, text: str) -> str:
        """A statement."""
        return f"{text};"

    def yes(self, value: bool) -> str:
        """The line that returns a truth value."""
        return self.give_back("true" if value else "false")

    def walk(self, emitter: Emitter, walk: Walk, source: str, name: str, final: bool) -> str:
        """A loop."""
        x = walk.variable
        if walk.sink in ("any", "all"):
            return self._search(emitter, walk, source)
        out = emitter.fresh(name)
        tests = [*walk.tests, *([walk.sink_test] if walk.sink_test else [])]
        inner = self._inner(emitter, walk, out)
        if tests:
            inner = [self.when(emitter.all_of(tests, x)), *indent(inner, self.step), "}"]
        first, *rest = self.head(walk, source)
        emitter.lines += [self.empty(out, walk), first, *indent([*rest, *inner], self.step), "}"]
        return self.collected(out, walk) if final or walk.result == TEXT else out

    def _inner(self, emitter: Emitter, walk: Walk, out: str) -> list[str]:
        if walk.sink == "count":
            return [self.statement(f"{out}++")]
        if walk.change is None:
            return [self.put(out, walk, walk.variable)]
        return self.changed(emitter, walk, walk.change, out)

    def changed(self, emitter: Emitter, walk: Walk, change: Lambda, out: str) -> list[str]:
        """Lines that add a function of the element."""
        *before, value = emitter.function_lines(change, walk.variable)
        return [*before, self.put(out, walk, value)]

    def _search(self, emitter: Emitter, walk: Walk, source: str) -> str:
        assert walk.sink_test is not None
        found = walk.sink == "any"
        x = walk.variable
        last = walk.sink_test if found else Lambda("not", parts=(walk.sink_test,))
        tests = [*walk.tests, last]
        first, *rest = self.head(walk, source)
        body = [*rest, self.when(emitter.all_of(tests, x)), self.step + self.yes(found), "}"]
        emitter.lines += [first, *indent(body, self.step), "}", self.yes(not found)]
        return ""


def fills_map(walk: Walk) -> bool:
    """Whether a walk makes a map from a map: keys come along."""
    return walk.source.kind == COUNTS and walk.sink == "collect"
