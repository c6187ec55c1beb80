"""Draws compositions of a level."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from geex_jax.benchmark.embedded.bounds import TooLarge, bound
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.functions import FUNCTIONS, Arg, Constant, Lambda
from geex_jax.benchmark.embedded.inputs import Domain
from geex_jax.benchmark.embedded.operations import (
    BOOL,
    COUNTS,
    INT,
    NUMBERS,
    OPERATIONS,
    TEXT,
    WORDS,
    Operation,
)
from geex_jax.benchmark.embedded.trees import Columns, Node, leaf, make, probe_rows

LEVELS = {
    1: "one primitive",
    2: "two primitives",
    3: "three, with combined conditions, conditionals and constants that the caller gives",
    4: "two branches that meet, of three to five primitives",
    5: "five to seven primitives, with or without branches",
}
LEAST = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5}  # primitives
TRIES = 6  # steps to draw until one leads on
KIND_WEIGHTS = ((NUMBERS, 4.0), (WORDS, 2.5), (TEXT, 2.5), (INT, 1.2), (COUNTS, 1.5))
LETTERS = "aeionrst"
SEPARATORS = ("-", ",", " ")


@dataclasses.dataclass(frozen=True)
class Plan:
    """A composition and the domains of its inputs.

    Attributes:
      root: the composition.
      domains: one for each input.
    """

    root: Node
    domains: tuple[Domain, ...]


class _Drawing:
    """One composition being drawn: its inputs so far."""

    def __init__(self, draw: Draw, level: int):
        self.draw, self.level = draw, level
        self.domains: list[Domain] = []
        self.columns: Columns | None = None

    def input(self, kind: str) -> Node:
        self.domains.append(Domain(kind))
        return leaf(len(self.domains) - 1, kind)

    def plan(self) -> Plan | None:
        draw = self.draw
        if self.level <= 3:
            root = self.chain(self.input(draw.weighted(KIND_WEIGHTS)), self.level)
        elif self.level == 4:
            root = self.branches(draw.integer(1, 2), draw.integer(0, 1), draw.integer(0, 1))
        elif draw.chance(0.4):
            root = self.chain(self.input(draw.weighted(KIND_WEIGHTS)), draw.integer(5, 6))
        else:
            root = self.branches(draw.integer(1, 3), draw.integer(1, 2), draw.integer(1, 2))
        if root is None or sum(1 for _ in root.nodes()) < LEAST[self.level]:
            return None
        return Plan(root, tuple(self.domains))

    def branches(self, first: int, second: int, after: int) -> Node | None:
        """Two branches that meet in a primitive of two values, and what follows."""
        draw = self.draw
        kind = draw.weighted(KIND_WEIGHTS)
        left_input = self.input(kind)
        left = self.chain(left_input, first)
        if left is None:
            return None
        shared = draw.chance(0.5)
        right_input = left_input if shared else self.input(draw.pick((kind, left.kind)))
        right = self.chain(right_input, second)
        if right is None or right == left:
            return None
        joins = [o for o in OPERATIONS.values() if o.sources == (left.kind, right.kind)]
        if not joins:
            return None
        joined = make(draw.pick(joins).key, (left, right))
        return self.chain(joined, after) if self.is_alive(joined) else None

    def chain(self, node: Node | None, count: int) -> Node | None:
        """`count` primitives of one value on top of a node; None if that cannot be."""
        for i in range(count):
            if node is None or node.kind == BOOL:
                return None
            tries = (self.step(node, last=i == count - 1) for _ in range(TRIES))
            node = next((n for n in tries if self.is_alive(n)), None)
        return node

    def is_alive(self, node: Node) -> bool:
        """Whether its results stay in range and differ, for a few inputs."""
        domains = [dataclasses.replace(d, small=True) for d in self.domains]
        try:
            bound(node, [d.bounds for d in domains])
        except TooLarge:
            return False
        if self.columns is None or len(self.columns.rows[0]) != len(domains):
            rows = probe_rows([d.kind for d in domains])
            for i, row in enumerate(rows):
                for j, domain in enumerate(domains):
                    if domain.constant:
                        row[j] = 2 + i % 8
            self.columns = Columns(rows)
        results = self.columns.of(node)
        return len({repr(x) for x in results}) >= (2 if node.kind == BOOL else 5)

    def step(self, node: Node, last: bool) -> Node:
        choices = [
            (o, o.weight)
            for o in OPERATIONS.values()
            if o.sources == (node.kind,) and o.level <= self.level and (last or o.target != BOOL)
        ]
        operation: Operation = self.draw.weighted(choices)
        function = None
        if operation.takes:
            on_text = operation.sources == (TEXT,) and operation.takes[0] == "word"
            function = self.function(*operation.takes, total=on_text)
        return make(operation.key, (node,), function, self.constants(operation.constants))

    def function(self, source: str, target: str, total: bool = False, deep: bool = True) -> Lambda:
        draw = self.draw
        if deep and self.level >= 3 and draw.chance(0.3):
            combined = self.combined(source, target, total)
            if combined:
                return combined
        choices = [
            name
            for name, f in FUNCTIONS.items()
            if (f.source, f.target) == (source, target)
            and f.level <= self.level
            and (f.total or not total)
        ]
        name = draw.pick(choices)
        return Lambda(name, self.constants(FUNCTIONS[name].constants))

    def combined(self, source: str, target: str, total: bool) -> Lambda | None:
        draw = self.draw
        if target == "bool":
            name = draw.pick(("and", "or", "not"))
            count = 1 if name == "not" else 2
        elif source == target == "int":
            name, count = draw.pick(("then", "if")), 2
        else:
            return None
        if name == "if":
            condition = self.function(source, "bool", deep=False)
            return Lambda("if", parts=(condition, *self.alternatives(condition)))
        drawn = tuple(self.function(source, target, total, deep=False) for _ in range(count))
        if count == 2 and drawn[0].name == drawn[1].name:
            return None
        return Lambda(name, parts=drawn)

    def alternatives(self, condition: Lambda) -> tuple[Lambda, Lambda]:
        """What a conditional does where its condition holds, and elsewhere."""
        draw = self.draw
        identity = Lambda("identity")
        if condition.name == "even" and draw.chance(0.5):
            return Lambda("halve"), identity
        if condition.name in ("above", "below", "least", "most") and draw.chance(0.4):
            return Lambda("constant", condition.constants), identity
        then = self.function("int", "int", deep=False)
        other = self.function("int", "int", deep=False) if draw.chance(0.3) else identity
        return then, identity if other.name == then.name else other

    def constants(self, kinds: Sequence[str]) -> tuple[Constant, ...]:
        drawn: list[Constant] = []
        for kind in kinds:
            constant = self.constant(kind)
            while constant in drawn:
                constant = self.constant(kind)
            drawn.append(constant)
        return tuple(drawn)

    def constant(self, kind: str) -> Constant:
        draw = self.draw
        if kind == "letter":
            return draw.pick(LETTERS)
        if kind == "separator":
            return draw.pick(SEPARATORS)
        if self.level >= 3 and draw.chance(0.15):
            return self.argument()
        if kind == "few":
            return draw.integer(2, 4)
        if kind == "size":
            return draw.integer(3, 5)
        if kind == "factor":
            return draw.integer(3, 7)
        return draw.integer(2, 9 if self.level <= 2 else 20)

    def argument(self) -> Arg:
        """The input that stands for constants; there is one at most."""
        for index, domain in enumerate(self.domains):
            if domain.constant:
                return Arg(index)
        self.domains.append(Domain(INT, constant=True))
        return Arg(len(self.domains) - 1)


def draw_plan(draw: Draw, level: int) -> Plan | None:
    """A composition of that level whose values stay in range, or None if this draw gave none."""
    plan = _Drawing(draw, level).plan()
    if plan is None or len(plan.domains) > 3:
        return None
    for small in (False, True):
        domains = tuple(dataclasses.replace(d, small=small) for d in plan.domains)
        try:
            bound(plan.root, [d.bounds for d in domains])
        except TooLarge:
            continue
        return Plan(plan.root, domains)
    return None
