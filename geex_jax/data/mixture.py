"""Which language each row of the stream is of: a pure function of the row's number.

Row n of the stream is row m of one language. With shares p, a language's row j (from 0) is due at
the time (j + 1/2) / p, and the stream is all rows in the order of their times: no language is ever
further than a row or so from its share, and any place of the stream can be computed without those
before it. The shares change at a step of the curriculum, and when a language has been seen as
often as the cap allows, which gives its share to the others; both begin a new phase, whose first
row is computed once, when the stream is opened.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from geex_jax import files
from geex_jax.data.manifest import Manifest
from geex_jax.errors import GeexError

# From this step on: language to weight, or the alpha of share^alpha.
Curriculum: TypeAlias = Sequence[tuple[int, Mapping[str, float] | float]]


class Told(NamedTuple):
    """A mixture as it was asked for; see `make_loader`."""

    alpha: float
    weights: Mapping[str, float] | None
    max_epochs: float
    curriculum: Curriculum


def told(
    manifest: Manifest,
    alpha: float | None,
    weights: Mapping[str, float] | None,
    max_epochs: float | None,
    curriculum: Curriculum | None,
) -> Told:
    """Returns what was asked for, the rest as the data's recipe has it.

    Weights or an alpha replace both of the recipe's.

    Raises:
      GeexError: a number that is none.
    """
    recipe = manifest.mixture
    if alpha is None and weights is None:
        alpha, weights = recipe.get("alpha"), recipe.get("weights")
    for name, value in (("alpha", alpha), ("max_epochs", max_epochs)):
        if value is not None and not _number(value):
            raise GeexError(f"{name} {value!r} is not a number", "give a number, such as 0.7")
    return Told(
        1.0 if alpha is None else alpha,
        weights,
        recipe.get("max_epochs", 0.0) if max_epochs is None else max_epochs,
        recipe.get("curriculum", ()) if curriculum is None else curriculum,
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def mixture(
    manifest: Manifest,
    split: str,
    names: Sequence[str],
    alpha: float = 1.0,
    weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Returns language name to probability, for the languages whose probability is not 0.

    Raises:
      GeexError: unknown languages, ones without rows, negative weights, or none above 0.
    """
    if weights is None:
        total = manifest.total(split).tokens
        raw = {name: (manifest.amount(split, name).tokens / total) ** alpha for name in names}
    else:
        raw = {manifest.languages[manifest.language_index(k)].name: v for k, v in weights.items()}
        for name, weight in raw.items():
            if not _number(weight):
                raise GeexError(f"the weight of {name} is no number: {weight!r}", "give a number")
            if not 0 <= weight < float("inf"):
                raise GeexError(f"the weight of {name} is {weight}", "use 0 to leave it out")
            if weight and name not in names:
                raise GeexError(
                    f"{name} has no rows in the {split} split",
                    f"weigh only languages that do: {', '.join(names)}",
                )
    positive = {name: weight for name, weight in raw.items() if weight > 0}
    if not positive:
        raise GeexError("all weights are 0", "give one language a positive weight")
    return {name: positive[name] / sum(positive.values()) for name in names if name in positive}


def stages(
    manifest: Manifest,
    split: str,
    names: Sequence[str],
    alpha: float,
    weights: Mapping[str, float] | None,
    curriculum: Curriculum,
) -> list[tuple[int, dict[str, float]]]:
    """Returns (first step, language to probability), of step 0 and of each change after it.

    Raises:
      GeexError: a curriculum of another form, or one whose steps do not ascend.
    """
    result = [(0, mixture(manifest, split, names, alpha, weights))]
    for entry in curriculum:
        try:
            step, what = entry
        except (TypeError, ValueError):
            step, what = None, None
        fits = len(what) > 0 if isinstance(what, Mapping) else _number(what)
        if type(step) is not int or what is None or not fits:
            raise GeexError(
                f"curriculum entry {entry!r} is not (step, weights or alpha)",
                "write ((10000, {'Python': 2.0, 'C': 1.0}), (20000, 0.5))",
            )
        if step <= result[-1][0]:
            raise GeexError(
                f"the curriculum's steps do not ascend at {step}", "start after 0, in order"
            )
        weighed = what if isinstance(what, Mapping) else None
        power = 1.0 if isinstance(what, Mapping) else float(what)
        result.append((step, mixture(manifest, split, names, power, weighed)))
    return result


