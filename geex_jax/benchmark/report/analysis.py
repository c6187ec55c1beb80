"""The numbers of a report: everything that is counted, before it is laid out."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from geex_jax.benchmark.languages.types import Outcome
from geex_jax.benchmark.report import reading
from geex_jax.benchmark.report.reading import NOT_RUN, NUMBER, OUTCOMES, PASSED, Group, Results
from geex_jax.benchmark.statistics import (
    Allocation,
    Bootstrap,
    Interval,
    allocate,
    difference_interval,
    mean_interval,
    pass_at_k_interval,
    pass_at_k_of_tasks,
)
from geex_jax.benchmark.statistics.budget import natural
from geex_jax.errors import GeexError

SLOWEST = 20
FAILURES = tuple(x for x in OUTCOMES if x not in (Outcome.PASSED, Outcome.NOT_RUN))


@dataclasses.dataclass
class GroupResult:
    """One language (or pair of languages) under one set of tests.

    Attributes:
      group: which.
      counts: task -> (n, c); only samples that were run.
      scores: k -> pass@k with its interval, or the reason why there is none.
      outcomes: class -> samples. All classes but "not run".
      not_run: samples that were not. reason: why.
      cpu_seconds: mean of a run. compile_seconds: mean CPU time. memory_bytes: largest.
      cached: share of samples whose verdict was known already.
      bleu, codebleu: means, 0 to 1; None if the rows have none.
    """

    group: Group
    counts: dict[str, tuple[int, int]]
    scores: dict[int, Interval | str]
    outcomes: dict[str, int]
    not_run: int = 0
    reason: str = ""
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0
    memory_bytes: float = 0.0
    cached: float = 0.0
    bleu: float | None = None
    codebleu: float | None = None

    @property
    def samples(self) -> int:
        """How many were run."""
        return sum(self.outcomes.values())


@dataclasses.dataclass
class Comparison:
    """The same samples under the given tests and under others.

    Attributes:
      set: name of the other tests. first, second: results under the given tests and the others.
      fooled: rows (under the other tests) of samples that only the given tests let pass.
      passed: samples that pass the given tests and were judged by both.
      drop: k -> pass@k under the given tests minus that under the others.
      tasks: task -> samples of it that only the given tests let pass; most first.
    """

    set: str
    first: GroupResult
    second: GroupResult
    fooled: NDArray[np.int64]
    passed: int
    drop: dict[int, Interval]
    tasks: dict[str, int]


@dataclasses.dataclass
class Slow:
    """One problem in one language, and the CPU time that its samples took."""

    group: Group
    task: str
    samples: int
    mean_seconds: float
    worst_seconds: float
    compile_seconds: float
    timeouts: int
    memory_bytes: float


@dataclasses.dataclass
class Finding:
    """One rule of the security check in one language.

    Attributes:
      samples: that it hit. passed: how many of these pass their tests.
      example: task, line and message of one hit.
    """

    language: str
    rule: str
    severity: str
    samples: int
    passed: int
    example: str


@dataclasses.dataclass
class Analysis:
    """All that a report says.

    Attributes:
      main: the set of tests that the main tables are about. ks: of pass@k.
      generation, translation: results under the main tests, in the benchmark's order; languages
        that were asked for and have no rows are among them, without counts.
      comparisons: samples under the given tests and under others.
      averages: k -> mean of pass@k over the languages that ran; absent where one has too few
        samples.
    """

    results: Results
    how: Bootstrap
    ks: tuple[int, ...]
    main: str
    generation: list[GroupResult]
    translation: list[GroupResult]
    comparisons: list[Comparison]
    averages: dict[int, Interval]
    budget: list[Allocation]
    slowest: list[Slow]
    findings: list[Finding]
    notes: list[str]


def analyse(results: Results, how: Bootstrap | None = None) -> Analysis:
    """Works out the numbers of a report.

    Raises:
      GeexError: run.json asks for an impossible k.
    """
    how = how or Bootstrap()
    wanted = reading.ks(results.run)
    sets = sorted({group.set for group in results.groups}, key=lambda x: (x != "given", x))
    every = [_group_result(results, at, wanted, how) for at in range(len(results.groups))]
    every.sort(key=lambda x: x.group.order)
    mine = [x for x in every if x.group.set == sets[0]]
    generation = [x for x in mine if not x.group.source]
    translation = [x for x in mine if x.group.source]
    for language in _asked_for(results, generation, translation):
        generation.append(_nothing(Group(sets[0], "", language), wanted))
    generation.sort(key=lambda x: x.group.order)
    found = Analysis(
        results=results, how=how, ks=wanted, main=sets[0],
        generation=generation, translation=translation,
        comparisons=_compare_sets(results, every, sets[0], wanted, how),
        averages=_averages(generation, wanted, how),
        budget=_budget(generation, wanted, how),
        slowest=_slowest(results, sets[0]), findings=_findings(results), notes=[],
    )  # fmt: skip
    found.notes = results.notes + _notes(found)
    return found


def _group_result(
    results: Results, at: int, wanted: tuple[int, ...], how: Bootstrap
) -> GroupResult:
    columns = results.columns
    rows = np.flatnonzero(columns["group"] == at)
    ran = rows[columns["outcome"][rows] != NOT_RUN]
    outcome, tasks = columns["outcome"][ran], columns["task"][ran]
    n = np.bincount(tasks, minlength=len(results.tasks))
    c = np.bincount(tasks[outcome == PASSED], minlength=len(results.tasks))
    names = sorted((results.tasks[t] for t in np.flatnonzero(n)), key=natural)
    number = {results.tasks[t]: t for t in np.flatnonzero(n)}
    counts = {name: (int(n[number[name]]), int(c[number[name]])) for name in names}
    classes = np.bincount(outcome, minlength=len(OUTCOMES))
    found = GroupResult(
        group=results.groups[at],
        counts=counts,
        scores={k: _score(counts, k, how) for k in wanted},
        outcomes={x.value: int(classes[NUMBER[x]]) for x in (Outcome.PASSED, *FAILURES)},
        not_run=rows.size - ran.size,
        reason=results.reasons.get(at, ""),
        bleu=_mean(columns["bleu"][rows]),
        codebleu=_mean(columns["codebleu"][rows]),
    )
    if ran.size:
        found.cpu_seconds = float(columns["cpu_seconds"][ran].mean())
        found.compile_seconds = float(columns["compile_seconds"][ran].mean())
        found.memory_bytes = float(columns["memory_bytes"][ran].max())
        found.cached = float(columns["cached"][ran].mean())
    return found


def _score(counts: dict[str, tuple[int, int]], k: int, how: Bootstrap) -> Interval | str:
    if not counts:
        return "not run"
    least = min(n for n, _ in counts.values())
    return pass_at_k_interval(counts, k, how) if k <= least else f"n = {least}"


def _nothing(group: Group, wanted: tuple[int, ...]) -> GroupResult:
    return GroupResult(group, {}, dict.fromkeys(wanted, "not run"), {})


def _asked_for(
    results: Results, generation: list[GroupResult], translation: list[GroupResult]
) -> list[str]:
    """Languages that the run was to judge and that have no rows."""
    if translation or results.run.get("task") == "translation":
        return []
    there = {x.group.language for x in generation}
    return [x for x in reading.asked(results.run) if x not in there]


def _mean(values: NDArray[np.float64]) -> float | None:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else None


def by_problem(counts: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Counts under what follows the slash of a task's id: the same in all languages."""
    return {task.rpartition("/")[2]: nc for task, nc in counts.items()}


