"""Where tasks run: processes of this machine, or a Ray cluster over a shared folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from geex_jax.errors import GeexError

Result = dict[str, Any]  # small JSON values


class Runner(Protocol):
    """Runs the tasks of a phase.

    A task is a pure function of its number: it reads files, writes files under temporary names,
    renames them, and returns a small JSON object. It may run twice (a machine that was given up
    comes back): both write the same bytes.
    """

    def run(
        self, function: Callable[[int], Result], numbers: Sequence[int], folder: str
    ) -> Iterator[tuple[int, Result]]:
        """Yields (number, result) of every task, each once, in any order.

        Args:
          function: can be pickled; workers get it once, through `folder`.
          numbers: the tasks to run.
          folder: work folder, which all workers see under this path.

        Raises:
          GeexError: a task said so, or its workers died again and again.
          OSError: a task could not read or write.
        """
        ...

    def close(self) -> None:
        """Lets workers go."""
        ...


def open_runner(spec: str = "local", workers: int | None = None) -> Runner:
    """Opens "local" (processes of this machine) or a Ray cluster: "ray://HOST:PORT", "ray".

    Args:
      spec: which one.
      workers: processes; None for one per core. A Ray cluster runs one task on each of its cores
        unless this says fewer.

    Raises:
      GeexError: no such runner, or Ray is not there.
    """
    if spec == "local":
        from geex_jax.data.runners.local import LocalRunner

        return LocalRunner(workers)
    if spec == "ray" or spec.startswith("ray://"):
        from geex_jax.data.runners.ray import RayRunner

        return RayRunner("auto" if spec == "ray" else spec, workers)
    raise GeexError(
        f"unknown runner {spec!r}", "use local, ray (this machine's) or ray://HOST:PORT"
    )
