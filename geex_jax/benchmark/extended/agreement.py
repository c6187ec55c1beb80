"""Differential testing: what the canonical solutions of several languages say of new inputs."""

from __future__ import annotations

import ast
import collections
import dataclasses
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.extended import reading
from geex_jax.benchmark.extended.reading import Arguments
from geex_jax.benchmark.extended.render import python
from geex_jax.benchmark.judge.cache import JUDGE, VerdictCache
from geex_jax.benchmark.judge.evaluate import Judge
from geex_jax.benchmark.languages.types import Limits, Outcome, Problem, Program, Verdict

_MARKS = ("<geex-results ", " geex-end>")
_LONGEST = 1000  # characters of a result; a verdict's message holds 2,000
_PARTS = 8  # cases judged together where not all of a task's can be
T = TypeVar("T", bound=Hashable)
Place = tuple[str, str]  # language, number of the task


class Bench:
    """Judges programs, those that were judged before from the cache.

    Args:
      pool: runs them.
      cache: verdicts of earlier runs.
      limits: of a program. Canonical solutions get half the time that samples get.
      progress: show progress lines.
    """

    def __init__(
        self, pool: Judge, cache: VerdictCache | None, limits: Limits, progress: bool = True
    ):
        self.pool, self.cache = pool, cache or VerdictCache(None)
        self.limits = dataclasses.replace(limits, cpu_seconds=limits.cpu_seconds / 2)
        self.progress = progress
        self._tools: dict[str, tuple[languages.Language, str]] = {}

    def language(self, name: str) -> tuple[languages.Language, str]:
        """A language, and what is to be put into the keys of its verdicts."""
        if name not in self._tools:
            language = languages.get(name)
            mark = f"{language.toolchain().fingerprint}; judge {JUDGE}"
            self._tools[name] = language, mark
        return self._tools[name]

    def judge(
        self, wanted: Mapping[T, tuple[str, Problem, str]], label: str
    ) -> dict[T, Verdict]:  # fmt: skip
        """Judges canonical solutions by tests.

        Args:
          wanted: anything -> language, problem, tests instead of its own.
          label: of the progress line.
        """
        out: dict[T, Verdict] = {}
        queues: dict[str, list[tuple[T, str, Program]]] = collections.defaultdict(list)
        for one, (name, problem, test) in wanted.items():
            language, mark = self.language(name)
            program = language.assemble({**problem, "test": test}, problem["canonical_solution"])
            key = program.key(mark, self.limits)
            known = self.cache.get(key)
            if known is None:
                queues[name].append((one, key, program))
            else:
                out[one] = known
        if not queues:
            return out
        progress = None
        if self.progress:
            progress = files.Progress(label, len(wanted), "programs", start=len(out))
        asked = {name: [program for _, _, program in some] for name, some in queues.items()}
        for name, index, verdict in self.pool.judge(asked, self.limits):
            one, key, _ = queues[name][index]
            self.cache.put(key, verdict)
            out[one] = verdict
            if progress:
                progress.update(1, name)
        if progress:
            progress.close()
        return out


def _rounds(
    places: Mapping[T, Sequence[int]],
    judge: Callable[[list[tuple[T, tuple[int, ...]]]], Iterable[bool]],
) -> None:
    """Judges groups of cases: all of a place together, then in parts, then one by one.

    Args:
      places: place -> its cases.
      judge: of each group of a place's cases, whether it is done with.
    """
    groups = [(place, tuple(cases)) for place, cases in places.items() if cases]
    while groups:
        done = judge(groups)
        smaller = []
        for (place, cases), ready in zip(groups, done, strict=True):
            if not ready and len(cases) > 1:
                size = _PARTS if len(cases) > _PARTS else 1
                parts = range(0, len(cases), size)
                smaller += [(place, cases[i : i + size]) for i in parts]
        groups = smaller


def results(
    bench: Bench, problems: Mapping[str, Problem], inputs: Mapping[str, Sequence[Arguments]]
) -> dict[str, dict[int, str | None]]:
    """What the canonical Python solutions return.

    Args:
      bench: to run them.
      problems: number of the task -> Python problem.
      inputs: number of the task -> arguments of its calls.

    Returns:
      Number of the task -> index of the input -> the result as Python writes it; None if the
      solution raises, is slow, or its result is too long.
    """
    out: dict[str, dict[int, str | None]] = {n: {} for n in inputs}

    def judge(groups: list[tuple[str, tuple[int, ...]]]) -> list[bool]:
        verdicts = bench.judge(
            {
                group: ("python", problems[group[0]], python.probe(
                    reading.read(problems[group[0]]).function,
                    [inputs[group[0]][i] for i in group[1]], _MARKS,
                ))
                for group in groups
            },
            "results",
        )  # fmt: skip
        done = []
        for number, cases in groups:
            said = _between(verdicts[number, cases].message)
            if len(said) == len(cases):
                for i, text in zip(cases, said, strict=True):
                    out[number][i] = text if text and len(text) <= _LONGEST else None
            done.append(len(said) == len(cases))
        return done

    _rounds({n: range(len(some)) for n, some in inputs.items()}, judge)
    return out


def _between(message: str) -> list[str | None]:
    begin, end = message.rfind(_MARKS[0]), message.rfind(_MARKS[1])
    if begin == -1 or end < begin:
        return []
    return ast.literal_eval(message[begin + len(_MARKS[0]) : end])


def value(text: str | None) -> tuple[Any] | None:
    """The value of a result, in a tuple; None if it is no plain literal."""
    try:
        found = ast.literal_eval(text or "")
    except (ValueError, SyntaxError):
        return None
    return (found,) if reading.plain(found) else None


@dataclasses.dataclass
class Written:
    """The cases of one task in one language.

    Attributes:
      problem: of that language.
      test: makes the tests of statements.
      statements: index of the case -> its statement.
    """

    problem: Problem
    test: Callable[[Sequence[str]], str]
    statements: dict[int, str]

    def of(self, cases: Iterable[int]) -> str:
        """The tests of those cases."""
        return self.test([self.statements[i] for i in cases])


def agreeing(bench: Bench, written: Mapping[Place, Written]) -> dict[Place, set[int]]:
    """The cases that the canonical solution of each place passes."""
    out: dict[Place, set[int]] = {place: set() for place in written}

    def judge(groups: list[tuple[Place, tuple[int, ...]]]) -> list[bool]:
        verdicts = bench.judge(
            {
                (place, cases): (place[0], written[place].problem, written[place].of(cases))
                for place, cases in groups
            },
            "differential testing",
        )
        done = []
        for place, cases in groups:
            passed = verdicts[place, cases].outcome is Outcome.PASSED
            if passed:
                out[place].update(cases)
            done.append(passed)
        return done

    _rounds({place: list(one.statements) for place, one in written.items()}, judge)
    return out


def confirmed(bench: Bench, tests: Mapping[Place, tuple[Problem, str]]) -> set[Place]:
    """The places whose canonical solution passes its whole new tests."""
    verdicts = bench.judge(
        {place: (place[0], problem, test) for place, (problem, test) in tests.items()}, "confirming"
    )
    return {place for place, verdict in verdicts.items() if verdict.outcome is Outcome.PASSED}
