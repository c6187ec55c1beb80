"""Bootstrap intervals: against scipy, by coverage, and their corner cases."""

import numpy as np
import pytest
import scipy.stats

from geex_jax.benchmark.statistics import (
    Bootstrap,
    difference_interval,
    mean_interval,
    mean_pass_at_k,
    pass_at_k_interval,
)
from geex_jax.errors import GeexError


def some_counts(seed: int, n: int = 20, tasks: int = 164) -> dict[str, tuple[int, int]]:
    rng = np.random.default_rng(seed)
    return {
        f"Python/{i}": (n, int(rng.binomial(n, p))) for i, p in enumerate(rng.beta(0.4, 1, tasks))
    }


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_agrees_with_scipy(method, level):
    values = np.random.default_rng(3).exponential(size=80) ** 2  # skewed: bca and percentile differ
    mine = mean_interval(values, Bootstrap(level=level, method=method, resamples=20_000))
    seed = "rng" if tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 15) else "random_state"
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=level, method=method.replace("bca", "BCa"),
        n_resamples=20_000, **{seed: np.random.default_rng(0)},
    ).confidence_interval  # fmt: skip
    spread = theirs.high - theirs.low
    assert mine.low == pytest.approx(theirs.low, abs=0.03 * spread)
    assert mine.high == pytest.approx(theirs.high, abs=0.03 * spread)


def test_the_methods_differ_on_skewed_values():
    values = np.random.default_rng(3).exponential(size=80) ** 2
    bca, plain = (mean_interval(values, Bootstrap(method=m)) for m in ("bca", "percentile"))
    assert bca.low > plain.low and bca.high > plain.high + 0.05


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_covers_the_truth_as_often_as_it_says(method):
    how = Bootstrap(resamples=400, method=method, level=0.9)
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = mean_interval(rng.beta(0.5, 1.5, size=60), how)  # its mean is 0.25
        hits += interval.low <= 0.25 <= interval.high
    assert 0.85 <= hits / 300 <= 0.95


def test_is_seeded():
    counts = some_counts(1)
    once, again, other = (pass_at_k_interval(counts, 10, Bootstrap(seed=s)) for s in (0, 0, 1))
    assert once == again
    assert once.low != other.low and once.value == other.value


@pytest.mark.parametrize("k", [1, 10, 20])
@pytest.mark.parametrize("samples", [False, True])
def test_holds_the_value_between_its_ends(k, samples):
    counts = some_counts(2)
    interval = pass_at_k_interval(counts, k, Bootstrap(samples=samples))
    assert interval.value == mean_pass_at_k(counts, k)
    assert 0 <= interval.low < interval.value < interval.high <= 1
    assert interval.tasks == 164


def test_resampling_samples_widens_and_stays_centred():
    counts = some_counts(5, n=10, tasks=60)
    # k = n: without correction drawn samples would lose a quarter of pass@10.
    plain, wide = (
        pass_at_k_interval(counts, 10, Bootstrap(samples=s, method="percentile"))
        for s in (False, True)
    )
    assert wide.high - wide.low > plain.high - plain.low
    assert (wide.high + wide.low) / 2 == pytest.approx((plain.high + plain.low) / 2, abs=0.02)


@pytest.mark.parametrize("c", [0, 10])
@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_tasks_all_alike(c, method):
    interval = pass_at_k_interval(
        {f"Go/{i}": (10, c) for i in range(9)}, 1, Bootstrap(method=method)
    )
    assert (interval.low, interval.value, interval.high) == (c / 10, c / 10, c / 10)


def test_one_task():
    interval = pass_at_k_interval({"Go/1": (10, 5)}, 1)
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_difference_is_paired_by_task():
    first = some_counts(4)
    second = {task: (n, max(c - 1, 0)) for task, (n, c) in reversed(first.items())}
    interval = difference_interval(first, second, 1)
    assert interval.value == pytest.approx(mean_pass_at_k(first, 1) - mean_pass_at_k(second, 1))
    # Unpaired it would be as wide as two intervals of pass@1; the tasks' own spread falls out.
    assert interval.high - interval.low < 0.02
    assert interval.low > 0


def test_difference_is_over_the_tasks_that_both_have():
    first = {"a": (2, 2), "b": (2, 1), "c": (2, 0)}
    interval = difference_interval(first, {"b": (4, 0), "c": (4, 4)}, 2)
    assert interval.tasks == 2 and interval.value == 0.0
    with pytest.raises(GeexError, match="no task in common"):
        difference_interval(first, {"d": (2, 1)}, 1)


@pytest.mark.parametrize(
    "bad", [{"level": 1.0}, {"level": 95}, {"resamples": 0}, {"method": "bac"}]
)
def test_refuses(bad):
    with pytest.raises(GeexError):
        Bootstrap(**bad)


def test_refuses_nothing():
    with pytest.raises(GeexError, match="no task was run"):
        mean_interval([])
