"""Copies in a bucket to edges, and edges of all buckets to clusters."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from geex_jax.data.dedup import minhash

# A document is part << 32 | row until all parts are known.
RECORD = np.dtype([("key", "<u8"), ("document", "<u8")])
EDGE = np.dtype([("document", "<u8"), ("first", "<u8"), ("similarity", "<f4"), ("exact", "u1")])
MOST_LEADERS = 16  # a document is compared with at most so many unlike ones of its group


def groups(records: np.ndarray) -> list[np.ndarray]:
    """Returns the documents of each key that more than one has, ascending in each group."""
    records = records[np.lexsort((records["document"], records["key"]))]
    keys = records["key"]
    cuts = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    begins = np.concatenate([[0], cuts])
    ends = np.concatenate([cuts, [len(keys)]])
    many = ends - begins > 1
    documents = records["document"]
    return [documents[a:b] for a, b in zip(begins[many], ends[many], strict=True)]


def edges(
    group: np.ndarray,
    contents: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]],
    threshold: float,
    exact: bool,
) -> list[tuple[int, int, float, int]]:
    """Returns (document, an earlier one that it copies, similarity, whether exactly).

    The first of each content leads its copies; of the leaders, each is compared with earlier
    ones that are unlike each other, MOST_LEADERS of them at most, so that a group of N costs at
    most N x MOST_LEADERS comparisons. Memory is the group's signatures.

    Args:
      group: documents that share a band or a hash, ascending.
      contents: documents to their SHA-256 [N, V32], signatures [N, P], whether they have one [N].
      threshold: least similarity of a near-copy; 0 for none.
      exact: whether the same content makes a copy.
    """
    sha256, signatures, signed = contents(group)
    found: list[tuple[int, int, float, int]] = []
    first_of: dict[bytes, int] = {}
    leaders: list[int] = []
    for i in range(len(group)):
        first = first_of.setdefault(sha256[i].tobytes(), i)
        if first != i:
            if exact or threshold:
                found.append((int(group[i]), int(group[first]), 1.0, int(exact)))
            continue
        if not threshold or not signed[i]:
            continue
        if leaders:
            similar = minhash.similarity(signatures[i], signatures[leaders])
            best = int(np.argmax(similar))
            if similar[best] >= threshold:
                leader = leaders[best]
                found.append((int(group[i]), int(group[leader]), float(similar[best]), 0))
                continue
        if len(leaders) < MOST_LEADERS:
            leaders.append(i)
    return found


def connect(paths: Sequence[pathlib.Path], dense: Callable[[np.ndarray], np.ndarray], count: int):
    """Returns for each document the first of its cluster [count], int64: 8 bytes a document.

    Edges are read file after file, again until nothing changes; each pass hooks clusters to the
    smallest document that they touch and shortens all paths, so passes are few (the logarithm of
    a cluster's diameter). The result does not depend on the order of files.

    Args:
      paths: files of EDGE records.
      dense: part << 32 | row to numbers below `count`, in the same order.
      count: documents in all.
    """
    label = np.arange(count, dtype=np.int64)
    changed = True
    while changed:
        changed = False
        for path in paths:
            some = np.load(path, mmap_mode="r")
            ends = [label[dense(some[name])] for name in ("document", "first")]
            least = np.minimum(*ends)
            for end in ends:
                if np.any(end != least):
                    np.minimum.at(label, end, least)
                    changed = True
        while True:
            shorter = label[label]
            if np.array_equal(shorter, label):
                break
            label = shorter
    return label
