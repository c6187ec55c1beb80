"""A map over worker processes: results in order, bounded memory, no orphans."""

from __future__ import annotations

import collections
import concurrent.futures as futures
import multiprocessing as mp
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from geex_jax.errors import GeexError

Task = TypeVar("Task")
Result = TypeVar("Result")

_function: Callable[[Any], Any] | None = None


def ordered_map(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None = None
) -> Generator[Result, None, None]:
    """Yields `function(task)` for each task, in order, worked on by several processes.

    Processes are spawned, never forked: the caller may hold threads (jax has many). A script
    that calls this with more than one worker needs the usual `if __name__ == "__main__"`.

    Args:
      function: a callable that can be pickled; it is sent once to each worker.
      tasks: arguments that can be pickled; few of them are under way at any time.
      workers: number of processes; None for one per core; 1 works in this process.

    Raises:
      GeexError: a worker process died.
    """
    workers = min(count_workers(workers), max(len(tasks) // 2, 1))
    if workers == 1:
        yield from map(function, tasks)
        return
    pool = futures.ProcessPoolExecutor(
        workers, mp.get_context("spawn"), initializer=_start, initargs=(function,)
    )
    waiting: collections.deque[futures.Future[Result]] = collections.deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_call, task))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except futures.process.BrokenProcessPool:
        raise GeexError(
            "a worker process died (out of memory?)",
            "run the same command again with fewer --workers: it resumes",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def count_workers(workers: int | None) -> int:
    """Returns the number of processes to use: as asked, else the cores this process may use."""
    if workers:
        return max(1, workers)
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def _start(function: Callable[[Any], Any]) -> None:
    global _function
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A parent killed by -9 cannot stop its workers; without this they would wait for ever."""
    parent = mp.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _call(task: Any) -> Any:
    assert _function is not None
    return _function(task)
