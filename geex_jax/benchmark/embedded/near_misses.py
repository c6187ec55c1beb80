"""Programs that are nearly right, and inputs that tell them from the right one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from geex_jax.benchmark.embedded.bounds import TooLarge, bound
from geex_jax.benchmark.embedded.compose import Plan
from geex_jax.benchmark.embedded.draw import Draw
from geex_jax.benchmark.embedded.functions import FUNCTIONS, Arg, Constant, Lambda
from geex_jax.benchmark.embedded.inputs import hints_of, sample
from geex_jax.benchmark.embedded.operations import BOOL, OPERATIONS
from geex_jax.benchmark.embedded.trees import Columns, Node

POOL = 40
LEAST_TESTS, MOST_TESTS = 5, 8
_LETTER_AFTER = dict(zip("aeionrst-, ", "eionrsta,-;", strict=True))


def shorter(node: Node) -> Iterator[Node]:
    """The composition with one primitive, or one part of a function, left out."""
    if node.is_input:
        return
    yield from (arg for arg in node.args if arg.kind == node.kind)
    if node.function:
        for function in _simpler(node.function):
            yield dataclasses.replace(node, function=function)
    yield from _inside(node, shorter)


def _simpler(function: Lambda) -> Iterator[Lambda]:
    if function.target == "bool":  # a condition that always holds, or never
        opposite = Lambda("not", parts=(function,))
        yield Lambda("or", parts=(function, opposite))
        yield Lambda("and", parts=(function, opposite))
    if function.name in ("and", "or", "not", "then"):
        yield from (p for p in function.parts if function.name != "not")
    if function.name == "if":
        yield from function.parts[1:]


def altered(node: Node) -> Iterator[Node]:
    """The composition with another primitive, function or constant somewhere."""
    if node.is_input:
        return
    mine = node.operation
    for other in OPERATIONS.values():
        alike = (other.sources, other.target, other.takes, other.constants)
        if other is not mine and alike == (mine.sources, mine.target, mine.takes, mine.constants):
            yield dataclasses.replace(node, key=other.key)
    for constants in _other_constants(node.constants):
        yield dataclasses.replace(node, constants=constants)
    if node.function:
        for function in _other_functions(node.function):
            yield dataclasses.replace(node, function=function)
    if len(node.args) == 2 and node.args[0].kind == node.args[1].kind:
        yield dataclasses.replace(node, args=node.args[::-1])
    child = node.args[0]
    swaps = not child.is_input and len(node.args) == len(child.args) == 1
    if swaps and child.args[0].kind == child.kind == node.kind:
        inner = dataclasses.replace(node, args=child.args)
        yield dataclasses.replace(child, args=(inner,))
    yield from _inside(node, altered)


def _inside(node: Node, change: Any) -> Iterator[Node]:
    for i, arg in enumerate(node.args):
        for new in change(arg):
            yield dataclasses.replace(node, args=(*node.args[:i], new, *node.args[i + 1 :]))


def _other_constants(constants: tuple[Constant, ...]) -> Iterator[tuple[Constant, ...]]:
    for i, constant in enumerate(constants):
        if isinstance(constant, Arg):
            continue
        changes = (
            [constant - 1, constant + 1]
            if isinstance(constant, int)
            else [_LETTER_AFTER[constant], constant.upper()]
        )
        for new in changes:
            yield (*constants[:i], new, *constants[i + 1 :])


def _other_functions(function: Lambda) -> Iterator[Lambda]:
    if function.parts:
        if function.name in ("and", "or"):
            yield dataclasses.replace(function, name="or" if function.name == "and" else "and")
        if function.name == "then":
            yield dataclasses.replace(function, parts=function.parts[::-1])
        for i, part in enumerate(function.parts):
            for new in _other_functions(part):
                parts = (*function.parts[:i], new, *function.parts[i + 1 :])
                yield dataclasses.replace(function, parts=parts)
        return
    mine = FUNCTIONS[function.name]
    for name, other in FUNCTIONS.items():
        alike = (other.source, other.target, other.constants)
        if name != function.name and alike == (mine.source, mine.target, mine.constants):
            yield dataclasses.replace(function, name=name)
    for constants in _other_constants(function.constants):
        yield dataclasses.replace(function, constants=constants)


@dataclasses.dataclass(frozen=True)
class Cases:
    """Inputs of a task, and what they give.

    Attributes:
      tests: (inputs, output), 5 to 8, that tell it from near misses.
      examples: short ones for the docstring.
    """

    tests: tuple[tuple[tuple[Any, ...], Any], ...]
    examples: tuple[tuple[tuple[Any, ...], Any], ...]


def choose_cases(plan: Plan, draw: Draw, examples: int = 2) -> Cases | None:
    """Tests and examples, or None for a composition not worth asking for.

    That is one in which a part can be left out and nothing changes, or whose results are nearly
    always the same. Every near miss that any of POOL inputs tells apart, a test tells apart.
    """
    hints = hints_of(plan.root)
    pool: list[tuple[Any, ...]] = []
    known: set[str] = set()
    for i in range(POOL):
        inputs = tuple(sample(draw, d, hints, (i + 2 * j) % POOL if j else i)
                       for j, d in enumerate(plan.domains))  # fmt: skip
        if repr(inputs) not in known:
            known.add(repr(inputs))
            pool.append(inputs)
    columns = Columns(pool)
    outputs = columns.of(plan.root)
    if not _varied(plan.root.kind, outputs):
        return None
    bounds = [domain.bounds for domain in plan.domains]
    told: list[set[int]] = []  # for each near miss, the inputs that tell it apart
    for must, change in ((True, shorter), (False, altered)):
        for other in change(plan.root):
            try:
                bound(other, bounds)
            except TooLarge:
                continue  # it would take long, and differ anyway
            pairs = zip(columns.of(other), outputs, strict=True)
            apart = {i for i, (x, y) in enumerate(pairs) if x != y}
            if must and len(apart) < 3:
                return None
            if apart:
                told.append(apart)
    # A program that always gives the same is a near miss too.
    for constant in (outputs[0], False, True, 0, "", [], {}, *outputs[2:4]):
        told.append({i for i, y in enumerate(outputs) if y != constant or type(y) is not type(y)})
    if plan.root.kind == BOOL:  # each answer twice
        for answer in (False, True):
            having = [i for i, y in enumerate(outputs) if y == answer]
            told += [set(having[::2]), set(having[1::2])]
    chosen = _cover(told, len(pool))
    if chosen is None:
        return None
    tests = tuple((pool[i], outputs[i]) for i in sorted(chosen))
    shown = _examples(plan.root.kind, list(zip(pool, outputs, strict=True)))
    return Cases(tests, shown[:examples]) if shown else None


def _varied(kind: str, outputs: Sequence[Any]) -> bool:
    different = {repr(y) for y in outputs}
    if kind == BOOL:
        return 0.12 <= sum(outputs) / len(outputs) <= 0.88
    common = max(sum(1 for y in outputs if y == x) for x in outputs)
    return len(different) >= 5 and common <= len(outputs) / 2


def _cover(told: Sequence[set[int]], size: int) -> set[int] | None:
    """Few inputs that meet all sets: the one that meets most first; None if it takes too many."""
    chosen = {0} if size else set()  # the empty input
    left = [apart for apart in told if not apart & chosen]
    while left or len(chosen) < min(LEAST_TESTS, size):
        rest = [i for i in range(size) if i not in chosen]
        best = max(rest, key=lambda i: (sum(i in apart for apart in left), -i))
        chosen.add(best)
        left = [apart for apart in left if best not in apart]
        if len(chosen) > MOST_TESTS:
            return None
    return chosen


def _examples(kind: str, cases: list[tuple[Any, Any]]) -> tuple[Any, ...]:
    """Two short cases that show something: results that differ and are not empty."""
    ranked = sorted(cases, key=lambda c: (len(repr(c)), repr(c)))
    if kind != BOOL:
        ranked = [c for c in ranked if c[1] not in (0, "", [], {})]
        ranked = [c for c in ranked if c[1] != c[0][0]] or ranked
    # The very shortest say least: lists of one.
    ranked = [c for c in ranked if all(not isinstance(x, list) or len(x) > 1 for x in c[0])]
    for i, first in enumerate(ranked):
        for second in ranked[i + 1 :]:
            if second[1] != first[1]:
                return first, second
    return ()
