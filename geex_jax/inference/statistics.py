"""Counters of the engine, for logs and metrics."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

BOUNDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Histogram:
    """Cumulative counts by upper bound (seconds), sum and number, as Prometheus has them."""

    def __init__(self):
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[next((i for i, b in enumerate(BOUNDS) if value <= b), len(BOUNDS))] += 1
        self.sum += value

    def to_dict(self) -> dict[str, Any]:
        """Returns {"buckets": {bound: number at or below}, "sum", "count"}."""
        total, buckets = 0, {}
        for bound, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            total += count
            buckets[bound] = total
        return {"buckets": buckets, "sum": self.sum, "count": total}


class Statistics:
    """Thread-safe counters.

    Attributes:
      finished: samples by how they ended. counts: all other counters by name.
      first: seconds from submission to the first token. each: seconds between a row's tokens.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._finished: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._first, self._each = Histogram(), Histogram()

    def add(self, **counts: int) -> None:
        """Adds to counters."""
        with self._lock:
            self._counts.update(counts)

    def finish(self, reason: str) -> None:
        """Counts a sample that ended."""
        with self._lock:
            self._finished[reason] += 1

    def first_token(self, seconds: float) -> None:
        """Counts the time from submission to a request's first token."""
        with self._lock:
            self._first.add(seconds)

    def tokens(self, seconds: float, count: int) -> None:
        """Counts `count` tokens of one row, drawn in `seconds` together."""
        with self._lock:
            for _ in range(count):
                self._each.add(seconds / count)

    def to_dict(self) -> dict[str, Any]:
        """All of them; see `Engine.stats`."""
        with self._lock:
            names = (
                "requests", "samples", "rejected", "prompt_tokens", "prefilled_tokens",
                "drawn_tokens", "decode_steps", "prefix_hits", "prefix_misses",
                "prefix_tokens_saved", "draft_proposed", "draft_accepted", "errors",
            )  # fmt: skip
            return {
                **{name: self._counts[name] for name in names},
                "finished": dict(self._finished),
                "time_to_first_token": self._first.to_dict(),
                "time_per_token": self._each.to_dict(),
            }
