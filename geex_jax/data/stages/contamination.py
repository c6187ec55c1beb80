"""Copies of benchmark tasks in the corpus, by several distinct 13-grams of one task.

One n-gram in common is no copy: idioms of a language and phrases of its documentation are in
tasks as well as in standard libraries, and a rule of one hit would throw the latter away. So a
document goes when it holds `min_hits` different n-grams of one and the same task, not counting
those that several tasks share and those that are mostly numbers.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from geex_jax.data.document import Decision, Document
from geex_jax.data.stages import ngrams
from geex_jax.errors import GeexError

# In HumanEval-X the same task has a row in each language: they are one.
_HUMANEVAL = re.compile(r"(?:Python|CPP|C\+\+|Java|JavaScript|Go|Rust|HumanEval)/(\d+)\Z")
_IDS = ("task_id", "id", "name", "qid", "question_id")
_TABLE_BITS = 21
_TABLE_SHIFT = np.uint64(64 - _TABLE_BITS)
_REAL_WORDS = 6  # that an n-gram must have, see ngrams.with_words


class Task(NamedTuple):
    """A task and the texts whose n-grams are looked for."""

    name: str
    texts: list[str]


class Contamination:
    """Stage: drops documents that hold a task of a benchmark (`contaminated`).

    Counts: `hits` (n-grams), `task NAME` (documents dropped for that task), and `few_hits`
    (documents kept with fewer hits). Facts: `contamination`, {task: hits}, of what is dropped.

    Args:
      benchmarks: JSONL files (plain or .gz) or folders of them; HumanEval-X or any other.
      min_hits: distinct n-grams of one task in a document that make it a copy; of a task with
        fewer than twice as many n-grams, half of them (at least 2).
      max_tasks: n-grams that more tasks share are ignored: they are boilerplate.

    Raises:
      GeexError: a benchmark is missing, is no JSONL, or gives no n-gram.
    """

    name = "contamination"

    def __init__(
        self, benchmarks: Sequence[str | os.PathLike] = (), *, min_hits: int = 3, max_tasks: int = 2
    ):
        if min_hits < 1 or max_tasks < 1:
            raise GeexError("min_hits and max_tasks must be positive", "leave them out")
        self.min_hits, self.max_tasks = min_hits, max_tasks
        digest = hashlib.sha256()
        files = [file for benchmark in benchmarks for file in _files(pathlib.Path(benchmark))]
        for content in sorted(hashlib.sha256(_read(file)).digest() for file in files):
            digest.update(content)
        self.fingerprint = digest.hexdigest()[:16]
        merged: dict[str, list[str]] = collections.defaultdict(list)
        for file in files:
            for task in read_tasks(file):
                merged[task.name] += task.texts
        self._index(merged)
        self._table: np.ndarray | None = None
        if files and not len(self.keys):
            raise GeexError(
                f"the benchmarks {', '.join(map(str, benchmarks))} hold no run of {ngrams.N} words",
                "check the files",
            )

    def _index(self, tasks: dict[str, list[str]]) -> None:
        """Makes the sorted n-grams `keys` [K], and their tasks `owners[ends[k - 1]:ends[k]]`."""
        self.tasks = sorted(tasks)
        pairs = []
        for number, name in enumerate(self.tasks):
            grams = [np.zeros(0, np.uint64)]
            for text in tasks[name]:
                all_grams, real = ngrams.with_words(text.encode("utf-8", "replace"))
                grams.append(all_grams[real >= _REAL_WORDS])
            distinct = np.unique(np.concatenate(grams))
            pairs.append((distinct, np.full(len(distinct), number, np.int32)))
        hashes = np.concatenate([np.zeros(0, np.uint64), *(p[0] for p in pairs)])
        owners = np.concatenate([np.zeros(0, np.int32), *(p[1] for p in pairs)])
        order = np.argsort(hashes, kind="stable")
        hashes, owners = hashes[order], owners[order]
        keys, inverse, counts = np.unique(hashes, return_inverse=True, return_counts=True)
        self.owners = owners[counts[inverse] <= self.max_tasks]
        self.keys = keys[counts <= self.max_tasks]
        self.ends = np.cumsum(counts[counts <= self.max_tasks])
        sizes = np.bincount(self.owners, minlength=len(self.tasks))
        self.needed = np.clip((sizes + 1) // 2, 2, max(2, self.min_hits))
        self.needed = np.minimum(self.needed, self.min_hits)
        # Tasks too short to be found are named, not passed over in silence.
        self.not_covered = [t for t, n in zip(self.tasks, sizes, strict=True) if n < 2]

    def __getstate__(self) -> dict[str, Any]:
        """The table is made anew where the stage arrives: it is larger than what it is made of."""
        return {**self.__dict__, "_table": None}

    def settings(self) -> dict[str, Any]:
        """Returns the limits and a fingerprint of the benchmarks' contents."""
        return {
            "benchmarks": self.fingerprint,
            "min_hits": self.min_hits,
            "max_tasks": self.max_tasks,
        }

    def __call__(self, document: Document) -> Decision:
        """Drops the document if it holds enough of one task."""
        text = document.text if document.prompt is None else f"{document.prompt}\n{document.text}"
        hits = self.hits(text)
        if not hits.any():
            return Decision(True, note="no n-gram of a benchmark")
        found = {self.tasks[i]: int(hits[i]) for i in np.flatnonzero(hits >= self.needed)}
        closest = int(np.argmax(hits))
        note = (
            f"{hits[closest]} n-grams of {self.tasks[closest]}, {self.needed[closest]} make a copy"
        )
        if not found:
            return Decision(True, note=note, counts={"few_hits": 1})
        document.facts["contamination"] = found
        counts = {"hits": sum(found.values()), **{f"task {task}": 1 for task in found}}
        return Decision(False, "contaminated", note, counts)

    def hits(self, text: str) -> np.ndarray:
        """Returns how many distinct n-grams of each task a text holds: int64 [tasks]."""
        if not len(self.keys):
            return np.zeros(len(self.tasks), np.int64)
        grams = ngrams.of_words(ngrams.words(text.encode("utf-8", "replace")))
        if self._table is None:
            self._table = np.zeros(1 << _TABLE_BITS, np.bool_)
            self._table[(self.keys >> _TABLE_SHIFT).astype(np.intp)] = True
        # Most n-grams are not even in the table of the hashes' first bits.
        grams = grams[self._table[(grams >> _TABLE_SHIFT).view(np.int64)]]
        place = np.searchsorted(self.keys, grams)
        place[place == len(self.keys)] = 0
        found = np.unique(place[self.keys[place] == grams])
        if not len(found):
            return np.zeros(len(self.tasks), np.int64)
        starts = self.ends[found - 1] * (found > 0)
        owners = [self.owners[a:b] for a, b in zip(starts, self.ends[found], strict=True)]
        return np.bincount(np.concatenate(owners), minlength=len(self.tasks))


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the JSONL files that a benchmark's path stands for."""
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.name.endswith((".jsonl", ".jsonl.gz")))
        if not found:
            raise GeexError(f"{path} holds no *.jsonl or *.jsonl.gz", "name the benchmark's folder")
        return found
    if not path.is_file():
        raise GeexError(f"benchmark {path} does not exist", "check the path")
    return [path]


