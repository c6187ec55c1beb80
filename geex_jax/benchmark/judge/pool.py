"""Workers, each with a sandbox of the language at hand."""

from __future__ import annotations

import collections
import os
import pathlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence

from geex_jax import files
from geex_jax.benchmark import languages
from geex_jax.benchmark.languages.types import Limits, Outcome, Program, Verdict
from geex_jax.benchmark.sandbox.client import Sandbox, SandboxDied
from geex_jax.files import cache_folder

CHUNK = 16  # programs that a worker takes at a time where the language has no batch of its own


class Pool:
    """Judges programs on several workers.

    Args:
      workers: sandboxes that run at the same time; 0: one for each core.
      cache: folder of the languages' helpers; default `cache_folder()`.
      unsafe: run where layers of the sandbox are missing.
      batch: programs given to a language at a time; 0: what the language likes best.

    Attributes:
      warnings: language -> what its sandboxes had to say.
      lacking: layers of the sandbox that are missing.
      cpu_seconds: language -> CPU time spent inside its sandboxes.
    """

    def __init__(
        self, workers: int = 0, cache: files.Path | None = None, unsafe: bool = False,
        batch: int = 0, debug: bool = False,
    ):  # fmt: skip
        self.workers = workers or len(os.sched_getaffinity(0))
        self.cache = pathlib.Path(cache) if cache else cache_folder() / "toolchains"
        self.unsafe, self.batch, self.debug = unsafe, batch, debug
        self.warnings: dict[str, list[str]] = {}
        self.lacking: list[str] = []
        self.cpu_seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    def judge(
        self, programs: Mapping[str, Sequence[Program]], limits: Limits
    ) -> Iterator[tuple[str, int, Verdict]]:
        """Yields (language, index into its programs, verdict) as they come.

        Args:
          programs: language -> its programs.
          limits: for each program.

        Raises:
          GeexError: a sandbox or a toolchain does not start.
        """
        chunks: dict[str, collections.deque[list[int]]] = {}
        for name, some in programs.items():
            size = self.batch or max(languages.get(name).batch, CHUNK)
            # Small chunks towards the end, so that no worker is left alone with a large one.
            size = max(1, min(size, -(-len(some) // (2 * self.workers))))
            chunks[name] = collections.deque(
                [list(range(i, min(i + size, len(some)))) for i in range(0, len(some), size)]
            )
        total = sum(map(len, programs.values()))
        out: queue.Queue[tuple[str, int, Verdict] | BaseException] = queue.Queue()
        stop = threading.Event()
        threads = [
            threading.Thread(
                target=self._work, args=(chunks, programs, limits, out, stop), daemon=True
            )
            for _ in range(min(self.workers, sum(map(len, chunks.values()))))
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(total):
                item = out.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _work(
        self, chunks: dict[str, collections.deque[list[int]]],
        programs: Mapping[str, Sequence[Program]], limits: Limits,
        out: queue.Queue[tuple[str, int, Verdict] | BaseException], stop: threading.Event,
    ) -> None:  # fmt: skip
        sandbox: Sandbox | None = None
        current = ""
        try:
            while not stop.is_set():
                taken = self._take(chunks, current)
                if taken is None:
                    return
                name, indices = taken
                if sandbox is None or name != current:
                    if sandbox is not None:
                        self._leave(current, sandbox)
                    sandbox, current = None, name
                    sandbox = Sandbox(
                        languages.get(name), self.cache, unsafe=self.unsafe, debug=self.debug
                    )
                some = [programs[name][i] for i in indices]
                for index, verdict in judge_all(sandbox, some, limits, stop):
                    out.put((name, indices[index], verdict))
        except BaseException as error:
            out.put(error)
        finally:
            if sandbox is not None:
                self._leave(current, sandbox)

    def _leave(self, name: str, sandbox: Sandbox) -> None:
        sandbox.close()
        with self._lock:
            known = self.warnings.setdefault(name, [])
            known += [text for text in dict.fromkeys(sandbox.warnings) if text not in known]
            self.lacking += [x for x in sandbox.lacking if x not in self.lacking]
            self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + sandbox.cpu_seconds

    def _take(
        self, chunks: dict[str, collections.deque[list[int]]], current: str
    ) -> tuple[str, list[int]] | None:
        """The next chunk: of the worker's language while there is one, else of another."""
        with self._lock:
            name = current if chunks.get(current) else max(chunks, key=lambda x: len(chunks[x]))
            return (name, chunks[name].popleft()) if chunks[name] else None


def judge_all(
    sandbox: Sandbox, programs: Sequence[Program], limits: Limits,
    stop: threading.Event | None = None,
) -> Iterator[tuple[int, Verdict]]:  # fmt: skip
    """Yields each program's verdict, also when some of them end the sandbox itself.

    What was left of a batch is judged again one by one; a program that ends its sandbox twice
    on its own has failed by that.
    """
    left = dict(enumerate(programs))
    try:
        for index, verdict in sandbox.judge(programs, limits):
            del left[index]
            yield index, verdict
            if stop is not None and stop.is_set():
                return
        if not left:
            return
    except SandboxDied:
        pass
    for index, program in left.items():
        verdict = None
        for _ in range(2):
            try:
                for _, found in sandbox.judge([program], limits):
                    verdict = found
                break
            except SandboxDied as error:
                verdict = Verdict(Outcome.RUNTIME_ERROR, f"ended its sandbox: {error}"[:2000])
        yield index, verdict or Verdict(Outcome.RUNTIME_ERROR, "no verdict came")
