"""Phase 1: a part of a source, through all stages, to documents on disk."""

from __future__ import annotations

import collections
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from geex_jax.data.dedup import minhash
from geex_jax.data.dedup.shuffle import save
from geex_jax.data.document import Decision, Document, Passed, Source, Stage
from geex_jax.data.phases.layout import DocumentWriter, Layout
from geex_jax.data.recipe import Dedup

EXAMPLES = 2  # of what is dropped, for each reason in a part
EXAMPLE_TEXT = 400  # characters of one
HITS = 20  # with benchmarks, listed for each part
BATCH_SHINGLES = 1 << 20  # signed at a time


class Reader:
    """The task of the phase: reads part N, writes its documents, returns counts.

    Memory: a document, 8 MB of shingles, and 60 + 4 x permutations bytes for each document of
    the part.
    """

    def __init__(
        self, layout: Layout, sources: Sequence[Source], stages: Sequence[Stage], dedup: Dedup
    ):
        self.layout, self.sources, self.stages, self.dedup = layout, sources, stages, dedup

    def __call__(self, number: int) -> dict[str, Any]:
        """Reads part `number`."""
        part = self.layout.part(number)
        counts = Counts(self.stages)
        writer = DocumentWriter(self.layout.documents(number))
        signer = Signer(self.dedup)
        began = time.thread_time()
        licences: dict[str, int] = {}
        try:
            for item in self.sources[part.source].read(part):
                if isinstance(item, Passed):
                    counts.passed(item)
                    continue
                counts.seconds["read"] += time.thread_time() - began
                if counts.judge(item):
                    began = time.thread_time()
                    text = item.text.encode()
                    sha256, size = content_hash(text, item.prompt)
                    licence = licences.setdefault(item.licence, len(licences))
                    signed = signer.add(item)
                    writer.add(item, sha256, size, licence, signed)
                    counts.kept(size)
                    counts.seconds["store"] += time.thread_time() - began
                began = time.thread_time()
            if self.dedup.near:
                path = self.layout.documents(number).with_suffix(".signatures.npy")
                save(path, signer.matrix())
            writer.close()
        except BaseException as error:
            writer.abort(error)
            raise
        return counts.result() | {"source": part.source, "licences": list(licences)}


def content_hash(text: bytes, prompt: str | None) -> tuple[bytes, int]:
    """Returns what makes a document the same as another, and its bytes of text."""
    if prompt is None:
        return hashlib.sha256(text).digest(), len(text)
    head = prompt.encode("utf-8", "replace")
    return hashlib.sha256(head + b"\0" + text).digest(), len(head) + len(text)


class Signer:
    """Collects shingles and signs them in batches."""

    def __init__(self, dedup: Dedup):
        self.dedup = dedup
        self._waiting: list[np.ndarray] = []
        self._size = 0
        self._done: list[np.ndarray] = [np.zeros((0, dedup.permutations), np.uint32)]

    def add(self, document: Document) -> bool:
        """Takes the next document; tells whether it has enough words to be compared."""
        if not self.dedup.near:
            return False
        text = document.text if document.prompt is None else f"{document.prompt}\n{document.text}"
        found = minhash.shingles(text, self.dedup.shingle)
        signed = len(found) >= self.dedup.least_shingles
        self._waiting.append(found if signed else found[:0])
        self._size += len(found)
        if self._size >= BATCH_SHINGLES:
            self._flush()
        return signed

    def _flush(self) -> None:
        self._done.append(minhash.signatures(self._waiting, self.dedup.permutations))
        self._waiting, self._size = [], 0

    def matrix(self) -> np.ndarray:
        """Returns the signatures of all documents so far [documents, permutations]."""
        if self._waiting:
            self._flush()
        return np.concatenate(self._done)


class Counts:
    """What became of the documents of a part, stage by stage."""

    def __init__(self, stages: Sequence[Stage]):
        self.stages = stages
        names = [stage.name for stage in stages]
        # Examples of what is dropped before this stage show no text: it may hold secrets.
        self._first_shown = names.index("secrets") if "secrets" in names else 0
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._passed: dict[str, list[int]] = {}
        self._seen = [0, 0]
        self._kept = [0, 0]
        self._hits: list[list[Any]] = []  # task, n-grams, path, whether dropped
        self._of = {
            stage.name: {"seen": [0, 0], "dropped": {}, "counts": {}, "examples": {}}
            for stage in stages
        }

    def passed(self, item: Passed) -> None:
        """Counts what a source did not read."""
        entry = self._passed.setdefault(item.reason, [0, 0])
        entry[0] += item.count
        entry[1] += item.bytes

    def kept(self, size: int) -> None:
        """Counts a document that all stages kept."""
        self._kept[0] += 1
        self._kept[1] += size

    def judge(self, document: Document) -> bool:
        """Sends a document through the stages until one drops it."""
        size = len(document.data) or len(document.text)
        self._seen[0] += 1
        self._seen[1] += size
        for position, stage in enumerate(self.stages):
            mine = self._of[stage.name]
            mine["seen"][0] += 1
            mine["seen"][1] += size
            began = time.thread_time()
            decision = decide(stage, document)
            self.seconds[stage.name] += time.thread_time() - began
            for name, count in (decision.counts or {}).items():
                mine["counts"][name] = mine["counts"].get(name, 0) + count
            if not decision.keep:
                shown = document.text if position >= self._first_shown else ""
                self._drop(mine, document, size, decision, shown)
                break
            size = len(document.text) or size
        else:
            self._note_hits(document, False)
            return True
        self._note_hits(document, True)
        return False

    def _drop(
        self, mine: dict[str, Any], document: Document, size: int, decision: Decision, text: str
    ) -> None:
        reasons = mine["dropped"].setdefault(str(document.language), {})
        entry = reasons.setdefault(decision.reason, [0, 0])
        entry[0] += 1
        entry[1] += size
        examples = mine["examples"].setdefault(decision.reason, [])
        if len(examples) < EXAMPLES:
            examples.append(
                [document.path, document.language, size, decision.note, text[:EXAMPLE_TEXT]]
            )

    def _note_hits(self, document: Document, dropped: bool) -> None:
        for task, ngrams in document.facts.get("contamination", {}).items():
            if len(self._hits) < HITS:
                self._hits.append([task, ngrams, document.path, dropped])

    def result(self) -> dict[str, Any]:
        """Returns everything as JSON values."""
        return {
            "seen": self._seen,
            "kept": self._kept,
            "passed": self._passed,
            "stages": self._of,
            "hits": self._hits,
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
        }


def decide(stage: Stage, document: Document) -> Decision:
    """Asks a stage. A stage that fails on a document costs the document, not the run."""
    try:
        document.text.encode()
        decision = stage(document)
        if decision.keep:
            document.text.encode()
        return decision
    except UnicodeEncodeError:  # half a surrogate pair in a table's JSON
        return Decision(False, "broken_utf8", "the text has half a surrogate pair")
    except (MemoryError, OSError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        return Decision(False, "stage_failed", f"{type(error).__name__}: {why}")