def _read(file: pathlib.Path) -> bytes:
    data = file.read_bytes()
    try:
        return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise GeexError(f"benchmark {file} is damaged: {error}", "fetch it again") from None


def read_tasks(file: pathlib.Path) -> Iterator[Task]:
    """Yields the tasks of a JSONL file; rows of HumanEval-X under the number they share.

    Of a row with a prompt and a solution these two, the solution behind its declaration alone,
    and the tests; of any other row all the texts in it.

    Raises:
      GeexError: a line is no JSON object.
    """
    for number, line in enumerate(_read(file).decode("utf-8", "replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise GeexError(f"{file}:{number} is no JSON object", "check the benchmark's file")
        stem = file.name.split(".")[0]
        identity = next((row[k] for k in _IDS if isinstance(row.get(k), str | int)), number)
        match = _HUMANEVAL.match(str(identity))
        name = f"HumanEval/{match[1]}" if match else f"{stem}:{identity}"
        solution = row.get("canonical_solution")
        if isinstance(solution, str) and isinstance(row.get("prompt"), str):
            tests = [row[k] for k in ("test", "example_test") if isinstance(row.get(k), str)]
            declared = f"{row.get('declaration', '')}\n{solution}"
            yield Task(name, [f"{row['prompt']}\n{solution}", declared, *tests])
        else:
            yield Task(name, list(_strings(v for k, v in row.items() if k not in _IDS)))


def _strings(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from _strings(value.values())
        elif isinstance(value, list):
            yield "\n".join(v for v in value if isinstance(v, str))
            yield from _strings(v for v in value if not isinstance(v, str))
