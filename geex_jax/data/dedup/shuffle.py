"""Scatter and gather over files: what belongs together, from many parts into one task.

A part's task sorts its records by bucket and writes them as one file, with the place where each
bucket begins in a second one. A bucket's task reads its slice of every part's file. Nothing but
files is shared; memory is one part's records, then one bucket's.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from geex_jax import files


def scatter(path: pathlib.Path, records: np.ndarray, buckets: np.ndarray, count: int) -> None:
    """Writes records [N] for their buckets [N] (numbers below `count`), in a fixed order."""
    order = np.argsort(buckets, kind="stable")
    begins = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(buckets, minlength=count), out=begins[1:])
    save(path.with_suffix(".begins.npy"), begins)
    save(path.with_suffix(".npy"), records[order])


def gather(paths: Iterator[pathlib.Path], bucket: int, dtype: np.dtype) -> np.ndarray:
    """Returns all records of a bucket, part after part."""
    found = [np.zeros(0, dtype)]
    for path in paths:
        begins = np.load(path.with_suffix(".begins.npy"), mmap_mode="r")
        start, end = int(begins[bucket]), int(begins[bucket + 1])
        if start < end:
            found.append(np.array(np.load(path.with_suffix(".npy"), mmap_mode="r")[start:end]))
    return np.concatenate(found)


def save(path: pathlib.Path, array: np.ndarray) -> None:
    """Writes an array as .npy, whole or not at all."""
    with files.atomic_write(path, "wb") as file:
        np.save(file, array, allow_pickle=False)
