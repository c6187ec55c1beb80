"""Runs of primitives that walk over elements: one loop, or one comprehension."""

from __future__ import annotations

import dataclasses

from geex_jax.benchmark.embedded.functions import Lambda
from geex_jax.benchmark.embedded.operations import (
    APPLY,
    COUNTS,
    KEEP,
    NUMBERS,
    SINKS,
    TEXT,
    WORDS,
)
from geex_jax.benchmark.embedded.trees import Node

VARIABLES = {NUMBERS: "x", WORDS: "w", TEXT: "c", COUNTS: "value"}  # of an element
APPLIES = (APPLY, "sizes")


@dataclasses.dataclass(frozen=True)
class Walk:
    """Elements of a value, tested, changed, summed up.

    Attributes:
      source: what is walked over.
      tests: predicates that an element must meet.
      change: function of an element, or None.
      sink: "collect", or one of SINKS.
      sink_test: the predicate of "count", "any" and "all".
      result: the kind of what comes out.
    """

    source: Node
    tests: tuple[Lambda, ...]
    change: Lambda | None
    sink: str
    sink_test: Lambda | None
    result: str

    @property
    def variable(self) -> str:
        """The name of an element."""
        return VARIABLES[self.source.kind]


def walk_of(node: Node) -> Walk | None:
    """The walk that ends in this node, as long as one loop can be; None for other primitives."""
    name = node.operation.name
    if len(node.args) != 1 or name not in (KEEP, *APPLIES, *SINKS):
        return None
    sink, sink_test, change, child = "collect", None, None, node
    if name in SINKS:
        sink, sink_test, child = name, node.function, node.args[0]
    takes_change = sink in ("collect", "total", "product", "tally") and not child.is_input
    # Characters that are counted in a map become words: only words are changed on the way.
    if takes_change and child.operation.name in APPLIES and _same_walk(child, node):
        change, child = child.function, child.args[0]
    tests: list[Lambda] = []
    while not child.is_input and child.operation.name == KEEP:
        assert child.function is not None
        tests.insert(0, child.function)
        child = child.args[0]
    return Walk(child, tuple(tests), change, sink, sink_test, node.kind)


def _same_walk(child: Node, node: Node) -> bool:
    return child is node or node.operation.name in ("total", "product", "tally")
