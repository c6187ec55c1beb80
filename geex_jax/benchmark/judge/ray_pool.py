"""Programs spread over a Ray cluster. The machines need this library and the toolchains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from geex_jax.benchmark import languages
from geex_jax.benchmark.judge.pool import CHUNK, judge_all
from geex_jax.benchmark.languages.types import Limits, Program, Verdict
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder

# In a Ray worker: the sandbox that it keeps from chunk to chunk. It ends with the worker.
_kept: dict[str, Sandbox] = {}


class RayPool:
    """The same as a `Pool`, on many machines.

    A chunk is a Ray task without effects of its own: when its worker or machine dies, it is
    given to another one, and only the answer that arrives counts.

    Args:
      address: ray://HOST:PORT of a cluster (Ray Client), HOST:PORT of its head, or "auto".
      unsafe, batch: see `Pool`.

    Raises:
      GeexError: Ray is not installed or the cluster does not answer.
    """

    def __init__(self, address: str, unsafe: bool = False, batch: int = 0):
        from geex_jax.data.runners.ray import connect  # not needed by the workers

        self._ray = connect(address)
        self.unsafe, self.batch = unsafe, batch
        self.warnings: dict[str, list[str]] = {}
        self.lacking: list[str] = []
        self.cpu_seconds: dict[str, float] = {}

    def judge(
        self, programs: Mapping[str, Sequence[Program]], limits: Limits
    ) -> Iterator[tuple[str, int, Verdict]]:
        """Yields (language, index, verdict), each once, also when machines die on the way.

        Raises:
          GeexError: a chunk's machines died again and again, or a toolchain does not start.
        """
        from geex_jax.data.runners.ray import each_once

        task = self._ray.remote(num_cpus=1, max_retries=0)(_judge_chunk)
        chunks: list[tuple[str, list[int]]] = []
        for name, some in programs.items():
            size = self.batch or max(languages.get(name).batch, CHUNK)
            chunks += [
                (name, list(range(i, min(i + size, len(some))))) for i in range(0, len(some), size)
            ]

        def submit(chunk: tuple[str, list[int]]) -> Any:
            name, indices = chunk
            return task.remote(name, [programs[name][i] for i in indices], limits, self.unsafe)

        try:
            for (name, indices), answer in each_once(submit, chunks, what="chunk"):
                verdicts, notes, cpu = answer
                self._note(name, notes, cpu)
                for index, verdict in zip(indices, verdicts, strict=True):
                    yield name, index, verdict
        except self._ray.exceptions.RayTaskError as error:
            raise GeexError(str(error.cause).splitlines()[0]) from None

    def _note(self, name: str, notes: tuple[list[str], list[str]], cpu: float) -> None:
        known = self.warnings.setdefault(name, [])
        known += [x for x in notes[0] if x not in known]
        self.lacking += [x for x in notes[1] if x not in self.lacking]
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + cpu


def _judge_chunk(
    name: str, programs: list[Program], limits: Limits, unsafe: bool
) -> tuple[list[Verdict], tuple[list[str], list[str]], float]:
    """In a Ray worker: verdicts in order, (warnings, missing layers), CPU seconds."""
    if name not in _kept:
        for other in _kept.values():
            other.close()
        _kept.clear()
        _kept[name] = Sandbox(languages.get(name), cache_folder() / "toolchains", unsafe=unsafe)
    box = _kept[name]
    before = box.cpu_seconds
    found = dict(judge_all(box, programs, limits))
    verdicts = [found[i] for i in range(len(programs))]
    return verdicts, (box.warnings, box.lacking), box.cpu_seconds - before
