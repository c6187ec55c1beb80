"""A shuffled order of any number of rows, computed place by place: nothing is kept in memory.

Rows are numbered by pairs (left of a, right of b) with a x b just above their count, and rounds
that add to one half a hash of the other, modulo a or b, permute the pairs; the few that fall
beyond the count go through again until they do not. Whole arrays at a time, in integers that wrap
at 64 bits, so the order is the same on every machine.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 3  # over both halves


def shuffled(numbers: np.ndarray, counts: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Returns which of `counts` rows stand at some places of endless orders, int64 [N].

    Each run of `counts` places, an epoch, holds every row once, in an order of its own.

    Args:
      numbers: places, from 0, int64 [N].
      counts: rows of the order that each place is of, int64 [N].
      seeds: of the order that each place is of, uint64 [N].
    """
    epochs, places = np.divmod(numbers, counts)
    lefts = np.ceil(np.sqrt(counts)).astype(np.uint64)
    rights = (counts.astype(np.uint64) + lefts - np.uint64(1)) // lefts
    keys = _mixed(epochs.astype(np.uint64) + _mixed(seeds))
    out = _permuted(places.astype(np.uint64), lefts, rights, keys)
    while len(beyond := np.flatnonzero(out >= counts)):
        out[beyond] = _permuted(out[beyond], lefts[beyond], rights[beyond], keys[beyond])
    return out.astype(np.int64)


def _permuted(
    values: np.ndarray, lefts: np.ndarray, rights: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    left, right = np.divmod(values, rights)
    for _ in range(_ROUNDS):
        keys = _mixed(keys)
        left = (left + _mixed(right ^ keys) % lefts) % lefts
        keys = _mixed(keys)
        right = (right + _mixed(left ^ keys) % rights) % rights
    return left * rights + right


def _mixed(x: np.ndarray) -> np.ndarray:
    """Returns the output function of splitmix64: every bit depends on every bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
