"""Tries split over programming languages: the paper's multilingual budget allocation.

A problem of HumanEval-X stands in several languages with the same meaning, so k tries at it need
not all be in one: some models solve it in Java that fail in Python. With tries split over
languages, a problem counts as solved if any language solves it (CodeGeeX, arXiv 2303.17568, where
the split by share of the training data beats any single language). The paper gives the idea, the
official repository has no code of it: here the expectation is exact, no tries are drawn.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from geex_jax import languages
from geex_jax.benchmark.statistics.bootstrap import Bootstrap, Interval, mean_interval
from geex_jax.benchmark.statistics.passk import Counts, pass_at_k
from geex_jax.errors import GeexError

Tries = dict[str, int]  # language -> tries
DIGITS = "0123456789"


@dataclasses.dataclass(frozen=True)
class Allocation:
    """One way of splitting k tries, and what it solves.

    Attributes:
      strategy: its name. k: all tries. tries: of each language; they add up to k.
      solved: share of all problems. None where the split was chosen on some of them.
      held_out: share of the held-out problems. None where the split was chosen on them too.
    """

    strategy: str
    k: int
    tries: Tries
    solved: Interval | None
    held_out: Interval | None


class Board:
    """Counts of the problems that all languages have.

    Args:
      counts: language -> {task id: (n, c)}. Problems are parallel over languages by what follows
        the slash of their ids. Languages without counts (not run) are left out.

    Raises:
      GeexError: no language was run, or the languages have no problem in common.
    """

    def __init__(self, counts: Mapping[str, Counts]):
        tables = {
            name: {task.rpartition("/")[2]: nc for task, nc in table.items()}
            for name, table in counts.items()
            if table
        }
        if not tables:
            raise GeexError("no language was run", "a split of tries needs one language at least")
        common = set.intersection(*(set(table) for table in tables.values()))
        if not common:
            raise GeexError(
                f"{', '.join(tables)} have no problem in common", "run them on the same problems"
            )
        self.problems = sorted(common, key=natural)
        self.languages = list(tables)
        pairs = np.array([[t[p] for p in self.problems] for t in tables.values()], dtype=np.int64)
        self.n_LxP, self.c_LxP = pairs[..., 0], pairs[..., 1]
        self.most = dict(zip(self.languages, self.n_LxP.min(axis=1).tolist(), strict=True))

    def solved(self, tries: Mapping[str, int]) -> NDArray[np.float64]:
        """Chance of each problem to be solved: 1 - product over languages of C(n-c,k)/C(n,k).

        Raises:
          GeexError: more tries in a language than a problem has samples.
        """
        failed_P = np.ones(len(self.problems))
        for name, n_P, c_P in zip(self.languages, self.n_LxP, self.c_LxP, strict=True):
            if tries.get(name, 0) > self.most[name]:
                raise GeexError(
                    f"{tries[name]} tries in {name}, a problem has {self.most[name]} samples",
                    "make more samples or ask for a smaller k",
                )
            if tries.get(name, 0):
                failed_P *= 1.0 - pass_at_k(n_P, c_P, tries[name])
        return 1.0 - failed_P

    def split(self, held_in: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices of the held-in problems and of the held-out ones, both sorted."""
        order = np.random.default_rng(seed).permutation(len(self.problems))
        size = round(held_in * len(self.problems))
        return np.sort(order[:size]), np.sort(order[size:])


def apportion(k: int, weights: Mapping[str, float], most: Mapping[str, int]) -> Tries:
    """Splits k by weight in whole tries: largest remainders.

    A language gets no more than `most` allows; what it leaves goes to the others by their weight.

    Raises:
      GeexError: k is more than all languages allow together.
    """
    if k > sum(most[name] for name in weights):
        raise GeexError(
            f"{k} tries, and {sum(most[name] for name in weights)} samples in all languages",
            "make more samples or ask for a smaller k",
        )
    tries: Tries = dict.fromkeys(weights, 0)
    open_, rest = list(weights), k
    while open_:
        share = _largest_remainders(rest, {name: Fraction(weights[name]) for name in open_})
        full = [name for name in open_ if share[name] > most[name]]
        if not full:
            return {**tries, **share}
        for name in full:
            tries[name] = most[name]
            rest -= most[name]
            open_.remove(name)
    return tries


def uniform(board: Board, k: int) -> Tries:
    """The same number of tries in every language."""
    return apportion(k, dict.fromkeys(board.languages, 1.0), board.most)


def weighted(board: Board, k: int) -> Tries:
    """Tries by the share of each language in the paper's corpus.

    Raises:
      GeexError: a language that the corpus has not.
    """
    weights = {name: languages.get(name).corpus_tokens for name in board.languages}
    return apportion(k, weights, board.most)


