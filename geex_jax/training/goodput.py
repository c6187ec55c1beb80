"""Where a run's wall time goes, and goodput.

Goodput = productive step time / wall time since the run's first start.

- productive: time in steps (host and device, without waiting for data) whose results are in the
  state at hand. Steps that a kill lost, and that were taken again, count once.
- wall: from the first start in this workdir until now: also restarts, the time in between,
  compiling, restoring, waiting for data, saves, evaluation, and lost steps.

A step's time is split three ways:

- data: waiting for the loader's next batch;
- device: waiting for the numbers of the step before, while the devices compute;
- host: the rest: placing the batch, dispatching, bookkeeping. (On backends that dispatch
  synchronously, such as a CPU, computing shows up here.)

`tokens_per_second` and MFU are over step time (data + host + device), so neither a save nor an
evaluation changes them; goodput has those. MFU = tokens/s x model FLOPs per token / (peak FLOP/s
of a device x devices), with the convention of `metrics.flops_per_token`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from geex_jax import files

STEP = ("data", "host", "device")
OTHER = ("start", "restore", "compile", "evaluate", "save", "lost")
_WRITE_EVERY = 5.0  # seconds


class Clock:
    """Always in one phase, whose time is running; the watchdog reads which one, and since when.

    Attributes:
      now: the phase (one of STEP and OTHER), the step that it works on, and when it was entered
        (time.monotonic); one tuple, so that another thread never reads half a change.
      spent: seconds of each phase in this process's run.
    """

    def __init__(self):
        """Starts in "start"."""
        self.spent: dict[str, float] = dict.fromkeys((*STEP, *OTHER), 0.0)
        self.now = ("start", 0, time.monotonic())

    def enter(self, phase: str, step: int | None = None) -> None:
        """Ends the phase at hand and begins another."""
        old, number, since = self.now
        now = time.monotonic()
        self.spent[old] += now - since
        self.now = (phase, number if step is None else step, now)

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase for the length of a block; then on with the one before."""
        before = self.now[0]
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def step_seconds(self) -> dict[str, float]:
        """Seconds spent in steps so far, by part."""
        return {part: self.spent[part] for part in STEP}


class Goodput:
    """The account of a workdir over all its runs, in `goodput.json`; the first process keeps it.

    Args:
      workdir: of the run.
      clock: of this process.
      step: the step that this run starts from.
      productive: productive seconds at that step, as `productive()` gave it to the checkpoint.
      keep: whether to write the file.
    """

    def __init__(
        self, workdir: pathlib.Path, clock: Clock, step: int, productive: float, keep: bool
    ):
        self.path, self.clock, self.keep = workdir / "goodput.json", clock, keep
        old: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            old = json.loads(self.path.read_text())
        began = time.time() - (time.monotonic() - clock.now[2]) - sum(clock.spent.values())
        self.first = float(old.get("first_start", began))
        self.runs = int(old.get("runs", 0)) + 1
        self.before = {name: float(old.get(name, 0.0)) for name in (*OTHER, "data")}
        self.base = productive
        # What an earlier run did after the state that this one starts from was for nothing.
        self.before["lost"] += max(0.0, float(old.get("productive", 0.0)) - productive)
        self.written = 0.0
        self.write(step, at_once=True)

    def productive(self) -> float:
        """Productive seconds up to now, over all runs."""
        return self.base + self.clock.spent["host"] + self.clock.spent["device"]

    def value(self) -> float:
        """Goodput, from 0 to 1."""
        return self.productive() / max(time.time() - self.first, 1e-9)

    def table(self) -> dict[str, float]:
        """Seconds by what they went to, over all runs; "down" is what no run accounts for."""
        found = {name: self.before[name] + self.clock.spent[name] for name in (*OTHER, "data")}
        found["productive"] = self.productive()
        wall = time.time() - self.first
        return found | {"down": max(0.0, wall - sum(found.values())), "wall": wall}

    def write(self, step: int, at_once: bool = False) -> None:
        """Writes goodput.json, at most every few seconds unless `at_once`."""
        now = time.monotonic()
        if not self.keep or (not at_once and now - self.written < _WRITE_EVERY):
            return
        self.written = now
        about = {"first_start": self.first, "runs": self.runs, "step": step}
        files.write_json(self.path, about | {"goodput": self.value()} | self.table())
