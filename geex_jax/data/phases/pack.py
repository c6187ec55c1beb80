"""Phase 3: documents that stayed, in an order drawn by content, to packed shards.

A shard is a range of the order within its split and language. So a shard's documents are known
without sorting all of them: each part's task sorts its own by shard, each shard's task gathers
its slices and sorts those.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from geex_jax import files
from geex_jax.data import pack, shards, splits
from geex_jax.data.dedup import shuffle
from geex_jax.data.encode import Encoder
from geex_jax.data.phases.layout import KEPT, PLACE, DocumentReader, Layout
from geex_jax.data.recipe import Recipe
from geex_jax.data.records import Row
from geex_jax.data.report import schema
from geex_jax.languages import LANGUAGES

BYTES_PER_TOKEN = 3  # of code, about: decides how many shards there are, nothing else
SHARD_TEXT = (8 << 20, 256 << 20)  # bytes of text in a shard: at least and at most
SHARDS = 256  # of a corpus in between


class Group(NamedTuple):
    """A split and language, and the numbers of its shards: first, first + 1, ..."""

    split: str
    language: int
    files: int
    bytes: int
    first: int
    shards: int


class Amounts:
    """Documents and bytes by (split, language), and by licence; added up part after part."""

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.groups = np.zeros((2, len(LANGUAGES), 2), np.int64)
        self.licences: dict[str, list[int]] = {}
        self.sources = np.zeros((len(recipe.sources), 2), np.int64)

    def add(self, index: np.ndarray, fate: np.ndarray, source: int, licences: Sequence[str]):
        """Adds what stays of a part."""
        index = np.asarray(index)[fate == KEPT]
        size = index["bytes"].astype(np.int64)
        times = copies(index, self.recipe, source)
        split = splits.are_validation(index["sha256"], self.recipe.validation_fraction)
        group = split * len(LANGUAGES) + index["language"]
        length = 2 * len(LANGUAGES)
        for column, weights in enumerate((times, size * times)):
            sums = np.bincount(group, weights, minlength=length).astype(np.int64)
            self.groups[:, :, column] += sums.reshape(2, len(LANGUAGES))
        self.sources[source] += (int(np.sum(times > 0)), int(np.sum(size[times > 0])))
        stays = times > 0
        for number, name in enumerate(licences):
            mine = stays & (index["licence"] == number)
            entry = self.licences.setdefault(name, [0, 0])
            entry[0] += int(np.sum(mine))
            entry[1] += int(np.sum(size[mine]))

    def plan(self) -> list[Group]:
        """Returns the groups that have documents, and how many shards each gets."""
        total = int(self.groups[:, :, 1].sum())
        text = min(max(total // SHARDS, SHARD_TEXT[0]), SHARD_TEXT[1])
        if self.recipe.rows_per_shard:
            text = self.recipe.rows_per_shard * (self.recipe.seq_len + 1) * BYTES_PER_TOKEN
        found, first = [], 0
        for split, language in np.ndindex(2, len(LANGUAGES)):
            count, size = map(int, self.groups[split, language])
            if count:
                number = max(1, round(size / text))
                found.append(Group(splits.SPLITS[split], language, count, size, first, number))
                first += number
        return found


def copies(index: np.ndarray, recipe: Recipe, source: int) -> np.ndarray:
    """Returns how often each document is seen: its source's weight, in training only [N].

    The fraction of a weight is drawn by bits of the hash that the split does not look at.
    """
    weight = recipe.sources[source].weight
    if weight == 1.0:
        return np.ones(len(index), np.int64)
    drawn = np.ascontiguousarray(index["sha256"]).view(">u8").reshape(-1, 4)[:, 1]
    part = drawn.astype(np.float64) / float(1 << 64)
    times = int(weight) + (part < weight - int(weight)).astype(np.int64)
    validation = splits.are_validation(index["sha256"], recipe.validation_fraction)
    return np.where(validation, np.minimum(times, 1), times)


class Place:
    """Task: where each document of part N goes. Memory: 100 bytes a document of the part."""

    def __init__(
        self, layout: Layout, recipe: Recipe, groups: Sequence[Group], sources: Sequence[int]
    ):
        self.layout, self.recipe, self.groups = layout, recipe, groups
        self.sources = sources  # of each part

    def __call__(self, number: int) -> dict[str, Any]:
        """Places the documents of part `number`."""
        index = np.asarray(self.layout.index(number))
        fate = np.load(self.layout.fate(number))
        by_group = {(g.split, g.language): g for g in self.groups}
        times = copies(index, self.recipe, self.sources[number])
        rows, shard_of = [], []
        validation = splits.are_validation(index["sha256"], self.recipe.validation_fraction)
        for row in np.flatnonzero((fate == KEPT) & (times > 0)):
            group = by_group[splits.SPLITS[int(validation[row])], int(index["language"][row])]
            sha256 = index["sha256"][row].tobytes()
            for copy in range(int(times[row])):
                key = splits.order_key(sha256, self.recipe.seed, copy)
                rows.append((key, number, row, copy))
                at = int.from_bytes(key[:8], "big") * group.shards >> 64
                shard_of.append(group.first + at)
        last = self.groups[-1]
        shuffle.scatter(
            self.layout.places(number), np.array(rows, PLACE), np.array(shard_of, np.int64),
            last.first + last.shards,
        )  # fmt: skip
        return {"documents": len(rows)}


def gather_places(layout: Layout, parts: int, shard: int) -> np.ndarray:
    """Returns the PLACE records of a shard in order: by key, then part, row and copy."""
    found = shuffle.gather((layout.places(part) for part in range(parts)), shard, PLACE)
    keys = np.ascontiguousarray(found["key"]).view(">u8").reshape(-1, 4)
    order = np.lexsort((found["copy"], found["row"], found["part"], *keys.T[::-1]))
    return found[order]


class Pack:
    """Task: reads the documents of shard N, tokenizes, packs and writes them.

    Memory: 46 bytes a document of the shard, and the window of the packing; texts go by.
    """

    def __init__(
        self, layout: Layout, recipe: Recipe, encoder: Encoder, groups: Sequence[Group], parts: int
    ):
        self.layout, self.recipe, self.encoder = layout, recipe, encoder
        self.groups, self.parts = groups, parts

    def __call__(self, number: int) -> dict[str, Any]:
        """Writes shard `number`."""
        group = next(g for g in self.groups if g.first <= number < g.first + g.shards)
        reader = DocumentReader(self.layout)
        places = gather_places(self.layout, self.parts, number)
        lengths: list[int] = []
        digest = hashlib.sha256()
        sizes = [0, 0]
        counts = pack.Counts()
        seconds = {"tokenize": 0.0}
        began = time.thread_time()
        try:
            texts = self._texts(reader, places, digest, sizes)
            packed = pack.pack(
                self._noted(self.encoder.documents(group.language, texts), lengths, seconds),
                self.recipe.seq_len + 1,
                self.encoder.prefix(group.language),
                self.encoder.tokenizer.pad_id,
                how=self.recipe.packing.replace("-", "_"),
                counts=counts,
            )
            rows = (Row(r.tokens, r.starts, r.used, group.language, r.prompts) for r in packed)
            written = shards.write(self.layout.shard(number), rows, self.encoder.dtype)
            if group.split == splits.VALIDATION:
                self._write_texts(reader, places, number)
        finally:
            reader.close()
        seconds["pack"] = time.thread_time() - began - seconds["tokenize"]
        return {
            "rows": written.rows,
            "tokens": written.tokens,
            "files": sizes[0],
            "bytes": sizes[1],
            "document_tokens": schema.histogram(lengths),
            "whole": counts.whole,
            "contents": digest.hexdigest(),
            "seconds": {name: round(value, 4) for name, value in seconds.items()},
        }

    def _texts(
        self, reader: DocumentReader, places: np.ndarray, digest: Any, sizes: list[int]
    ) -> Iterator[tuple[str | None, str]]:
        for place in places:
            part, row = int(place["part"]), int(place["row"])
            entry = reader.entry(part, row)
            digest.update(entry["sha256"].tobytes())
            sizes[0] += 1
            sizes[1] += int(entry["bytes"])
            stored = reader.read(part, row)
            yield stored.prompt, stored.text

    @staticmethod
    def _noted(
        documents: Iterator[pack.Tokens], lengths: list[int], seconds: dict[str, float]
    ) -> Iterator[pack.Tokens]:
        while True:
            began = time.thread_time()
            document = next(documents, None)
            seconds["tokenize"] += time.thread_time() - began
            if document is None:
                return
            lengths.append(len(document.ids))
            yield document

    def _write_texts(self, reader: DocumentReader, places: np.ndarray, number: int) -> None:
        with files.atomic_write(self.layout.validation(number)) as file:
            for place in places:
                part, row = int(place["part"]), int(place["row"])
                stored = reader.read(part, row)
                line = {"sha256": reader.entry(part, row)["sha256"].tobytes().hex()}
                if stored.prompt is not None:
                    line["prompt"] = stored.prompt
                file.write(json.dumps(line | {"text": stored.text}) + "\n")
