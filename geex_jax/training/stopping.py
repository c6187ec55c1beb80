"""Ctrl-C and SIGTERM end a run after the step at hand: on all processes after the same step.

With several processes this is jax's preemption service: the process that is told (SIGTERM is what
a maintenance event sends) tells the coordinator, whose clients agree in the background on the step
after the furthest one; each step only compares a number (about 10 us), nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import jax


class Stop:
    """Whether the run is to end, and by what signal."""

    def __init__(self):
        """Nobody has asked yet."""
        self.signal = ""
        self.asked = ""
        self.several = jax.process_count() > 1

    def reached(self, step: int) -> bool:
        """Whether the run ends after `step`; to be asked once for each step, by all processes."""
        if not self.several:
            self.signal = self.asked
        elif not self.signal:
            from jax.experimental.multihost_utils import reached_preemption_sync_point

            if reached_preemption_sync_point(step):
                self.signal = self.asked or "SIGTERM"
        return bool(self.signal)


@contextlib.contextmanager
def stop_requests() -> Iterator[Stop]:
    """Listens for the length of a block; a second Ctrl-C ends it at once."""
    stop = Stop()

    def ask(number: int, _: object) -> None:
        if stop.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.asked = signal.Signals(number).name
        if stop.several:  # jax's service hears SIGTERM in C++, and tells the others
            os.kill(os.getpid(), signal.SIGTERM)

    old = {}
    heard = (signal.SIGINT,) if stop.several else (signal.SIGINT, signal.SIGTERM)
    try:
        for number in heard:
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread (a notebook's worker): nothing to catch there
        pass
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
