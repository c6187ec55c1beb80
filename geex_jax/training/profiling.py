"""`--profile_steps 10:13`: an xprof trace of some steps, in the workdir's `profile/`."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import jax

from geex_jax.errors import GeexError


def parse_steps(text: str) -> tuple[int, int]:
    """ "10:13" as the first and the last step to trace; "10" is that step alone.

    Raises:
      GeexError: it is not two numbers from 1 on, in order.
    """
    found = re.fullmatch(r"(\d+)(?::(\d+))?", text)
    first = int(found[1]) if found else 0
    last = int(found[2] or found[1]) if found else 0
    if not 1 <= first <= last:
        raise GeexError(f"--profile_steps {text}", "write FIRST:LAST, such as 10:13")
    return first, last


class Profiler:
    """Traces steps `first` to `last`, by this process, of its own devices.

    Raises:
      GeexError: the run ends before `first`, or has passed it.
    """

    def __init__(
        self, workdir: pathlib.Path, steps: tuple[int, int] | None, start: int, end: int, say: Any
    ):
        self.folder, self.steps, self.say = workdir / "profile", steps, say
        self.running = False
        if steps is not None and not start < steps[0] <= steps[1] <= end:
            raise GeexError(
                f"--profile_steps {steps[0]}:{steps[1]} is not within this run's steps "
                f"{start + 1} to {end}",
                "choose steps that will be taken",
            )

    def before(self, step: int) -> None:
        """To be called before a step is dispatched."""
        if self.steps is not None and step == self.steps[0]:
            jax.profiler.start_trace(str(self.folder))
            self.running = True

    def after(self, step: int, numbers: Any) -> None:
        """To be called when it has been; waits for the last one to be done."""
        if self.running and self.steps is not None and step == self.steps[1]:
            jax.block_until_ready(numbers)
            self.close()
            self.say(f"profile     of steps {self.steps[0]} to {step}: xprof {self.folder}")

    def close(self) -> None:
        """Ends a trace that the run's end cuts short."""
        if self.running:
            jax.profiler.stop_trace()
            self.running = False