def average(found: list[GroupResult], k: int, how: Bootstrap) -> Interval | None:
    """Mean of pass@k over languages; problems are resampled, each in all its languages.

    None if a language has too few samples, or other problems than the rest.
    """
    tables = [by_problem(x.counts) for x in found if x.counts]
    if not tables or any(set(x) != set(tables[0]) for x in tables):
        return None
    try:
        per_language = [pass_at_k_of_tasks({p: x[p] for p in tables[0]}, k) for x in tables]
    except GeexError:  # fewer than k samples
        return None
    return mean_interval(np.mean(per_language, axis=0), how)


def _averages(
    found: list[GroupResult], wanted: tuple[int, ...], how: Bootstrap
) -> dict[int, Interval]:
    if sum(bool(x.counts) for x in found) < 2:
        return {}
    values = {k: average(found, k, how) for k in wanted}
    return {k: value for k, value in values.items() if value is not None}


def _budget(found: list[GroupResult], wanted: tuple[int, ...], how: Bootstrap) -> list[Allocation]:
    counts = {x.group.language: x.counts for x in found if x.counts}
    if len(counts) < 2:
        return []
    table = []
    for k in wanted:
        try:
            table += allocate(counts, [k], how=how) if k > 1 else []
        except GeexError:  # fewer samples than k in all languages, or no problem in common
            continue
    return table


def _compare_sets(
    results: Results, every: list[GroupResult], main: str, wanted: tuple[int, ...], how: Bootstrap
) -> list[Comparison]:
    first = {(x.group.source, x.group.language): x for x in every if x.group.set == main}
    found = []
    for second in every:
        pair = (second.group.source, second.group.language)
        if second.group.set != main and pair in first:
            found.append(_compare(results, first[pair], second, wanted, how))
    return found


