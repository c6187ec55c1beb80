"""pass@k without bias, and exact in double precision.

From n samples of a task, c of them correct, the chance that k drawn without replacement hold a
correct one: 1 - C(n-c, k) / C(n, k) (arXiv 2107.03374, section 2.1; HumanEval-X takes it over).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geex_jax.benchmark.languages.types import Outcome
from geex_jax.errors import GeexError

Counts = Mapping[str, tuple[int, int]]  # task -> (n samples, c of them correct)

LARGEST = 2**53  # whole numbers up to here are exact as doubles
CHUNK = 1 << 20  # factors at a time
GONE = -800.0  # the exponential of less is zero


def pass_at_k(n: ArrayLike, c: ArrayLike, k: ArrayLike) -> Any:
    """Chance that one of k samples is correct.

    The official estimator answers 1.0 for k > n, even with nothing correct; that is refused here.

    Args:
      n: samples of a task. c: how many of them are correct. k: tries.
        Whole numbers or arrays of them, broadcast against each other.

    Returns:
      A float for three numbers, else an array of float64. Off by about 1e-15 at most, and small
      values keep all their digits.

    Raises:
      GeexError: not whole numbers, negative, c > n, k < 1 or k > n.
    """
    n_, c_, k_ = (_whole(name, x) for name, x in (("n", n), ("c", c), ("k", k)))
    try:
        n_, c_, k_ = np.broadcast_arrays(n_, c_, k_)
    except ValueError:
        raise GeexError(
            f"n, c and k have shapes {n_.shape}, {c_.shape}, {k_.shape}", "give one per task"
        ) from None
    _check(n_, c_, k_)
    shape = n_.shape
    if not shape:
        return _one(int(n_), int(c_), int(k_))
    parts = [np.unique(x, return_inverse=True) for x in (n_.ravel(), c_.ravel(), k_.ravel())]
    (n_, n_at), (c_, c_at), (k_, k_at) = parts
    # One number for each triple, so that each different one is worked out once.
    triple = (n_at * c_.size + c_at) * k_.size + k_at
    _, first, where = np.unique(triple, return_index=True, return_inverse=True)
    picked = zip(n_[n_at[first]], c_[c_at[first]], k_[k_at[first]], strict=True)
    values = np.array([_one(int(n), int(c), int(k)) for n, c, k in picked], dtype=np.float64)
    return values[where].reshape(shape)


def pass_at_k_of_tasks(counts: Counts, k: int) -> NDArray[np.float64]:
    """pass@k of each task, in the order of `counts`; each task with its own n.

    Raises:
      GeexError: no tasks, or a task with fewer than k samples; it is named.
    """
    if not counts:
        raise GeexError("no task was run", "pass@k needs the results of one task at least")
    short = min(counts, key=lambda task: counts[task][0])
    if _whole("k", k) > counts[short][0]:
        raise GeexError(
            f"pass@{k} needs {k} samples of each task, {short} has {counts[short][0]}",
            "make more samples or ask for a smaller k",
        )
    n, c = zip(*counts.values(), strict=True)
    return pass_at_k(n, c, k)


def mean_pass_at_k(counts: Counts, k: int) -> float:
    """Mean of pass@k over tasks.

    Raises:
      GeexError: as `pass_at_k_of_tasks`.
    """
    return math.fsum(pass_at_k_of_tasks(counts, k)) / len(counts)


def count(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Counts samples per task; those that were not run are left out, not counted as failures.

    Args:
      rows: with "task_id" and "outcome", as the runner writes them.
    """
    counts: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row["outcome"] != Outcome.NOT_RUN:
            n, c = counts.get(row["task_id"], (0, 0))
            counts[row["task_id"]] = n + 1, c + (row["outcome"] == Outcome.PASSED)
    return counts


def _one(n: int, c: int, k: int) -> float:
    few, many = min(c, k), max(c, k)  # c and k may change places: take the shorter product
    if few == 0:
        return 0.0
    if few + many > n:
        return 1.0
    if few == 1:
        return many / n
    # All logarithms have the same sign, so that their sum loses nothing. One of a factor near 0
    # is inexact, but such a factor makes the product small, and the error with it.
    total = 0.0
    for start in range(n - few + 1, n + 1, CHUNK):
        i = np.arange(start, min(start + CHUNK, n + 1), dtype=np.float64)
        total += float(np.log1p(-many / i).sum())
        if total < GONE:
            return 1.0
    return -math.expm1(total)


def _whole(name: str, value: ArrayLike) -> NDArray[np.int64]:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unlike lengths
        array = np.asarray(None)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or (array.size and array.max() > LARGEST):
        raise GeexError(f"{name} must be whole, not {_shown(value)}", "give integers below 2**53")
    return array.astype(np.int64)


def _check(n: NDArray[np.int64], c: NDArray[np.int64], k: NDArray[np.int64]) -> None:
    for wrong, what, remedy in (
        (n < 0, "n = {n} samples", "count samples from 0"),
        (c < 0, "c = {c} correct samples", "count correct samples from 0"),
        (k < 1, "pass@{k}", "k counts tries: take 1 or more"),
        (c > n, "{c} correct samples of {n}", "c is the part of the n samples that passed"),
        (k > n, "pass@{k} needs {k} samples of each task, there are {n}",
         "make more samples or ask for a smaller k"),
    ):  # fmt: skip
        if wrong.any():
            at = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
            raise GeexError(what.format(n=n[at], c=c[at], k=k[at]), remedy)


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
