"""A bounded choice of failing samples, to be looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from geex_jax.benchmark.report.analysis import Analysis
from geex_jax.benchmark.report.reading import NOT_RUN, OUTCOMES, PASSED, Results
from geex_jax.pages import clean

MOST = 240  # samples
MOST_BYTES = 2_000_000  # of their code and messages, as they stand in the page
CODE, MESSAGE = 6_000, 2_000  # characters of one
Buckets = dict[tuple[int, str], list[tuple[int, int]]]
ONLY_GIVEN = "passes only the given tests"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One failing sample.

    Attributes:
      task: its problem. label: languages. sample: its number. outcome: its class, or ONLY_GIVEN.
      code, message: clean text, clipped. seconds: CPU time of the run.
      copies: samples of this task with the same program.
    """

    task: str
    label: str
    sample: int
    outcome: str
    code: str
    message: str
    seconds: float
    copies: int


def clip(text: str, limit: int) -> str:
    """At most `limit` characters, and a note of how many more there were."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n… {len(text) - limit:,} more characters"


def choose(
    found: Analysis,
    cost: Callable[[Sample], int],
    most: int = MOST,
    most_bytes: int = MOST_BYTES,
) -> list[Sample]:
    """Picks samples of every language and class, different programs of different tasks first.

    Args:
      found: the analysis.
      cost: a function of one sample: bytes that it takes in the page.
      most: samples. most_bytes: of them all.
    """
    chosen: list[tuple[tuple[int, str], Sample]] = []
    spent = 0
    for key, row, copies in _by_turns(_buckets(found)):
        sample = _sample(found.results, row, copies, key[-1])
        spent += cost(sample)
        if len(chosen) == most or spent > most_bytes:
            break
        chosen.append((key, sample))
    order = [*OUTCOMES, ONLY_GIVEN]
    groups = found.results.groups
    chosen.sort(key=lambda x: (groups[x[0][0]].target_order, order.index(x[0][1])))
    return [sample for _, sample in chosen]


def _by_turns(buckets: Buckets) -> Iterator[tuple[tuple[int, str], int, int]]:
    """The first row of each bucket, the second of each, and so on."""
    for turn in range(max(map(len, buckets.values()), default=0)):
        for key, rows in buckets.items():
            if turn < len(rows):
                yield key, *rows[turn]


def _buckets(found: Analysis) -> Buckets:
    """(group, class) -> [(row, copies)], in the order in which to show them."""
    results = found.results
    groups, outcome = results.columns["group"], results.columns["outcome"]
    buckets = {}
    for comparison in found.comparisons:
        group = results.groups.index(comparison.second.group)
        buckets[group, ONLY_GIVEN] = _spread(results, comparison.fooled)
    for at, group in enumerate(results.groups):
        if group.set != found.main:
            continue
        mine = np.flatnonzero(groups == at)
        for number in np.unique(outcome[mine]):
            if number not in (PASSED, NOT_RUN):
                rows = mine[outcome[mine] == number]
                buckets[at, str(OUTCOMES[number])] = _spread(results, rows)
    return buckets


def _spread(results: Results, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    """One row for each different program, tasks by turns, at most MOST of them."""
    keys, tasks = results.columns["key"][rows], results.columns["task"][rows]
    _, first, copies = np.unique(
        np.stack([tasks.astype(np.int64), keys], axis=1), axis=0, return_index=True,
        return_counts=True,
    )  # fmt: skip
    turn: dict[int, int] = {}
    ranked = []
    for at in sorted(range(first.size), key=lambda i: first[i]):
        task = int(tasks[first[at]])
        turn[task] = turn.get(task, -1) + 1
        ranked.append((turn[task], int(first[at]), int(copies[at])))
    ranked.sort()
    return [(int(rows[at]), n) for _, at, n in ranked[:MOST]]


def _sample(results: Results, row: int, copies: int, outcome: str) -> Sample:
    (raw,) = results.rows([row])
    group = results.groups[results.columns["group"][row]]
    code = str(raw.get("code") or "(the row has no code)")
    message = str(raw.get("message") or "")
    if outcome == ONLY_GIVEN:
        message = f"{raw['outcome']} under the {group.set} tests\n{message}"
    return Sample(
        task=clean(raw["task_id"]), label=clean(group.title), sample=raw["sample"],
        outcome=outcome, code=clean(clip(code, CODE)), message=clean(clip(message, MESSAGE)),
        seconds=float(results.columns["cpu_seconds"][row]), copies=copies,
    )  # fmt: skip
