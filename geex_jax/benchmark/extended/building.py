"""From problems to an extended test set."""

from __future__ import annotations

import collections
import dataclasses
import gzip
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.extended import agreement, mutation, reading
from geex_jax.benchmark.extended.agreement import Bench, Place, Written
from geex_jax.benchmark.extended.render import RENDERERS, Case, NotRenderable, renderer
from geex_jax.benchmark.judge.cache import VerdictCache
from geex_jax.benchmark.judge.evaluate import Judge
from geex_jax.benchmark.languages.types import Limits, Problem
from geex_jax.errors import GeexError

VERSION = "1"  # raise it when other tests come out
AGREE = 4  # languages whose canonical solutions have to agree, Python's among them
Problems = Mapping[str, Sequence[Problem]]


@dataclasses.dataclass
class Extended:
    """Problems with tests on new inputs.

    Attributes:
      rows: language -> task id -> the problem, its `test` replaced.
      summary: what was kept and what was dropped, and why; for reports.
    """

    rows: dict[str, dict[str, Problem]]
    summary: dict[str, Any]

    def problem(self, language: str, task_id: str) -> Problem | None:
        """The problem with its extended test, or None if it has none in that language."""
        return self.rows.get(language, {}).get(task_id)

    def write(self, folder: files.Path) -> None:
        """Writes humaneval_{language}_extended.jsonl.gz and summary.json, which comes last."""
        for name, rows in self.rows.items():
            with files.atomic_write(path_of(folder, name), "wb") as file:
                text = "".join(json.dumps(dict(row)) + "\n" for row in rows.values())
                file.write(gzip.compress(text.encode(), mtime=0))
        files.write_json(pathlib.Path(folder) / "summary.json", self.summary)

    @classmethod
    def read(cls, folder: files.Path) -> Extended:
        """Reads what `write` wrote.

        Raises:
          GeexError: it is not there, or broken.
        """
        try:
            summary = json.loads((pathlib.Path(folder) / "summary.json").read_text("utf-8"))
            rows: dict[str, dict[str, Problem]] = {}
            for name in summary["languages"]:
                with gzip.open(path_of(folder, name), "rt", encoding="utf-8") as file:
                    rows[name] = {row["task_id"]: row for row in map(json.loads, file)}
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise GeexError(
                f"no whole extended test set in {folder} ({type(error).__name__})", "delete it"
            ) from None
        return cls(rows, summary)


def path_of(folder: files.Path, language: str) -> pathlib.Path:
    """Where the rows of a language stand."""
    return pathlib.Path(folder) / f"humaneval_{languages.get(language).data}_extended.jsonl.gz"


def build(
    problems: Problems, pool: Judge, cache: VerdictCache | None, seed: int, *,
    limits: Limits | None = None, folder: files.Path | None = None,
    count: int = mutation.COUNT, progress: bool = True,
) -> Extended:  # fmt: skip
    """Makes the extended tests, or reads those made before.

    New inputs are mutated from those of the Python tests. What the canonical Python solution
    returns has to be what those of at least AGREE languages return: where fewer languages are
    there or installed, all of them. A language's tests have the cases that its own canonical
    solution passes. Canonical solutions run in the sandbox, never here.

    Args:
      problems: language -> its problems; Python must be among them, all others help.
      pool: runs the canonical solutions.
      cache: verdicts of earlier runs; what was cut off goes on from there.
      seed: same seed, same inputs.
      limits: what samples will get.
      folder: keeps the set, in a folder of its own for each seed, data and toolchains.
      count: new inputs of a task.
      progress: show progress lines.

    Raises:
      GeexError: no Python problems, or no Python to run them.
    """
    limits = limits or Limits()
    installed = [n for n in problems if n in RENDERERS and not languages.get(n).toolchain().missing]
    if "python" not in installed:
        raise GeexError(
            "extended tests start from the Python problems, which are not here or cannot run",
            "bring humaneval_python.jsonl.gz, and install numpy",
        )
    key = _key(problems, installed, seed, count, limits)
    kept = pathlib.Path(folder) / f"extended-{key}" if folder is not None else None
    if kept is not None and (kept / "summary.json").is_file():
        return Extended.read(kept)
    bench = Bench(pool, cache, limits, progress)
    extended = _Builder(problems, installed, bench, seed, count).build()
    extended.summary |= {"seed": seed, "key": key, "version": VERSION}
    if kept is not None:
        extended.write(kept)
    return extended


def _key(
    problems: Problems, installed: Sequence[str], seed: int, count: int, limits: Limits
) -> str:
    tools = {name: languages.get(name).toolchain().fingerprint for name in installed}
    data = {name: [dict(p) for p in problems[name]] for name in installed}
    return files.fingerprint(
        VERSION, f"{seed} {count} {limits}", json.dumps([tools, data], sort_keys=True)
    )