@dataclasses.dataclass(frozen=True)
class Phase:
    """Rows of the stream with the same shares.

    Attributes:
      first: the stream's row that it begins with.
      taken: rows of each language before it, int64 [languages].
      shares: of each language, float64 [languages]; 0 for those that take no part.
    """

    first: int
    taken: np.ndarray
    shares: np.ndarray

    def before(self, time: float) -> np.ndarray:
        """Returns how many rows of each language are due before a time, int64 [languages]."""
        count = np.maximum(np.floor(time * self.shares + 0.5), 0)
        # The estimate is one off where a product rounds; the times themselves decide.
        count -= (count > 0) & (self._due(count - 1) >= time)
        count += self._due(count) < time
        return count.astype(np.int64)

    def until(self, time: float, last: int) -> np.ndarray:
        """The same, with those due at the very time of languages up to and including `last`."""
        count = self.before(time)
        equal = self._due(count.astype(np.float64)) == time
        equal[last + 1 :] = False
        return count + equal

    def _due(self, number: np.ndarray) -> np.ndarray:
        return np.divide(
            number + 0.5, self.shares, out=np.full(len(self.shares), np.inf), where=self.shares > 0
        )

    def take(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns language and number among its rows of rows of this phase, int64 [count] each.

        `start` counts from the phase's first row.
        """
        margin = len(self.shares) / 2 + 1  # no count is more than 1/2 from share x time
        low = self.before(max(start - margin, 0.0))
        high = self.before(start + count + margin)
        sizes = high - low
        language = np.repeat(np.arange(len(sizes)), sizes)
        ends = np.cumsum(sizes)
        number = np.arange(ends[-1]) + np.repeat(low - (ends - sizes), sizes)
        due = (number + 0.5) / self.shares[language]
        skip = start - int(low.sum())
        order = np.argsort(due, kind="stable")[skip : skip + count]
        language = language[order]
        return language, number[order] + self.taken[language]

    def seen(self, rows: int) -> np.ndarray:
        """Returns rows of each language before some row, earlier phases included."""
        low = self.before(max(rows - len(self.shares) / 2 - 1, 0.0))
        done = int(low.sum())  # all that are due before some time are the first so many
        language, _ = self.take(done, rows - done)
        return self.taken + low + np.bincount(language, minlength=len(low))


class Stream:
    """An order of rows of several languages, open to access at any place.

    Attributes:
      names: the languages, in the order of the indices that `take` returns.
      phases: see `Phase`, in order.
      total: rows after which the cap leaves no language to go on with; None: endless.
    """

    def __init__(
        self,
        stages: Sequence[tuple[int, Mapping[str, float]]],
        rows: Mapping[str, int],
        max_epochs: float = 0.0,
    ):
        """Computes the phases.

        Args:
          stages: (first row of the stream, language to share), ascending, the first one's 0.
          rows: language to rows in an epoch.
          max_epochs: how often each language's rows are seen at most; 0: no limit.
        """
        if not 0 <= max_epochs < float("inf"):
            raise GeexError(f"max_epochs {max_epochs} is out of range", "use 0 for no limit")
        self.names = [name for name in rows if any(name in shares for _, shares in stages)]
        self.phases: list[Phase] = []
        self.total: int | None = None
        limit = [max(1, int(max_epochs * rows[n])) if max_epochs else np.inf for n in self.names]
        taken, row = np.zeros(len(self.names), np.int64), 0
        ends = [first for first, _ in stages[1:]] + [None]
        for (_, shares), end in zip(stages, ends, strict=True):
            weights = np.array([shares.get(name, 0.0) for name in self.names])
            while end is None or row < end:
                left = np.where(weights > 0, limit - taken, 0)
                open_weights = np.where(left > 0, weights, 0)
                if not open_weights.any():
                    self.total = row
                    break
                phase = Phase(row, taken, open_weights / open_weights.sum())
                self.phases.append(phase)
                after = _first_to_end(phase, left)
                if after is None or (end is not None and row + (after - taken).sum() > end):
                    if end is None:
                        break
                    after = phase.seen(end - row)
                row, taken = row + int((after - taken).sum()), after
            if self.total is not None:
                break
        self._firsts = [phase.first for phase in self.phases]

    def take(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns language index and number among the language's rows, int64 [count] each.

        Raises:
          IndexError: the stream ends before.
        """
        if self.total is not None and first + count > self.total:
            raise IndexError(f"rows {first} to {first + count} of {self.total}")
        parts = []
        while count:
            number = int(np.searchsorted(self._firsts, first, side="right")) - 1
            last = number + 1 == len(self.phases)
            here = count if last else min(count, self._firsts[number + 1] - first)
            parts.append(self.phases[number].take(first - self._firsts[number], here))
            first, count = first + here, count - here
        languages, numbers = zip(*parts, strict=True)
        return np.concatenate(languages), np.concatenate(numbers)

    def seen(self, rows: int) -> dict[str, int]:
        """Returns how many of the first `rows` rows are of each language."""
        number = int(np.searchsorted(self._firsts, rows, side="right")) - 1
        counts = self.phases[number].seen(rows - self._firsts[number])
        return dict(zip(self.names, counts.tolist(), strict=True))

    def fingerprint(self) -> str:
        """Returns 16 hex digits over all that decides the order."""
        parts = [f"{self.names} {self.total}"]
        for phase in self.phases:
            parts.append(f"{phase.first} {phase.taken.tolist()} {phase.shares.tolist()}")
        return files.fingerprint(*parts)


def _first_to_end(phase: Phase, left: np.ndarray) -> np.ndarray | None:
    """Returns rows taken of each language once the first of them has no rows left.

    None: none ever ends.
    """
    capped = np.flatnonzero((left > 0) & np.isfinite(left))
    if not len(capped):
        return None
    due: Any = (left[capped] - 0.5) / phase.shares[capped]
    soonest = int(np.argmin(due))
    return phase.taken + phase.until(float(due[soonest]), int(capped[soonest]))