def _compare(
    results: Results, first: GroupResult, second: GroupResult, wanted: tuple[int, ...],
    how: Bootstrap,
) -> Comparison:  # fmt: skip
    columns = results.columns
    _, sample = np.unique(columns["sample"], return_inverse=True)
    identity = columns["task"].astype(np.int64) * (sample.max() + 1) + sample
    rows = [
        np.flatnonzero(columns["group"] == results.groups.index(x.group)) for x in (first, second)
    ]
    _, a, b = np.intersect1d(
        identity[rows[0]], identity[rows[1]], assume_unique=True, return_indices=True
    )
    one, two = columns["outcome"][rows[0][a]], columns["outcome"][rows[1][b]]
    passed = (one == PASSED) & (two != NOT_RUN)
    fooled = rows[1][b][passed & (two != PASSED)]
    tasks, hits = np.unique(columns["task"][fooled], return_counts=True)
    order = sorted(range(tasks.size), key=lambda i: (-hits[i], natural(results.tasks[tasks[i]])))
    drop = {}
    for k in wanted:
        if not isinstance(first.scores[k], str) and not isinstance(second.scores[k], str):
            drop[k] = difference_interval(first.counts, second.counts, k, how)
    return Comparison(
        set=second.group.set, first=first, second=second, fooled=fooled, passed=int(passed.sum()),
        drop=drop, tasks={results.tasks[tasks[i]]: int(hits[i]) for i in order},
    )  # fmt: skip


def _slowest(results: Results, main: str) -> list[Slow]:
    """Problems by mean CPU time of a run."""
    columns = results.columns
    mine = np.array([group.set == main for group in results.groups])
    ran = np.flatnonzero((columns["outcome"] != NOT_RUN) & mine[columns["group"]])
    if not ran.size:
        return []
    size = len(results.tasks)
    cell, at = np.unique(
        columns["group"][ran].astype(np.int64) * size + columns["task"][ran], return_inverse=True
    )
    samples = np.bincount(at)
    means = np.bincount(at, columns["cpu_seconds"][ran]) / samples
    compiling = np.bincount(at, columns["compile_seconds"][ran]) / samples
    timeouts = np.bincount(at, columns["outcome"][ran] == NUMBER[Outcome.TIMEOUT])
    worst, memory = np.zeros(cell.size), np.zeros(cell.size)
    np.maximum.at(worst, at, columns["cpu_seconds"][ran])
    np.maximum.at(memory, at, columns["memory_bytes"][ran])
    return [
        Slow(
            results.groups[cell[i] // size], results.tasks[cell[i] % size], int(samples[i]),
            float(means[i]), float(worst[i]), float(compiling[i]), int(timeouts[i]),
            float(memory[i]),
        )
        for i in np.argsort(-means, kind="stable")[:SLOWEST]
    ]  # fmt: skip


def _findings(results: Results) -> list[Finding]:
    table: dict[tuple[str, str, str], Finding] = {}
    for row, hits in results.findings.items():
        group = results.groups[results.columns["group"][row]]
        seen = set()
        for hit in hits:
            key = (group.language, str(hit.get("rule", "")), str(hit.get("severity", "")))
            if key in seen:
                continue
            seen.add(key)
            task = results.tasks[results.columns["task"][row]]
            example = f"{task}, line {hit.get('line', '?')}: {hit.get('message', '')}"
            found = table.setdefault(key, Finding(*key, 0, 0, example))
            found.samples += 1
            found.passed += bool(results.columns["outcome"][row] == PASSED)
    return sorted(table.values(), key=lambda x: (-x.samples, x.language, x.rule))


def _notes(found: Analysis) -> list[str]:
    notes = []
    for x in (*found.generation, *found.translation):
        if not x.counts:
            why = f": {' '.join(x.reason.split())}" if x.reason else ""
            notes.append(f"{x.group.title} was not run{why}.")
        elif x.not_run:
            notes.append(f"{x.group.title}: {x.not_run:,} samples were not run; left out.")
        sizes = {n for n, _ in x.counts.values()}
        if len(sizes) > 1:
            few = sum(n < max(sizes) for n, _ in x.counts.values())
            notes.append(
                f"{x.group.title}: {few} of {len(x.counts)} tasks have fewer than "
                f"{max(sizes)} samples; each counts with its own n."
            )
    tasks = {len(x.counts) for x in found.generation if x.counts}
    if len(tasks) > 1:
        notes.append("The languages have unlike numbers of tasks; compare them with care.")
    return notes
