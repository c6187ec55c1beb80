"""Phase 2: copies among all documents, by two tasks over files and a union in the driver."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from geex_jax.data.dedup import clusters, minhash, shuffle
from geex_jax.data.dedup.clusters import EDGE, RECORD
from geex_jax.data.phases.layout import EXACT, KEPT, NEAR, Layout, bases
from geex_jax.data.recipe import Dedup

BUCKET_BYTES = 64 << 20
_EXACT_KEY = np.uint64(0xA5A5A5A5A5A5A5A5)
_ROW = np.uint64(0xFFFFFFFF)
DUPLICATE = np.dtype([("sha256", "V32"), ("fate", "u1")])
_MAPPED = 64  # parts whose index and signatures are mapped at a time


def bucket_count(documents: int, settings: Dedup) -> int:
    """Returns how many buckets keep each at about BUCKET_BYTES of records."""
    keys = (minhash.bands(settings)[0] if settings.near else 0) + settings.exact
    return max(1, -(-documents * keys * RECORD.itemsize // BUCKET_BYTES))


class Scatter:
    """Task: the band keys of part N, and a key of each content, sorted by bucket.

    Memory: 16 bytes x (bands + 1) for each document of the part, twice.
    """

    def __init__(self, layout: Layout, settings: Dedup, buckets: int):
        self.layout, self.settings, self.buckets = layout, settings, buckets

    def __call__(self, number: int) -> dict[str, Any]:
        """Scatters part `number`."""
        index = self.layout.index(number)
        documents = (np.uint64(number) << np.uint64(32)) | np.arange(len(index), dtype=np.uint64)
        keys, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        if self.settings.exact:
            head = np.ascontiguousarray(index["sha256"]).view(np.uint64).reshape(-1, 4)[:, 0]
            keys.append(minhash.mix(head ^ _EXACT_KEY))
            owners.append(documents)
        if self.settings.near and len(index):
            signed = np.flatnonzero(index["signed"])
            signatures = np.asarray(self.layout.signatures(number))[signed]
            found = minhash.band_keys(signatures, *minhash.bands(self.settings))
            keys.append(found.reshape(-1))
            owners.append(np.repeat(documents[signed], found.shape[1]))
        records = np.zeros(sum(map(len, keys)), RECORD)
        records["key"], records["document"] = np.concatenate(keys), np.concatenate(owners)
        buckets = (records["key"] % np.uint64(self.buckets)).astype(np.int64)
        shuffle.scatter(self.layout.bands(number), records, buckets, self.buckets)
        return {"records": len(records)}


class Gather:
    """Task: the copies that meet in bucket N, as edges.

    Memory: the bucket (about BUCKET_BYTES, thrice while it is sorted) and the signatures of its
    largest group.
    """

    def __init__(self, layout: Layout, settings: Dedup, parts: int):
        self.layout, self.settings, self.parts = layout, settings, parts

    def __call__(self, number: int) -> dict[str, Any]:
        """Compares what is in bucket `number`."""
        paths = (self.layout.bands(part) for part in range(self.parts))
        records = shuffle.gather(paths, number, RECORD)
        contents = Contents(self.layout, self.settings)
        found: list[np.ndarray] = [np.zeros(0, EDGE)]
        if len(records):
            for group in clusters.groups(records):
                some = clusters.edges(group, contents, self.settings.near, self.settings.exact)
                if some:
                    found.append(np.array(some, EDGE))
        edges = np.unique(np.concatenate(found))
        shuffle.save(self.layout.edges(number), edges)
        return {"edges": len(edges)}


class Contents:
    """Hashes and signatures of documents anywhere, by mapped files."""

    def __init__(self, layout: Layout, settings: Dedup):
        self.layout, self.settings = layout, settings
        self._mapped: collections.OrderedDict[int, tuple[np.ndarray, np.ndarray | None]] = (
            collections.OrderedDict()
        )

    def _part(self, part: int) -> tuple[np.ndarray, np.ndarray | None]:
        if part not in self._mapped:
            if len(self._mapped) >= _MAPPED:
                self._mapped.popitem(last=False)
            signatures = self.layout.signatures(part) if self.settings.near else None
            self._mapped[part] = self.layout.index(part), signatures
        return self._mapped[part]

    def __call__(self, documents: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns SHA-256 [N], signatures [N, P], and whether each has one [N]."""
        count, width = len(documents), self.settings.permutations if self.settings.near else 0
        sha256, signed = np.zeros(count, "V32"), np.zeros(count, bool)
        signatures = np.zeros((count, width), np.uint32)
        parts = (documents >> np.uint64(32)).astype(np.int64)
        rows = (documents & _ROW).astype(np.int64)
        for part in np.unique(parts):
            mine = parts == part
            index, matrix = self._part(int(part))
            some = index[rows[mine]]
            sha256[mine], signed[mine] = some["sha256"], some["signed"]
            if matrix is not None:
                signatures[mine] = matrix[rows[mine]]
        return sha256, signatures, signed


