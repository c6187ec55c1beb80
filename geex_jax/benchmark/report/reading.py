"""results.jsonl and run.json, read into columns: a million rows fit in memory."""

from __future__ import annotations

import array
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geex_jax import languages
from geex_jax.benchmark.languages.types import Outcome
from geex_jax.errors import GeexError, did_you_mean
from geex_jax.files import Path

OUTCOMES = tuple(Outcome)
NUMBER = {outcome.value: at for at, outcome in enumerate(OUTCOMES)}
PASSED, NOT_RUN = NUMBER["passed"], NUMBER["not run"]
HUMANEVAL_X = "HumanEval-X"
ORDER = ("python", "cpp", "java", "javascript", "go", "rust")  # the benchmark's; others follow

# Column -> type code of `array`.
COLUMNS = {
    "group": "i", "task": "i", "sample": "q", "outcome": "b", "cached": "b",
    "cpu_seconds": "d", "compile_seconds": "d", "memory_bytes": "d", "bleu": "d", "codebleu": "d",
    "key": "q", "offset": "q",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Group:
    """Samples that are counted together.

    Attributes:
      set: which tests judged them: "given", "extended".
      source: language translated from; "" for generation.
      language: of the programs.
    """

    set: str
    source: str
    language: str

    @property
    def order(self) -> tuple[Any, ...]:
        """Sorts as the benchmark lists its languages."""
        return (self.set != "given", self.set, place(self.source), place(self.language))

    @property
    def target_order(self) -> tuple[Any, ...]:
        """Sorts by the language of the programs first."""
        return (place(self.language), place(self.source))

    @property
    def title(self) -> str:
        """ "Python", or "Java → Python"."""
        target = title(self.language)
        return f"{title(self.source)} → {target}" if self.source else target


@functools.cache
def title(language: str) -> str:
    """The name for people: C++ for "cpp"; a language the library does not know stays as it is."""
    try:
        return languages.get(language).name
    except GeexError:
        return language


def place(language: str) -> tuple[int, str]:
    """Sorts languages as the benchmark lists them, others behind."""
    return (ORDER.index(language) if language in ORDER else len(ORDER), language)


@dataclasses.dataclass
class Results:
    """Rows of results.jsonl as columns.

    Attributes:
      path: of the file. run: run.json, {} if there is none.
      groups: what column "group" counts through. tasks: what column "task" counts through.
      columns: name -> one value per row; NaN where a row has no "bleu" or "codebleu".
      findings: row -> its "findings", where it has some.
      reasons: group -> message of a row of it that was not run.
      notes: what a reader of the report should know about the file.
    """

    path: pathlib.Path
    run: dict[str, Any]
    groups: list[Group]
    tasks: list[str]
    columns: dict[str, NDArray[Any]]
    findings: dict[int, list[dict[str, Any]]]
    reasons: dict[int, str]
    notes: list[str]

    def __len__(self) -> int:
        return self.columns["group"].size

    def rows(self, chosen: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The whole rows again, from the file."""
        with open(self.path, "rb") as file:
            for row in chosen:
                file.seek(int(self.columns["offset"][row]))
                yield json.loads(file.readline())


def read_results(folder: Path) -> Results:
    """Reads what the runner wrote into a folder.

    A row that comes again (same tests, source, language, task and sample) replaces the earlier
    one: that is how a recheck is written. A last line that a kill cut off is left out.

    Raises:
      GeexError: no such file, an empty one, or a line that is not a result; it is named.
    """
    path = pathlib.Path(folder) / "results.jsonl"
    run = _read_run(path.with_name("run.json"))
    reader = _Reader(path)
    try:
        with open(path, "rb") as file:
            offset = 0
            for number, line in enumerate(file, 1):
                reader.take(line, number, offset)
                offset += len(line)
    except OSError as error:
        raise GeexError(
            f"cannot read {path} ({error.strerror})", "give a folder that a benchmark wrote to"
        ) from None
    return reader.results(run)


class _Reader:
    def __init__(self, path: pathlib.Path):
        self.path = path
        self.columns = {name: array.array(code) for name, code in COLUMNS.items()}
        self.at: dict[tuple[int, int, int], int] = {}  # (group, task, sample) -> row
        self.groups: dict[tuple[str, str, str], int] = {}
        self.tasks: dict[str, int] = {}
        self.findings: dict[int, list[dict[str, Any]]] = {}
        self.reasons: dict[int, str] = {}
        self.again = 0
        self.cut = False

    def take(self, line: bytes, number: int, offset: int) -> None:
        if not line.strip():
            return
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            if not line.endswith(b"\n"):
                self.cut = True
                return
            raise GeexError(
                f"{self.path} line {number} is not JSON", "delete that line and run again"
            ) from None
        try:
            self._add(row, offset)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = error.args[0] if isinstance(error, KeyError) else "a value of the wrong kind"
            raise GeexError(
                f"{self.path} line {number} is no result of a sample ({what})",
                "each line needs task_id, language, sample and outcome",
            ) from None

    def _add(self, row: dict[str, Any], offset: int) -> None:
        task, sample, outcome = row["task_id"], row["sample"], row["outcome"]
        names = (row.get("set") or "given", row.get("source") or "", row["language"])
        if not all(isinstance(x, str) for x in (task, outcome, *names)) or type(sample) is not int:
            raise TypeError
        if outcome not in NUMBER:
            raise GeexError(f"{self.path}: outcome {outcome!r}", did_you_mean(outcome, NUMBER))
        group = self.groups.setdefault(names, len(self.groups))
        task = self.tasks.setdefault(task, len(self.tasks))
        values = {
            "group": group, "task": task, "sample": sample, "outcome": NUMBER[outcome],
            "cached": bool(row.get("cached")), "key": hash(row.get("key") or offset),
            "offset": offset,
            "bleu": _number(row.get("bleu"), math.nan),
            "codebleu": _number(row.get("codebleu"), math.nan),
        }  # fmt: skip
        for name in ("cpu_seconds", "compile_seconds", "memory_bytes"):
            values[name] = _number(row.get(name), 0.0)
        where = self.at.setdefault((group, task, sample), len(self.at))
        self.again += where < len(self.columns["offset"])
        for name, column in self.columns.items():
            if where < len(column):
                column[where] = values[name]
            else:
                column.append(values[name])
        self.findings.pop(where, None)
        if row.get("findings"):
            self.findings[where] = [dict(x) for x in row["findings"]]
        if outcome == Outcome.NOT_RUN and row.get("message"):
            self.reasons[group] = str(row["message"])

    def results(self, run: dict[str, Any]) -> Results:
        notes = []
        if self.cut:
            notes.append(
                "The last line of results.jsonl was cut off, as by a kill; it is not counted. "
                "Run again with the same --output to complete it."
            )
        if self.again:
            notes.append(f"{self.again:,} samples were judged again; their last verdict counts.")
        if not self.at:
            raise GeexError(
                f"{self.path} has no results", "run the benchmark again with the same --output"
            )
        kinds = {"i": np.int32, "b": np.int8, "q": np.int64, "d": np.float64}
        columns = {
            name: np.frombuffer(column, dtype=kinds[COLUMNS[name]])
            for name, column in self.columns.items()
        }
        groups = [Group(*names) for names in self.groups]
        return Results(
            self.path, run, groups, list(self.tasks), columns, self.findings, self.reasons, notes
        )


def _number(value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value) if math.isfinite(value) else default


def _read_run(path: pathlib.Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError):
        run = None
    if not isinstance(run, dict):
        raise GeexError(f"{path} is not a JSON object", "delete it; the report goes without it")
    return run


def benchmark(run: dict[str, Any]) -> str:
    """Name of the benchmark: HumanEval-X if run.json does not say another one."""
    return str(run.get("benchmark") or HUMANEVAL_X)


def asked(run: dict[str, Any]) -> list[str]:
    """Languages that the run was to judge, as far as run.json says."""
    names = run.get("languages")
    return [x for x in names if isinstance(x, str)] if isinstance(names, list) else []


def ks(run: dict[str, Any]) -> tuple[int, ...]:
    """The k of pass@k that the run was asked for; 1, 10 and 100 if it does not say.

    Raises:
      GeexError: not whole numbers from 1.
    """
    wanted = run.get("k") or [1, 10, 100]
    wanted = wanted if isinstance(wanted, list) else [wanted]
    if not all(type(k) is int and k >= 1 for k in wanted):
        raise GeexError(f"run.json asks for pass@{wanted}", "k is a list of whole numbers from 1")
    return tuple(sorted(set(wanted)))