class _Builder:
    """One build: its tables go from step to step."""

    def __init__(
        self, problems: Problems, installed: Sequence[str], bench: Bench, seed: int, count: int
    ):
        self.names, self.bench, self.seed, self.count = list(installed), bench, seed, count
        self.needed = min(AGREE, len(installed))
        self.problems: dict[Place, Problem] = {
            (name, _number(p)): p for name in installed for p in problems[name]
        }
        self.dropped: collections.Counter[str] = collections.Counter()
        self.left_out: dict[str, list[str]] = collections.defaultdict(list)
        self.unwritten: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )

    def build(self) -> Extended:
        cases = self._cases()
        written = self._write(cases)
        agree = agreement.agreeing(self.bench, written)
        good = self._good(cases, agree)
        tests = {
            place: (one.problem, one.of(some))
            for place, one in written.items()
            if (some := sorted(agree[place] & good[place[1]]))
        }
        final = agreement.confirmed(self.bench, tests)
        rows: dict[str, dict[str, Problem]] = {name: {} for name in self.names}
        for place, (problem, test) in tests.items():
            if place in final:
                rows[place[0]][problem["task_id"]] = {**problem, "test": test}
        counts = {place: len(agree[place] & good[place[1]]) for place in final}
        return Extended(rows, self._summary(cases, written, agree, good, counts))

    def _cases(self) -> dict[str, dict[int, Case]]:
        """Number of the task -> index -> new inputs and what Python returns for them."""
        inputs: dict[str, list[reading.Arguments]] = {}
        own = {n: p for (name, n), p in self.problems.items() if name == "python"}
        for number, problem in own.items():
            try:
                given = reading.read(problem)
            except reading.NotReadable as error:
                self.left_out[str(error)].append(number)
                continue
            inputs[number] = mutation.mutate(given, self.seed, number, self.count)
            if not inputs[number]:
                self.left_out["no new inputs were found"].append(number)
        out: dict[str, dict[int, Case]] = {}
        for number, found in agreement.results(self.bench, own, inputs).items():
            out[number] = {}
            for index, arguments in enumerate(inputs[number]):
                value = agreement.value(found.get(index))
                if value is None:
                    self.dropped["Python's solution raises, is slow, or returns no literal"] += 1
                else:
                    out[number][index] = Case(arguments, value[0])
        return out

    def _write(self, cases: Mapping[str, Mapping[int, Case]]) -> dict[Place, Written]:
        out: dict[Place, Written] = {}
        for place, problem in self.problems.items():
            name, number = place
            some = cases.get(number, {})
            if not some:
                continue
            try:
                writer = renderer(name, problem)
            except NotRenderable as error:
                self.unwritten[name][str(error)] += len(some)
                continue
            statements = {}
            for index, case in some.items():
                try:
                    statements[index] = writer.case(case)
                except NotRenderable as error:
                    self.unwritten[name][str(error)] += 1
            if statements:
                out[place] = Written(problem, writer.test, statements)
        return out

    def _good(
        self, cases: Mapping[str, Mapping[int, Case]], agree: Mapping[Place, set[int]]
    ) -> dict[str, set[int]]:
        """Number of the task -> cases on which enough languages agree, Python among them."""
        votes: collections.Counter[tuple[str, int]] = collections.Counter(
            (place[1], index) for place, some in agree.items() for index in some
        )
        good = {}
        for number, some in cases.items():
            own = agree.get(("python", number), set())
            good[number] = {i for i in some if i in own and votes[number, i] >= self.needed}
            self.dropped[f"fewer than {self.needed} languages agree"] += len(some) - len(
                good[number]
            )
            if some and not good[number]:
                self.left_out["no case on which enough languages agree"].append(number)
        return good

    def _summary(
        self, cases: Mapping[str, Mapping[int, Case]], written: Mapping[Place, Written],
        agree: Mapping[Place, set[int]], good: Mapping[str, set[int]],
        counts: Mapping[Place, int],
    ) -> dict[str, Any]:  # fmt: skip
        by_language = {}
        for name in self.names:
            mine = {place: one for place, one in written.items() if place[0] == name}
            differ = {
                place[1]: sorted(set(one.statements) & good[place[1]] - agree[place])
                for place, one in mine.items()
            }
            by_language[name] = {
                "tasks": sum(place[0] == name for place in counts),
                "cases": sum(n for place, n in counts.items() if place[0] == name),
                "not writable": dict(self.unwritten[name].most_common()),
                "kept by others, its own solution differs": sum(map(len, differ.values())),
                "tasks where it differs": sorted((n for n, x in differ.items() if x), key=_order),
            }
        return {
            "languages": self.names,
            "languages that must agree": self.needed,
            "tasks": sum(name == "python" for name, _ in self.problems),
            "tasks kept": sum(bool(x) for x in good.values()),
            "tasks left out": {
                why: sorted(some, key=_order) for why, some in self.left_out.items()
            },
            "cases made": sum(map(len, cases.values()))
            + self.dropped["Python's solution raises, is slow, or returns no literal"],
            "cases kept": sum(map(len, good.values())),
            "cases dropped": dict(self.dropped.most_common()),
            "by language": by_language,
        }  # fmt: skip


def _number(problem: Problem) -> str:
    return problem["task_id"].partition("/")[2]


def _order(number: str) -> tuple[int, str]:
    return (int(number) if number.isdigit() else -1, number)