class Cluster(NamedTuple):
    """A cluster, as numbers: documents as (part, row), similarities of copies with the first."""

    exact: bool
    size: int
    first: tuple[int, int]
    copies: list[tuple[int, int]]


class Resolved(NamedTuple):
    """What deduplication found.

    Attributes:
      dropped: documents dropped as EXACT, as NEAR.
      clusters: number of clusters of exact copies only, and of those with a near-copy.
      sizes: size of a cluster to number of clusters.
      largest: the largest clusters, with some of their copies.
    """

    dropped: tuple[int, int]
    clusters: tuple[int, int]
    sizes: dict[int, int]
    largest: list[Cluster]


def resolve(
    layout: Layout, counts: Sequence[int], buckets: int, most_clusters: int, most_copies: int
) -> Resolved:
    """Joins all edges, writes every part's fate. Memory: 17 bytes a document of the corpus.

    Args:
      layout: the work folder.
      counts: documents of each part.
      buckets: how many there are; 0 if nothing was compared.
      most_clusters: how many of the largest are returned.
      most_copies: how many copies of each.
    """
    base = bases(counts)
    total = int(base[-1])

    def dense(documents: np.ndarray) -> np.ndarray:
        parts = (documents >> np.uint64(32)).astype(np.int64)
        return base[parts] + (documents & _ROW).astype(np.int64)

    paths = [layout.edges(bucket) for bucket in range(buckets)]
    label = clusters.connect(paths, dense, total)
    fate = np.where(label == np.arange(total), KEPT, NEAR).astype(np.uint8)
    for path in paths:
        some = np.load(path, mmap_mode="r")
        fate[dense(some["document"][some["exact"] == 1])] = EXACT
    for part in range(len(counts)):
        shuffle.save(layout.fate(part), fate[base[part] : base[part + 1]])
    roots, sizes = np.unique(label[fate != KEPT], return_counts=True)
    with_near = np.isin(roots, np.unique(label[fate == NEAR]))

    def place(document: int) -> tuple[int, int]:
        part = int(np.searchsorted(base, document, side="right")) - 1
        return part, int(document - base[part])

    largest = []
    for at in np.lexsort((roots, -sizes))[:most_clusters]:
        root = int(roots[at])
        copies = np.flatnonzero((label == root) & (fate != KEPT))[:most_copies]
        first, size = place(root), int(sizes[at]) + 1
        largest.append(Cluster(not with_near[at], size, first, [place(int(c)) for c in copies]))
    histogram = collections.Counter((sizes + 1).tolist())
    return Resolved(
        (int(np.sum(fate == EXACT)), int(np.sum(fate == NEAR))),
        (int(np.sum(~with_near)), int(np.sum(with_near))),
        dict(sorted(histogram.items())),
        largest,
    )


def fate_of(layout: Layout, part: int) -> np.ndarray:
    """Returns what was decided of a part's documents: KEPT, EXACT or NEAR [documents]."""
    return np.load(layout.fate(part))


def duplicates(layout: Layout, parts: int) -> np.ndarray:
    """Returns the documents dropped, as DUPLICATE records sorted by document."""
    found = [np.zeros(0, DUPLICATE)]
    for part in range(parts):
        fate, index = fate_of(layout, part), layout.index(part)
        gone = np.flatnonzero(fate != KEPT)
        some = np.zeros(len(gone), DUPLICATE)
        some["sha256"], some["fate"] = index["sha256"][gone], fate[gone]
        found.append(some)
    return np.unique(np.concatenate(found))
