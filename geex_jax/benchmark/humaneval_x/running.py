"""From flags to samples, and from results to a report."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax.benchmark import languages
from geex_jax.benchmark.humaneval_x import generations, prompts, sources, tasks
from geex_jax.benchmark.judge.cache import VerdictCache
from geex_jax.benchmark.judge.evaluate import Judge, Sample
from geex_jax.benchmark.judge.results import Results
from geex_jax.benchmark.languages.types import Limits, Outcome, Problem
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder

KS = (1, 10, 100)
Problems = Mapping[str, Sequence[Problem]]


def load_problems(names: Sequence[str], args: argparse.Namespace) -> dict[str, list[Any]]:
    """Language -> its problems: targets, and what translations and examples come from."""
    wanted = list(names)
    if args.task == "translation":
        wanted += languages.parse(args.source or "all")
    if args.mixed_shots or args.extended:  # examples, and tests, come from all
        wanted += languages.LANGUAGES
    return {
        name: tasks.load(name, args.data, fixes=args.fixes)
        for name in languages.LANGUAGES
        if name in wanted
    }


def samples(
    args: argparse.Namespace, names: Sequence[str], problems: Problems, output: pathlib.Path
) -> list[Sample]:
    """All samples to judge: read, or drawn from a model into files beside the results.

    Raises:
      GeexError: there are none, or a file is not what it should be.
    """
    options = ("prints-ok",) if args.prints_ok else ()
    out: list[Sample] = []
    if args.canonical:
        for name in names:
            out += [
                Sample(name, p["task_id"], 0, p["canonical_solution"], p, options=options)
                for p in problems[name]
            ]
        return out
    for source, name, path in _files(args, names, problems, output):
        by_id = {p["task_id"]: dict(p) for x in ([name] if name else names) for p in problems[x]}
        read = generations.Generations(
            path, by_id, language=name or (names[0] if len(names) == 1 else None),
            translation=args.task == "translation", form=args.generation_format,
        )  # fmt: skip
        for one in read:
            if args.n is None or one.index < args.n:
                language = tasks.of(one.task_id).name
                problem = one.problem(by_id[one.task_id])
                out.append(
                    Sample(language, one.task_id, one.index, one.code, problem, source, "given",
                           options)
                )  # fmt: skip
        if read.skipped:
            print(f"{path}: {read.skipped:,} rows of languages that --language leaves out")
        if read.replaced:
            print(f"{path}: {read.replaced:,} samples got the data set's prompt, since their own "
                  "is no beginning of a program")  # fmt: skip
    if not out:
        raise GeexError("no sample to judge", "check --language and the files' task ids")
    return _numbered(out)


def _numbered(found: list[Sample]) -> list[Sample]:
    """Counts samples of one task over several files, so that no two have one number."""
    seen: set[tuple[str, str, int]] = set()
    highest: collections.Counter[tuple[str, str]] = collections.Counter()
    out = []
    for sample in found:
        place = sample.source, sample.task_id
        if (*place, sample.number) in seen:
            sample = dataclasses.replace(sample, number=highest[place])
        seen.add((*place, sample.number))
        highest[place] = max(highest[place], sample.number + 1)
        out.append(sample)
    return out


def _files(
    args: argparse.Namespace, names: Sequence[str], problems: Problems, output: pathlib.Path
) -> list[tuple[str, str, pathlib.Path]]:
    """(source language or "", target or "" for several, file of generations)."""
    if args.task == "generation":
        if args.generations:
            return [("", "", pathlib.Path(path)) for path in args.generations]
        return [("", name, _draw(args, name, None, problems, output)) for name in names]
    origins = languages.parse(args.source or "all")
    if args.generations:
        if len(names) != 1 or len(origins) != 1:
            raise GeexError(
                "a file of translations does not say from which language to which",
                "pass one --source and one --language; repeat the command for other pairs, into "
                "the same --output",
            )
        return [(origins[0], names[0], pathlib.Path(path)) for path in args.generations]
    pairs = [(a, b) for a in origins for b in names if a != b]
    if not pairs:
        raise GeexError("no pair of languages", "let --source and --language differ")
    return [(a, b, _draw(args, b, a, problems, output)) for a, b in pairs]


def _draw(
    args: argparse.Namespace, name: str, source: str | None, problems: Problems,
    output: pathlib.Path,
) -> pathlib.Path:  # fmt: skip
    """Draws samples from the model into a file of generations; goes on with one that is there."""
    template = prompts.get(args.prompt or ("translation" if source else "plain"))
    jobs = sources.make_jobs(
        template, {k: [dict(p) for p in v] for k, v in problems.items()}, name, source=source,
        shots=args.shots, mixed=args.mixed_shots, seed=args.seed,
    )  # fmt: skip
    settings = sources.Settings(
        samples=args.n or 200, temperature=args.temperature, top_p=args.top_p,
        max_tokens=args.max_tokens, seed=args.seed,
    )  # fmt: skip
    path = output / f"generations-{f'{source}-to-' if source else ''}{name}.jsonl"
    return sources.collect(
        _model(args), jobs, path, settings, model=args.model or args.checkpoint,
        batch=args.sample_batch, overwrite=args.overwrite,
    )  # fmt: skip


_models: dict[tuple[str, str], Any] = {}


def _model(args: argparse.Namespace) -> Any:
    """The generator that the flags name, made once."""
    key = (args.checkpoint or args.endpoint, args.model or "")
    if key not in _models:
        if args.checkpoint:
            _models[key] = sources.Checkpoint(args.checkpoint)
        else:
            from geex_jax.benchmark.humaneval_x.endpoint import Endpoint

            _models[key] = Endpoint(args.endpoint, args.model)
    return _models[key]


def extended(
    found: Sequence[Sample], problems: Problems, results: Results, pool: Judge, limits: Limits,
    cache: VerdictCache, seed: int,
) -> list[Sample]:  # fmt: skip
    """The samples that passed, with the extended tests of their tasks; those without are left.

    Raises:
      GeexError: see `benchmark.extended.build`.
    """
    from geex_jax.benchmark.extended import build

    made = build(
        {name: [dict(p) for p in some] for name, some in problems.items()}, pool, cache, seed,
        limits=limits, folder=cache_folder() / "extended",
    )  # fmt: skip
    out = []
    for sample in found:
        row = results.rows["given", sample.source, sample.task_id, sample.number]
        problem = made.problem(sample.language, sample.task_id)
        if row["outcome"] == Outcome.PASSED and problem is not None:
            prompt = sample.problem["prompt"]  # it may be the sample's own
            out.append(
                dataclasses.replace(sample, tests="extended", problem={**problem, "prompt": prompt})
            )
    tasks_with = {(s.language, s.task_id) for s in out}
    print(f"{len(out):,} samples passed and are judged by extended tests of {len(tasks_with):,} "
          "tasks")  # fmt: skip
    return out


def annotate(args: argparse.Namespace, results: Results, problems: Problems) -> list[str]:
    """Adds similarity and security findings to the rows. Returns what there is to say about it."""
    rows = [row for row in results.rows.values() if row.get("set", "given") == "given"]
    notes: list[str] = []
    if args.similarity:
        from geex_jax.benchmark import metrics

        solutions, before = {}, {}
        for name in problems:
            for p in problems[name]:
                key = (name, p["task_id"])
                solutions[key] = p["canonical_solution"]
                before[key] = (p["declaration"] if name == "rust" else "") + p["prompt"]
        metrics.add_scores(rows, solutions, before)
    if args.security:
        from geex_jax.benchmark import security

        notes += security.add_findings(rows)
    results.rewrite()
    return notes


def choose_ks(asked: str | None, found: Sequence[Sample]) -> list[int]:
    """The values of k: those asked for, or those of 1, 10, 100 that every task's n allows.

    Raises:
      GeexError: k is no positive number, or a task has fewer samples than it.
    """
    counts = collections.Counter((s.source, s.task_id) for s in found)
    smallest = min(counts.values())
    if asked is None:
        return [k for k in KS if k <= smallest]
    try:
        ks = sorted({int(word) for word in asked.split(",") if word.strip()})
    except ValueError:
        ks = []
    if not ks or ks[0] < 1:
        raise GeexError(f"--k {asked} is not a list of numbers from 1 on", "for example 1,10,100")
    if ks[-1] > smallest:
        (source, task), n = min(counts.items(), key=lambda item: item[1])
        where = f"{task} from {source}" if source else task
        raise GeexError(f"--k {ks[-1]}, but {where} has n = {n}", f"give k up to {smallest}")
    return ks


def report(output: pathlib.Path) -> None:
    """Writes the report beside the results and prints its first tables."""
    from geex_jax.benchmark.report import tables, write_report
    from geex_jax.pages import text_table

    found = write_report(output)
    if found.generation:
        print(text_table(tables.pass_at_k(found)))
    for k in found.ks if found.translation else ():
        print(text_table(tables.translation(found, k)))
    print()
    print(text_table(tables.outcomes(found)))
    print(f"\n{output}/report.html, report.md, results.jsonl")