def best_single(board: Board, k: int, on: NDArray[np.int64] | None = None) -> Tries:
    """All tries in the language that solves most of the problems `on` (indices; default: all).

    Raises:
      GeexError: no language has k samples of each problem.
    """
    able = [name for name in board.languages if board.most[name] >= k]
    if not able:
        raise GeexError(
            f"{k} tries in one language, and at most {max(board.most.values())} samples",
            "make more samples or ask for a smaller k",
        )
    on = np.arange(len(board.problems)) if on is None else on
    best = max(able, key=lambda name: board.solved({name: k})[on].sum())  # the first of equals
    return {name: k * (name == best) for name in board.languages}


def greedy(board: Board, k: int, on: NDArray[np.int64]) -> Tries:
    """Try after try to the language that adds most to the share of problems `on` solved.

    Raises:
      GeexError: k is more than all languages allow together.
    """
    tries = apportion(k, dict.fromkeys(board.languages, 1.0), board.most)  # refuses too large a k
    tries = dict.fromkeys(tries, 0)
    failed_LxP = np.ones((len(board.languages), on.size))
    n_LxP, c_LxP = board.n_LxP[:, on].astype(float), board.c_LxP[:, on]
    for _ in range(k):
        best, best_sum = -1, np.inf
        for at, name in enumerate(board.languages):
            if tries[name] < board.most[name]:
                trial = failed_LxP.copy()
                trial[at] = _one_more(failed_LxP[at], n_LxP[at], c_LxP[at], tries[name])
                total = trial.prod(axis=0).sum()
                if total < best_sum - 1e-12:
                    best, best_sum = at, total
        name = board.languages[best]
        failed_LxP[best] = _one_more(failed_LxP[best], n_LxP[best], c_LxP[best], tries[name])
        tries[name] += 1
    return tries


def allocate(
    counts: Mapping[str, Counts],
    ks: Sequence[int],
    *,
    held_in: float = 0.5,
    seed: int = 0,
    how: Bootstrap | None = None,
) -> list[Allocation]:
    """All strategies for all k; what cannot be had with the samples at hand is left out.

    Args:
      counts: language -> {task id: (n, c)}.
      ks: numbers of tries.
      held_in: share of problems on which the greedy split is chosen. seed: of that choice.
      how: how to resample problems for the intervals.

    Raises:
      GeexError: as `Board`; or a k that is more than all languages' samples.
    """
    board = Board(counts)
    chosen_on, rest = board.split(held_in, seed)
    table = []
    for k in ks:
        if k < 1:
            raise GeexError(f"{k} tries", "take 1 or more")
        table += _strategies(board, k, chosen_on, rest, how)
    return table


def _strategies(
    board: Board,
    k: int,
    chosen_on: NDArray[np.int64],
    rest: NDArray[np.int64],
    how: Bootstrap | None,
) -> list[Allocation]:
    found: list[tuple[str, Tries, bool, bool]] = [("uniform", uniform(board, k), True, True)]
    known = {word for x in languages.LANGUAGES for word in (x.name.lower(), x.slug, *x.aliases)}
    if all(name.lower() in known for name in board.languages):
        found.append(("by corpus share", weighted(board, k), True, True))
    if max(board.most.values()) >= k:
        found.append(("best single language", best_single(board, k), True, False))
        if chosen_on.size and rest.size:
            picked = best_single(board, k, chosen_on)
            found.append(("best single language, held in", picked, False, True))
    if chosen_on.size and rest.size:
        found.append(("greedy, held in", greedy(board, k, chosen_on), False, True))
    rows = []
    for name, tries, on_all, on_rest in found:
        solved_P = board.solved(tries)
        rows.append(
            Allocation(
                name, k, tries,
                mean_interval(solved_P, how) if on_all else None,
                mean_interval(solved_P[rest], how) if on_rest and rest.size else None,
            )
        )  # fmt: skip
    return rows


def _largest_remainders(k: int, weights: Mapping[str, Fraction]) -> Tries:
    total = sum(weights.values())
    exact = {name: k * weight / total for name, weight in weights.items()}
    tries = {name: int(value) for name, value in exact.items()}
    by_rest = sorted(exact, key=lambda name: tries[name] - exact[name])  # stable: first of equals
    for name in by_rest[: k - sum(tries.values())]:
        tries[name] += 1
    return tries


def _one_more(
    failed_P: NDArray[np.float64], n_P: NDArray[np.float64], c_P: NDArray[np.int64], tries: int
) -> NDArray[np.float64]:
    return failed_P * np.maximum(n_P - c_P - tries, 0.0) / (n_P - tries)


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts Python/2 before Python/10."""
    parts = (x for x in re.split(r"([0-9]+)", name) if x)
    return [(0, len(x.lstrip("0")), x.lstrip("0")) if x[0] in DIGITS else (1, 0, x) for x in parts]
