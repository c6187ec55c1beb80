"""Tasks in processes of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from geex_jax.data import workers as processes
from geex_jax.data.runners import Result


class LocalRunner:
    """See `Runner`. One worker runs the tasks in this process."""

    def __init__(self, workers: int | None = None):
        self.workers = workers

    def run(
        self, function: Callable[[int], Result], numbers: Sequence[int], folder: str
    ) -> Iterator[tuple[int, Result]]:
        """Yields (number, result) in the order of `numbers`."""
        results = processes.ordered_map(function, numbers, self.workers)
        yield from zip(numbers, results, strict=True)

    def close(self) -> None:
        """Nothing is kept between phases."""
