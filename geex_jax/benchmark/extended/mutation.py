"""New inputs near the given ones, by a seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from geex_jax.benchmark.extended.reading import Arguments, Given
from geex_jax.benchmark.extended.slots import Slot

COUNT = 30  # new inputs of a task, if its arguments allow as many
_TRIES = 40  # for each of them
_INT32 = 2**31
Rule = Callable[[Arguments], bool]


def mutate(given: Given, seed: int, task_id: str, count: int = COUNT) -> list[Arguments]:
    """Returns up to `count` inputs that the tests of a task do not have.

    They keep what holds for all given inputs (see `rules`), since the text that promises it
    cannot be read by a program.

    Args:
      given: the inputs to start from.
      seed: same seed, same inputs.
      task_id: makes the inputs of tasks independent of each other.
      count: how many.
    """
    source = Random(f"{seed} {task_id}")
    slots = [Slot(values) for values in zip(*given.examples, strict=True)]
    kept = rules(given.examples)
    seen = {repr(a) for a in given.examples}
    out: list[Arguments] = []
    for _ in range(count * _TRIES):
        if len(out) == count or not slots:
            break
        new = list(source.choice(given.examples))
        for place in range(len(new)):
            if len(new) == 1 or source.random() < 0.6:
                new[place] = slots[place].mutate(new[place], source)
        arguments = tuple(new)
        if repr(arguments) in seen or not _safe(arguments) or not all(r(arguments) for r in kept):
            continue
        seen.add(repr(arguments))
        out.append(arguments)
    return out


def _safe(value: Any) -> bool:
    """Numbers that every language's int holds, text that all of them count the same way."""
    if isinstance(value, list | tuple):
        return all(map(_safe, value))
    if isinstance(value, dict):
        return all(map(_safe, value)) and all(map(_safe, value.values()))
    if isinstance(value, int):
        return -_INT32 <= value < _INT32
    return not isinstance(value, str) or value.isascii()


def rules(inputs: Sequence[Arguments]) -> list[Rule]:
    """What holds for all inputs, of the promises that problems make about their arguments."""
    out: list[Rule] = []
    for rule in _candidates(inputs[0]):
        told = [_quietly(rule, arguments) for arguments in inputs]
        # Three that say so: one or two inputs agree on anything.
        if all(x is not False for x in told) and sum(x is True for x in told) >= 3:
            out.append(lambda arguments, rule=rule: _quietly(rule, arguments) is not False)
    return out


def _quietly(rule: Callable[[Arguments], bool | None], arguments: Arguments) -> bool | None:
    try:
        return rule(arguments)
    except (TypeError, IndexError, ValueError):  # it is not of a kind that the rule is about
        return False


def _candidates(first: Arguments) -> Iterator[Callable[[Arguments], bool | None]]:
    """Rules to try; each tells None of inputs that say nothing about it."""
    for place, value in enumerate(first):
        if isinstance(value, list | tuple):
            for about in (_sorted, _distinct, _rectangle, _square, _permutation):
                yield lambda a, i=place, f=about: f(a[i])
        elif isinstance(value, str):
            for about in (_balanced, _single_blanks):
                yield lambda a, i=place, f=about: f(a[i])
    for i, j in itertools.permutations(range(len(first)), 2):
        one, two = _size(first[i]), _size(first[j])
        if one is None or two is None:
            continue
        if type(first[i]) is type(first[j]) and isinstance(first[i], list | str) and i < j:
            gap = one - two
            yield lambda a, i=i, j=j, gap=gap: len(a[i]) - len(a[j]) == gap
        # Order of two numbers, and numbers that count items (k of a list's n).
        if isinstance(first[i], int) or isinstance(first[j], int):
            yield lambda a, i=i, j=j: _ordered(_size(a[i]), _size(a[j]))


def _size(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return len(value) if isinstance(value, list | tuple | str) else None


def _ordered(one: int | None, two: int | None) -> bool | None:
    return None if one is None or two is None else one <= two


def _sorted(value: Sequence[Any]) -> bool | None:
    return None if len(value) < 2 else all(a <= b for a, b in itertools.pairwise(value))


def _distinct(value: Sequence[Any]) -> bool | None:
    return None if len(value) < 4 else len({repr(x) for x in value}) == len(value)


def _rectangle(value: Sequence[Any]) -> bool | None:
    if not value or not all(isinstance(row, list | tuple) for row in value):
        return None
    return len({len(row) for row in value}) == 1


def _square(value: Sequence[Any]) -> bool | None:
    about = _rectangle(value)
    return about and len(value[0]) == len(value)


def _permutation(value: Sequence[Any]) -> bool | None:
    if not _rectangle(value):
        return None
    flat = [x for row in value for x in row]
    return sorted(flat) == list(range(1, len(flat) + 1))


_CLOSES = {")": "(", "]": "[", "}": "{", ">": "<"}


def _balanced(value: str) -> bool | None:
    signs = [c for c in value if c in "()[]{}<>"]
    opened: list[str] = []
    for sign in signs:
        if sign in _CLOSES:
            if not opened or opened.pop() != _CLOSES[sign]:
                return False
        else:
            opened.append(sign)
    return None if not signs else not opened


def _single_blanks(value: str) -> bool | None:
    return None if " " not in value else "  " not in value and value == value.strip()
