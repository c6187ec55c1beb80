"""Tries split over languages: the expectation against enumeration, the strategies, the refusals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geex_jax import languages
from geex_jax.benchmark.statistics import Board, allocate, pass_at_k
from geex_jax.benchmark.statistics.budget import (
    apportion,
    best_single,
    greedy,
    natural,
    uniform,
    weighted,
)
from geex_jax.errors import GeexError

NAMES = ("python", "cpp", "java", "javascript", "go", "rust")


def some_board(n: int = 20, problems: int = 40, names=NAMES, seed: int = 0) -> Board:
    return Board(some_counts(n, problems, names, seed))


def some_counts(n: int = 20, problems: int = 40, names=NAMES, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        name: {
            f"{name.title()}/{i}": (n, int(rng.binomial(n, rng.beta(0.3, 1))))
            for i in range(problems)
        }
        for name in names
    }


def test_solved_is_the_share_of_draws_in_which_any_language_solves_it():
    board = Board({"python": {"Python/0": (4, 1)}, "go": {"Go/0": (5, 2)}})
    python = list(itertools.combinations([True, False, False, False], 2))
    go = list(itertools.combinations([True, True, False, False, False], 1))
    hits = [any(a) or any(b) for a in python for b in go]
    assert board.solved({"python": 2, "go": 1}) == pytest.approx([sum(hits) / len(hits)])


def test_all_tries_in_one_language_are_its_pass_at_k():
    board = some_board()
    at = board.languages.index("java")
    assert board.solved({"java": 7}) == pytest.approx(
        pass_at_k(board.n_LxP[at], board.c_LxP[at], 7), abs=1e-15
    )


def test_problems_are_parallel_by_their_number_and_those_of_all_languages_count():
    board = Board({
        "python": {"Python/10": (2, 1), "Python/2": (2, 2), "Python/3": (2, 0)},
        "go": {"Go/2": (2, 0), "Go/10": (2, 0), "Go/4": (2, 2)},
        "rust": {},  # not run
    })  # fmt: skip
    assert board.problems == ["2", "10"] and board.languages == ["python", "go"]
    assert board.solved({"python": 1}).tolist() == [1.0, 0.5]


@given(
    st.integers(0, 500),
    st.lists(st.floats(0.01, 100), min_size=1, max_size=8),
    st.lists(st.integers(0, 100), min_size=8, max_size=8),
)
def test_apportion_spends_all_tries_within_the_limits(k, weights, limits):
    names = [f"l{i}" for i in range(len(weights))]
    most = dict(zip(names, limits, strict=False))
    split = dict(zip(names, weights, strict=True))
    if k > sum(most.values()):
        with pytest.raises(GeexError, match="samples in all languages"):
            apportion(k, split, most)
    else:
        tries = apportion(k, split, most)
        assert sum(tries.values()) == k
        assert all(0 <= tries[name] <= most[name] for name in names)


def test_apportion_is_by_largest_remainder():
    most = dict.fromkeys("abc", 100)
    assert apportion(10, {"a": 1, "b": 1, "c": 1}, most) == {"a": 4, "b": 3, "c": 3}
    # Quotas 5.5, 3.3, 1.2: the one left over goes to the largest remainder.
    assert apportion(10, {"a": 55, "b": 33, "c": 12}, most) == {"a": 6, "b": 3, "c": 1}


def test_what_a_language_cannot_take_goes_to_the_others_by_weight():
    tries = apportion(30, {"a": 6, "b": 2, "c": 1}, {"a": 6, "b": 100, "c": 100})
    assert tries == {"a": 6, "b": 16, "c": 8}


def test_uniform_and_weighted():
    board = some_board(n=200)
    assert set(uniform(board, 100).values()) == {16, 17}
    tokens = {name: languages.get(name).corpus_tokens for name in NAMES}
    tries = weighted(board, 100)
    for name in NAMES:
        assert abs(tries[name] - 100 * tokens[name] / sum(tokens.values())) < 1
    assert sum(tries.values()) == 100


def test_best_single_language():
    counts = {
        "python": {f"Python/{i}": (5, 5 * (i < 3)) for i in range(6)},
        "go": {f"Go/{i}": (5, 5 * (i >= 2)) for i in range(6)},
    }
    board = Board(counts)
    assert best_single(board, 5) == {"python": 0, "go": 5}
    assert best_single(board, 5, np.array([0, 1, 2])) == {"python": 5, "go": 0}
    with pytest.raises(GeexError, match="6 tries in one language"):
        best_single(board, 6)


def test_greedy_finds_the_best_split_where_languages_solve_unlike_problems():
    board = some_board(n=6, problems=12, names=("python", "java", "go"), seed=3)
    everything = np.arange(12)
    tries = greedy(board, 5, everything)
    assert sum(tries.values()) == 5
    splits = [x for x in itertools.product(range(6), repeat=3) if sum(x) == 5]
    best = max(board.solved(dict(zip(board.languages, x, strict=True))).sum() for x in splits)
    assert board.solved(tries).sum() == pytest.approx(best, abs=0.02)
    assert board.solved(tries).sum() >= board.solved(best_single(board, 5)).sum()


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_largest_gain_at_every_step(seed):
    counts = some_counts(n=4, problems=15, names=("python", "java", "go"), seed=seed)
    board = Board(counts)
    on = np.arange(0, 15, 2)
    tries = dict.fromkeys(board.languages, 0)
    for k in range(1, 11):
        steps = [tries | {x: tries[x] + 1} for x in tries if tries[x] < 4]
        best = max(board.solved(step)[on].sum() for step in steps)
        tries = greedy(board, k, on)
        assert board.solved(tries)[on].sum() == pytest.approx(best, abs=1e-9)


def test_greedy_stays_within_the_samples():
    board = Board({"python": {"Python/0": (2, 0)}, "go": {"Go/0": (9, 1)}})
    assert greedy(board, 10, np.arange(1)) == {"python": 1, "go": 9}
    with pytest.raises(GeexError, match="12 tries"):
        greedy(board, 12, np.arange(1))


def test_held_out_problems_have_no_say_in_the_split():
    counts = some_counts(seed=5)
    board = Board(counts)
    chosen_on, rest = board.split(0.5, seed=0)
    assert sorted([*chosen_on, *rest]) == list(range(40)) and chosen_on.size == 20
    swapped = {
        name: {
            task: (n, n - c if int(task.rpartition("/")[2]) in rest else c)
            for task, (n, c) in table.items()
        }
        for name, table in counts.items()
    }
    held = {"greedy, held in", "best single language, held in"}
    first, second = (
        {x.strategy: x for x in allocate(c, [10]) if x.strategy in held} for c in (counts, swapped)
    )
    assert set(first) == held
    for name in held:
        assert first[name].tries == second[name].tries
        assert first[name].held_out != second[name].held_out
        assert first[name].solved is None  # half of all problems chose the split


def test_table():
    rows = allocate(some_counts(), [1, 10, 40])
    assert {x.k for x in rows if x.strategy == "uniform"} == {1, 10, 40}
    # 40 tries cannot be in one language of 20 samples, but in all of them.
    assert not [x for x in rows if x.k == 40 and x.strategy.startswith("best")]
    board = some_board()
    for row in rows:
        assert sum(row.tries.values()) == row.k
        if row.solved:
            assert row.solved.value == pytest.approx(board.solved(row.tries).mean())
            assert row.solved.low <= row.solved.value <= row.solved.high
    assert rows == allocate(some_counts(), [1, 10, 40])


def test_a_language_that_the_corpus_has_not_is_not_weighted():
    rows = allocate(some_counts(names=("python", "zig")), [4])
    assert [x.strategy for x in rows if "corpus" in x.strategy] == []
    assert "uniform" in [x.strategy for x in rows]


def test_refuses():
    with pytest.raises(GeexError, match="no language was run"):
        allocate({"go": {}}, [1])
    with pytest.raises(GeexError, match="python, go have no problem in common"):
        allocate({"python": {"Python/1": (1, 1)}, "go": {"Go/2": (1, 1)}}, [1])
    with pytest.raises(GeexError, match="21 tries in go, a problem has 20 samples"):
        some_board().solved({"go": 21})
    with pytest.raises(GeexError, match="121 tries, and 120 samples"):
        allocate(some_counts(), [121])
    with pytest.raises(GeexError, match="0 tries"):
        allocate(some_counts(), [0])


def test_numbers_sort_as_numbers():
    assert sorted(["Go/10", "Go/9", "Go/x", "Go/²"], key=natural) == [
        "Go/9",
        "Go/10",
        "Go/x",
        "Go/²",
    ]
