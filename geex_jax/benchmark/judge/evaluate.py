"""Samples to rows of results.jsonl."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.judge.cache import JUDGE, VerdictCache
from geex_jax.benchmark.judge.results import Results, Row, identity
from geex_jax.benchmark.languages.types import Limits, Outcome, Problem, Program, Verdict


@dataclasses.dataclass(frozen=True)
class Sample:
    """What a model wrote for a problem.

    Attributes:
      language: name of the target language ("python").
      task_id: of the problem.
      number: of the sample among those of its task.
      code: the completion.
      problem: the row that it is judged by.
      source: language that it was translated from, or "".
      tests: which set of tests: "given" or "extended".
      options: to be added to the program's (see the language).
    """

    language: str
    task_id: str
    number: int
    code: str
    problem: Problem
    source: str = ""
    tests: str = "given"
    options: tuple[str, ...] = ()

    def program(self, language: languages.Language) -> Program:
        """The program that decides."""
        program = language.assemble(self.problem, self.code)
        return dataclasses.replace(program, options=(*program.options, *self.options))

    def row(self, key: str, verdict: Verdict, cached: bool) -> Row:
        """The row of results.jsonl."""
        return {
            "task_id": self.task_id, "language": self.language, "sample": self.number,
            "source": self.source or None, "set": self.tests, "code": self.code, "key": key,
            "cached": cached, **vars(verdict),
        }  # fmt: skip


class Judge(Protocol):
    """What runs the programs: a `Pool`, or a cluster."""

    def judge(
        self, programs: Mapping[str, Sequence[Program]], limits: Limits
    ) -> Iterator[tuple[str, int, Verdict]]:
        """Yields (language, index, verdict), each once."""
        ...


def evaluate(
    samples: Iterable[Sample], results: Results, pool: Judge, limits: Limits,
    cache: VerdictCache | None = None, progress: bool = True,
    again: Callable[[Row], bool] | None = None,
) -> dict[str, str]:  # fmt: skip
    """Judges what has no row yet, each distinct program once.

    Args:
      samples: what to judge.
      results: gets the rows as they come; samples that have one of the same program are left.
      pool: runs the programs.
      limits: for each program.
      cache: verdicts of earlier runs.
      progress: show a progress line.
      again: rows for which it returns True are judged anew, whatever is known.

    Returns:
      Language -> what of its toolchain is missing; its samples got the outcome "not run".
    """
    cache = cache or VerdictCache(None)
    wanted: dict[str, dict[str, list[Sample]]] = collections.defaultdict(dict)
    programs: dict[str, Program] = {}
    tools: dict[str, Any] = {}
    absent: dict[str, str] = {}
    total = done = 0
    for sample in samples:
        total += 1
        if sample.language not in tools:
            language = languages.get(sample.language)
            tools[sample.language] = language, language.toolchain()
        language, toolchain = tools[sample.language]
        program = sample.program(language)
        key = program.key(f"{toolchain.fingerprint}; judge {JUDGE}", limits)
        have = results.rows.get(identity(sample.row(key, Verdict(Outcome.NOT_RUN), False)))
        if have and have["outcome"] != Outcome.NOT_RUN and have["key"] == key and not (
            again and again(have)
        ):  # fmt: skip
            done += 1
            continue
        if toolchain.missing:
            absent[sample.language] = "; ".join(f"{what}: {how}" for what, how in toolchain.missing)
            verdict = Verdict(Outcome.NOT_RUN, absent[sample.language])
            results.add(sample.row(key, verdict, False))
            done += 1
            continue
        known = None if again else cache.get(key)
        if known is not None:
            results.add(sample.row(key, known, True))
            done += 1
            continue
        wanted[sample.language].setdefault(key, []).append(sample)
        programs[key] = program
    _run(wanted, programs, results, pool, limits, cache, files.Progress(
        "judging", total, "samples", start=done) if progress and total else None)  # fmt: skip
    return absent


def _run(
    wanted: Mapping[str, Mapping[str, list[Sample]]], programs: Mapping[str, Program],
    results: Results, pool: Judge, limits: Limits, cache: VerdictCache,
    progress: files.Progress | None,
) -> None:  # fmt: skip
    keys = {name: list(some) for name, some in wanted.items()}
    if keys:
        asked = {name: [programs[key] for key in some] for name, some in keys.items()}
        for name, index, verdict in pool.judge(asked, limits):
            key = keys[name][index]
            cache.put(key, verdict)
            for number, sample in enumerate(wanted[name][key]):
                results.add(sample.row(key, verdict, number > 0))
                if progress:
                    progress.update(1, name)
    if progress:
        progress.close()
