"""How sure a mean over tasks is: bootstrap confidence intervals."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geex_jax.benchmark.statistics.passk import Counts, pass_at_k, pass_at_k_of_tasks
from geex_jax.errors import GeexError, did_you_mean

METHODS = ("bca", "percentile")
CHUNK = 1 << 21  # drawn tasks at a time
SAME = 1e-12  # two means that are closer differ by rounding alone


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean over tasks and its confidence interval.

    Attributes:
      value: the mean itself. low, high: ends of the interval.
      level: of confidence, 0.95 for 95 %.
      tasks: how many the mean is over.
    """

    value: float
    low: float
    high: float
    level: float
    tasks: int


@dataclasses.dataclass(frozen=True)
class Bootstrap:
    """How to resample.

    Attributes:
      level: of confidence.
      resamples: how often to draw as many tasks as there are, with replacement.
      seed: of the draws; the same seed gives the same interval.
      method: "bca" (bias-corrected and accelerated, Efron 1987) or "percentile".
      samples: resample also the samples of each drawn task. The spread between tasks already
        holds the chance of the samples, so this makes the interval wider than it need be.
    """

    level: float = 0.95
    resamples: int = 5_000
    seed: int = 0
    method: str = "bca"
    samples: bool = False

    def __post_init__(self):
        if not 0 < self.level < 1:
            raise GeexError(f"confidence level {self.level}", "take one between 0 and 1, like 0.95")
        if self.resamples < 1:
            raise GeexError(f"{self.resamples} bootstrap resamples", "take 1,000 or more")
        if self.method not in METHODS:
            raise GeexError(
                f"unknown bootstrap method {self.method!r}", did_you_mean(self.method, METHODS)
            )


def pass_at_k_interval(counts: Counts, k: int, how: Bootstrap | None = None) -> Interval:
    """pass@k with its confidence interval.

    If all tasks have the same pass@k (all zero, say) a bootstrap sees no spread: the interval is
    that one point.

    Raises:
      GeexError: no tasks, or a task with fewer than k samples.
    """
    how = how or Bootstrap()
    values = pass_at_k_of_tasks(counts, k)
    if not how.samples:
        return mean_interval(values, how)
    means = _resample_samples(counts, values, k, how)
    return _interval(values, np.clip(means, 0.0, 1.0), how)


def difference_interval(
    first: Counts, second: Counts, k: int, how: Bootstrap | None = None
) -> Interval:
    """pass@k of `first` minus that of `second`, paired by task: over the tasks that both have.

    Raises:
      GeexError: no task in common, or one with fewer than k samples.
    """
    both = [task for task in first if task in second]
    if not both:
        raise GeexError("the two runs have no task in common", "compare runs of the same data")
    values = [pass_at_k_of_tasks({t: x[t] for t in both}, k) for x in (first, second)]
    how = how or Bootstrap()
    return mean_interval(values[0] - values[1], dataclasses.replace(how, samples=False))


def mean_interval(values_T: ArrayLike, how: Bootstrap | None = None) -> Interval:
    """The mean of one value per task, with its interval by resampling tasks.

    Raises:
      GeexError: no values.
    """
    values_T = np.asarray(values_T, dtype=np.float64)
    if values_T.size == 0:
        raise GeexError("no task was run", "an interval needs one task at least")
    how = how or Bootstrap()
    means = [values_T[index].mean(axis=1) for index in _draws(values_T.size, how)[1]]
    return _interval(values_T, np.concatenate(means), how)


def _draws(tasks: int, how: Bootstrap):
    """A generator of numbers, and the drawn tasks in chunks of shape [some resamples, tasks]."""
    rng = np.random.default_rng(how.seed)
    rows = max(1, CHUNK // tasks)
    sizes = (min(rows, how.resamples - start) for start in range(0, how.resamples, rows))
    return rng, (rng.integers(tasks, size=(size, tasks)) for size in sizes)


def _resample_samples(
    counts: Counts, values_T: NDArray[np.float64], k: int, how: Bootstrap
) -> NDArray[np.float64]:
    n_T, c_T = np.array(list(counts.values()), dtype=np.int64).T
    # Drawing with replacement biases pass@k: its mean over draws is 1 - (1 - c/n)^k. Taken out.
    shift_T = values_T + np.power(1.0 - c_T / n_T, k) - 1.0
    rng, chunks = _draws(n_T.size, how)
    means = []
    for index in chunks:
        drawn = rng.binomial(n_T[index], (c_T / n_T)[index])
        means.append((pass_at_k(n_T[index], drawn, k) + shift_T[index]).mean(axis=1))
    return np.concatenate(means)


def _interval(
    values_T: NDArray[np.float64], means_R: NDArray[np.float64], how: Bootstrap
) -> Interval:
    value = math.fsum(values_T) / values_T.size
    tail = (1.0 - how.level) / 2.0
    ends = tail, 1.0 - tail
    if how.method == "bca":
        ends = _bca_ends(values_T, means_R, value, ends)
    low, high = np.quantile(means_R, ends)
    if np.ptp(values_T) == 0 and not how.samples:
        low = high = value  # without the rounding of the means
    return Interval(value, float(low), float(high), how.level, values_T.size)


def _bca_ends(
    values_T: NDArray[np.float64],
    means_R: NDArray[np.float64],
    value: float,
    ends: tuple[float, float],
) -> tuple[float, float]:
    """Shifts the quantiles by the bias of the median and by the skew (jackknife of a mean)."""
    off_T = values_T - value
    square = float(np.sum(off_T**2))
    if values_T.size < 3 or square < SAME:
        return ends
    below = np.mean(means_R < value - SAME) + 0.5 * np.mean(np.abs(means_R - value) <= SAME)
    edge = 0.5 / means_R.size
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(float(below), edge), 1.0 - edge))
    skew = float(np.sum(off_T**3)) / (6.0 * square**1.5)
    moved = []
    for end in ends:
        z = bias + normal.inv_cdf(end)
        moved.append(normal.cdf(bias + z / max(1.0 - skew * z, 0.01)))
    return moved[0], moved[1]
