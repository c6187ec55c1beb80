"""pass@k: exact, also where the numbers are large or small; what it refuses."""

import itertools
import json
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.benchmark.statistics import count, mean_pass_at_k, pass_at_k, pass_at_k_of_tasks
from geex_jax.errors import GeexError


def exact(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


def test_fixtures(shared):
    for line in (shared / "fixtures/passk/passk.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["valid"]:
            assert pass_at_k(row["n"], row["c"], row["k"]) == pytest.approx(row["value"], abs=1e-14)
        else:
            with pytest.raises(GeexError, match="needs"):
                pass_at_k(row["n"], row["c"], row["k"])


def test_fixture_of_tasks_with_unlike_n(shared):
    fixture = json.loads((shared / "fixtures/passk/aggregate.json").read_text())
    counts = {row["task_id"]: (row["n"], row["c"]) for row in fixture["problems"]}
    for name, mean in fixture["mean"].items():
        assert mean_pass_at_k(counts, int(name[5:])) == pytest.approx(mean, abs=1e-14)
    with pytest.raises(GeexError, match="pass@6 needs 6 samples of each task, T/4 has 5"):
        mean_pass_at_k(counts, 6)


def test_is_the_share_of_draws_that_hold_a_correct_sample():
    samples = [True, True, False, False, False, False]
    draws = list(itertools.combinations(samples, 3))
    assert pass_at_k(6, 2, 3) == pytest.approx(sum(map(any, draws)) / len(draws), abs=1e-15)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_equals_exact_arithmetic(data):
    n = data.draw(st.integers(1, 3000))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    value, truth = pass_at_k(n, c, k), exact(n, c, k)
    assert abs(Fraction(value) - truth) <= 1e-15 * truth  # relative: small values keep their digits


@pytest.mark.parametrize(
    ("n", "c", "k"), [(10**6, 1000, 700), (10**6, 3, 250_000), (10**6, 800, 1500), (10**6, 1, 1)]
)
def test_a_million_samples(n, c, k):
    few, many = min(c, k), max(c, k)
    left = Fraction(1)
    for i in range(n - few + 1, n + 1):
        left *= Fraction(i - many, i)
    assert pass_at_k(n, c, k) == pytest.approx(float(1 - left), rel=4e-16, abs=0)


def test_product_that_is_too_small_for_a_double():
    assert pass_at_k(10**6, 500_000, 500_000) == 1.0
    assert pass_at_k(10**6, 400_000, 400_000) == 1.0


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_more_tries_and_more_correct_samples_never_hurt(data):
    n = data.draw(st.integers(2, 500))
    c, k = data.draw(st.integers(0, n - 1)), data.draw(st.integers(1, n - 1))
    assert pass_at_k(n, c, k) <= min(pass_at_k(n, c + 1, k), pass_at_k(n, c, k + 1))


def test_arrays_are_broadcast_and_equal_the_scalars():
    n, c, k = np.array([10, 200, 200]), [3, 0, 150], [[1], [5], [10]]
    values = pass_at_k(n, c, k)
    assert values.shape == (3, 3) and values.dtype == np.float64
    for row, col in np.ndindex(3, 3):
        assert values[row, col] == pass_at_k(int(n[col]), c[col], k[row][0])
    assert isinstance(pass_at_k(5, 1, 1), float)
    assert pass_at_k([], [], 1).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 6, 1), "6 correct samples of 5"),
        ((5, -1, 1), "c = -1"),
        ((-1, 0, 1), "n = -1"),
        ((5, 1, 0), "pass@0"),
        ((5, 1, -2), "pass@-2"),
        ((5, 1, 6), "pass@6 needs 6 samples of each task, there are 5"),
        (([9, 5], [1, 1], 6), "there are 5"),
        ((5.0, 1, 1), "n must be whole"),
        ((5, True, 1), "c must be whole"),
        ((5, 1, "1"), "k must be whole"),
        ((5, 1, 2**70), "k must be whole"),
        (([[1], [1, 2]], 1, 1), "n must be whole"),
        (([1, 2], [1, 1, 1], 1), "shapes"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(GeexError, match=message) as error:
        pass_at_k(*arguments)
    assert "\n" not in str(error.value) and error.value.remedy


def test_samples_that_were_not_run_are_left_out():
    outcomes = ["passed", "not run", "timeout", "passed", "compile error", "not run"]
    rows = [{"task_id": "Go/1", "outcome": outcome} for outcome in outcomes]
    rows.append({"task_id": "Go/2", "outcome": "not run"})
    assert count(rows) == {"Go/1": (4, 2)}
    assert mean_pass_at_k(count(rows), 1) == 0.5


def test_nothing_was_run():
    with pytest.raises(GeexError, match="no task was run"):
        mean_pass_at_k({}, 1)


def test_values_come_in_the_order_of_the_tasks():
    counts = {"b": (4, 4), "a": (4, 0), "c": (2, 1)}
    assert pass_at_k_of_tasks(counts, 1).tolist() == [1.0, 0.0, 0.5]


def test_statistics_and_report_do_not_import_jax():
    code = (
        "import sys, geex_jax.benchmark.statistics, geex_jax.benchmark.report;"
        "print({'jax', 'flax', 'matplotlib.pyplot'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
