"""Sides of a bench in processes of their own, which take turns: each call waits for its answer."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import Any

from geex_jax.errors import GeexError


class Side:
    """A worker process around one object; `call` runs one of its methods there and waits.

    Args:
      factory: "module:function"; called in the new process with `spec`, it makes the object.
      spec: picklable argument of the factory.
      cores: what the process is pinned to before it imports anything heavy.
      env: environment variables of that process alone.

    Raises:
      GeexError: what the factory or a method raised, as one line.
    """

    def __init__(self, factory: str, spec: Any, cores: Sequence[int], env: dict[str, str]):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, factory, spec, list(cores), env), daemon=True
        )
        self._process.start()
        theirs.close()  # so that a worker that dies ends our waiting
        self._receive()

    def call(self, method: str, *args: Any) -> Any:
        """Returns `object.method(*args)` of the worker."""
        self._pipe.send((method, args))
        return self._receive()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def _receive(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            raise GeexError(
                "a side of the bench died", "out of memory? take a smaller batch"
            ) from (None)
        if kind == "error":
            raise GeexError(value)
        return value


def _serve(pipe: Any, factory: str, spec: Any, cores: list[int], env: dict[str, str]) -> None:
    os.environ.update(env)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # thread pools are as large as this when they start
    module, _, name = factory.partition(":")
    # EOFError: the other end has closed, the work is over.
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        try:
            target = getattr(importlib.import_module(module), name)(spec)
            pipe.send(("ok", None))
            while True:
                method, args = pipe.recv()
                pipe.send(("ok", getattr(target, method)(*args)))
        except GeexError as error:
            pipe.send(("error", str(error)))
        except EOFError:
            raise
        except Exception as error:
            pipe.send(("error", f"{type(error).__name__}: {error}".splitlines()[0]))


@contextlib.contextmanager
def closing_all() -> Iterator[dict[str, Side]]:
    """A dict to put sides in; all are closed in the end."""
    sides: dict[str, Side] = {}
    try:
        yield sides
    finally:
        for side in sides.values():
            side.close()
