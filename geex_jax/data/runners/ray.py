"""Tasks on the machines of a Ray cluster, which see one folder under the same path."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from geex_jax import files
from geex_jax.data.runners import Result
from geex_jax.errors import GeexError

Item = TypeVar("Item")

_TRIES = 4  # of a task whose machine goes away
# In a Ray worker: the phase's function, kept from task to task.
_kept: dict[str, Callable[[int], Result]] = {}


def package() -> Any:
    """Returns Ray. Raises GeexError where it is not installed."""
    try:
        import ray
    except ImportError:
        raise GeexError("Ray is not installed", 'pip install "geex-jax[ray]"') from None
    return ray


def connect(address: str, patience: float = 120.0) -> Any:
    """Connects this process to a Ray cluster. Returns Ray.

    A cluster that has just been started answers before it can serve: what it refuses while it
    starts is asked again.

    Args:
      address: ray://HOST:PORT, HOST:PORT or "auto".
      patience: seconds in which a refusal is asked again.

    Raises:
      GeexError: Ray is not installed, nothing answers there, or it goes on refusing.
    """
    ray = package()
    deadline = time.monotonic() + patience
    while True:
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR,
                     ignore_reinit_error=True)  # fmt: skip
            return ray
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if isinstance(error, ConnectionAbortedError) and time.monotonic() < deadline:
                ray.shutdown()
                time.sleep(1)
                continue
            lines = str(error).strip().splitlines() or [type(error).__name__]
            # A refusal comes with the traceback of the server: its last line is the reason.
            why = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1].strip()}"
            raise GeexError(
                f"no Ray cluster at {address}: {why}",
                "start one: ray start --head --ray-client-server-port=10001",
            ) from None


def each_once(
    submit: Callable[[Item], Any],
    items: Sequence[Item],
    most: int | None = None,
    what: str = "task",
) -> Iterator[tuple[Item, Any]]:
    """Yields (item, answer) as answers arrive, each item once.

    An item whose worker or machine dies is submitted again: tasks have no effects of their own.

    Args:
      submit: starts the task of an item, returns Ray's reference to its answer.
      items: begun in this order.
      most: tasks under way at a time; None for twice as many as there are cores, so that none of
        them waits for this process.
      what: an item is called, in the error.

    Raises:
      GeexError: the machines of an item died again and again.
      ray.exceptions.RayTaskError: a task failed of itself.
    """
    ray = package()
    waiting = [(item, 0) for item in reversed(items)]
    running: dict[Any, tuple[Item, int]] = {}
    try:
        while waiting or running:
            room = most or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
            while waiting and len(running) < room:
                item, tries = waiting.pop()
                running[submit(item)] = item, tries
            ready, _ = ray.wait(list(running), num_returns=1, timeout=5)
            for reference in ready:
                item, tries = running.pop(reference)
                try:
                    answer = ray.get(reference)
                except ray.exceptions.RayTaskError:
                    raise
                except ray.exceptions.RayError as error:
                    if tries + 1 >= _TRIES:
                        raise GeexError(
                            f"the machines of a {what} died {_TRIES} times: {type(error).__name__}",
                            "see the cluster's logs; run the same command to go on",
                        ) from None
                    waiting.append((item, tries + 1))
                else:
                    yield item, answer
    finally:
        for reference in running:
            ray.cancel(reference, force=False)


class RayRunner:
    """See `Runner`. A task whose worker or machine dies is given to another one.

    The object store holds nothing but task numbers and results of some KB: what tasks read and
    write lies in the shared folder. So does the phase's function, as a pickle.

    Args:
      address: ray://HOST:PORT of a cluster (Ray Client), or "auto" for this machine's.
      workers: tasks at a time; None for twice as many as there are cores.

    Raises:
      GeexError: Ray is not installed or the cluster does not answer.
    """

    def __init__(self, address: str, workers: int | None = None):
        self._workers = workers
        self._mine = not package().is_initialized()
        self._ray = connect(address)

    def run(
        self, function: Callable[[int], Result], numbers: Sequence[int], folder: str
    ) -> Iterator[tuple[int, Result]]:
        """Yields (number, result) as they arrive; also when machines die on the way."""
        if not numbers:
            return
        data = pickle.dumps(function)
        path = os.path.join(folder, f"function-{files.fingerprint(data)}.pickle")
        with files.atomic_write(path, "wb") as file:
            file.write(data)
        task = self._ray.remote(num_cpus=1, max_retries=0)(_run_task)
        try:
            yield from each_once(lambda n: task.remote(path, n), numbers, self._workers)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, GeexError | OSError):
                raise cause from None
            raise GeexError(
                f"a task failed on the cluster: {type(cause).__name__}: "
                f"{' '.join(str(cause).split())[:300]}",
                "--debug shows where",
            ) from error

    def close(self) -> None:
        """Leaves the cluster."""
        if self._mine:
            self._ray.shutdown()


def _run_task(path: str, number: int) -> Result:
    """In a Ray worker: one task of the phase whose function lies at `path`."""
    if path not in _kept:
        _kept.clear()
        with open(path, "rb") as file:
            _kept[path] = pickle.load(file)
    return _kept[path](number)
