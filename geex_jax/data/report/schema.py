"""`report.json` beside manifest.json: what the pipeline saw, for the report page.

The pipeline fills a `ReportData` and calls `save`. Every field may stay empty: the page leaves
out what is not there. Nothing in it depends on worker counts or on kills; times do not belong
here. Texts are clipped by the writer (`clip`); a secret itself is never in it.

Counts are of documents after the source opened them (files, table rows, members of archives),
bytes of their text or, before decoding, of their raw content.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import types
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError

FORMAT = 1
NAME = "report.json"
MOST_EXAMPLES = 5  # a reason, a kind
MOST_CLUSTERS = 20
MOST_HITS = 200
LONGEST_TEXT = 2_000  # characters of an example


@dataclasses.dataclass
class Example:
    """A document as an example. `path` with surrogate escapes replaced; `text` may be ""."""

    path: str
    language: str = ""
    bytes: int = 0
    text: str = ""
    note: str = ""  # what the stage said: "average line 212.0 of at most 100"


@dataclasses.dataclass
class StageCounts:
    """One step of the funnel, in the order in which it ran; deduplication is one too.

    Attributes:
      name: of the stage ("decode", "language", "filters", "exact", "near", ...).
      seen: documents that reached it. kept: documents that left it.
      seen_bytes, kept_bytes: their sizes; 0 where not counted.
      dropped: reason to documents. `seen - kept` is their sum.
      dropped_bytes: reason to bytes, as far as counted.
      counts: the stage's own counters (`Decision.counts`).
      examples: reason to at most MOST_EXAMPLES of what was dropped.
    """

    name: str
    seen: int = 0
    kept: int = 0
    seen_bytes: int = 0
    kept_bytes: int = 0
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    dropped_bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    examples: dict[str, list[Example]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Cluster:
    """Documents that are copies of one another.

    Attributes:
      kind: "exact" or "near".
      size: documents in it, the kept one included.
      kept: the one that stays. copies: at most MOST_EXAMPLES of the others.
      similarities: estimated Jaccard similarity of each of `copies` with `kept` (near only).
    """

    kind: str
    size: int
    kept: Example
    copies: list[Example] = dataclasses.field(default_factory=list)
    similarities: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Duplicates:
    """Sums over all clusters, sizes ("2", "3", ... to number of clusters), largest clusters."""

    exact_clusters: int = 0
    exact_dropped: int = 0
    near_clusters: int = 0
    near_dropped: int = 0
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    clusters: list[Cluster] = dataclasses.field(default_factory=list)  # at most MOST_CLUSTERS


@dataclasses.dataclass
class Licence:
    """What is kept under one SPDX expression. The key "" in `licences` is "unknown"."""

    files: int = 0
    bytes: int = 0


@dataclasses.dataclass
class Hit:
    """A document that holds text of a benchmark."""

    benchmark: str  # "HumanEval-X", or the name of the file given
    task: str  # "Python/12"
    path: str
    ngrams: int  # distinct ones found
    dropped: bool = True
    text: str = ""  # one of the n-grams


@dataclasses.dataclass
class Contamination:
    """`hits` are at most MOST_HITS; `documents` counts all with a hit that decided."""

    tasks: int = 0  # checked against
    documents: int = 0
    hits: list[Hit] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Lengths:
    """Histograms of kept documents of one language: bin i counts lengths in [2^i, 2^(i+1))."""

    bytes: list[int] = dataclasses.field(default_factory=list)
    tokens: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class SourceCounts:
    """What one source of the recipe gave: documents read, documents in the rows, bytes of both."""

    name: str
    seen: int = 0
    seen_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0


@dataclasses.dataclass
class ReportData:
    """All of report.json.

    Attributes:
      sources: in recipe order.
      passed: reason to number of what sources passed by (`Passed`).
      stages: the funnel, in order.
      duplicates: exact and near copies.
      licences: SPDX expression to files and bytes kept.
      secrets: kind ("email", "private_key") to number replaced.
      contamination: benchmark text found.
      lengths: language name to histograms.
    """

    format: int = FORMAT
    sources: list[SourceCounts] = dataclasses.field(default_factory=list)
    passed: dict[str, int] = dataclasses.field(default_factory=dict)
    stages: list[StageCounts] = dataclasses.field(default_factory=list)
    duplicates: Duplicates | None = None
    licences: dict[str, Licence] = dataclasses.field(default_factory=dict)
    secrets: dict[str, int] | None = None  # None: the stage did not run
    contamination: Contamination | None = None
    lengths: dict[str, Lengths] = dataclasses.field(default_factory=dict)


def clip(text: str) -> str:
    """Returns the beginning of a text as it may stand in an `Example`, valid as JSON."""
    text = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "\n…"
    return text.encode("utf-8", "replace").decode()


def histogram(lengths: Sequence[int] | np.ndarray) -> list[int]:
    """Counts lengths by powers of two: in [1, 2), [2, 4), [4, 8), ...; 0 counts as 1."""
    if not len(lengths):
        return []
    bits = np.frexp(np.maximum(np.asarray(lengths, np.float64), 1))[1] - 1
    return np.bincount(bits).tolist()


def save(data: ReportData, folder: files.Path) -> None:
    """Writes FOLDER/report.json, whole or not at all."""
    files.write_json(pathlib.Path(folder) / NAME, dataclasses.asdict(data))


def load(folder: files.Path) -> ReportData | None:
    """Reads FOLDER/report.json; None if there is none (older data).

    Unknown keys are left out, so that a newer writer does not break an older page.

    Raises:
      GeexError: it is damaged.
    """
    path = pathlib.Path(folder) / NAME
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise GeexError(f"cannot read {path}: {error.strerror}", "check the path") from None
    except ValueError:
        raise _damaged(path) from None
    try:
        return _typed(ReportData, value)
    except TypeError:
        raise _damaged(path) from None


def _damaged(path: pathlib.Path) -> GeexError:
    return GeexError(f"{path} is damaged", "remove it, or run geex prepare --overwrite again")


def _typed(kind: Any, value: Any) -> Any:
    """Returns JSON as the type that an annotation names, without the keys that it does not know.

    Raises:
      TypeError: the value cannot be of that type.
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:  # "X | None"
        return None if value is None else _typed(inside[0], value)
    if origin is list and isinstance(value, list):
        return [_typed(inside[0], x) for x in value]
    if origin is dict and isinstance(value, dict):
        return {str(k): _typed(inside[1], x) for k, x in value.items()}
    if origin is None and dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        known = {k: _typed(hints[k], x) for k, x in value.items() if k in hints}
        return typing.cast(Any, kind)(**known)
    if kind is float and isinstance(value, int):
        return float(value)
    if origin is not None or not isinstance(value, typing.cast(type, kind)):
        raise TypeError(f"{value!r} is no {kind}")
    return value
