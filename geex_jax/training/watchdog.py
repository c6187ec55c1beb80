"""Finds a step that does not end: stacks on disk, the hung process by name, an exit status.

A thread in each process writes where its main thread is to `heartbeats/process-N.json` in the
workdir, every few seconds: no step waits for it. When a step takes too long, each process dumps
the stacks of all its threads to `stacks/process-N.txt`, reads the others' heartbeats, says which
process the others wait for, and after a grace ends with status 70, for a supervisor to restart.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import math
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.training.goodput import STEP, Clock

EXIT_STATUS = 70  # EX_SOFTWARE
_SLOWER = 6.0  # an evaluation or a save may take so many times as long as a step
_SILENT = 60.0  # seconds; heartbeats come every 10 s or oftener, hosts' clocks differ a little
_UNTIMED = ("start", "restore", "compile")


class Watchdog:
    """Watches the clock of this process.

    Args:
      workdir: of the run, the same folder for all processes.
      clock: what the main thread does.
      seconds: how long a step may take; 0 watches nothing. Evaluations and saves may take 6 times
        as long, compiling and restoring as long as they like, and the others wait for them.
      grace: seconds between the alarm and the end, for the others to say who hangs too.
    """

    def __init__(self, workdir: pathlib.Path, clock: Clock, seconds: float, grace: float):
        if seconds < 0 or grace < 0:
            raise GeexError(f"watchdog.seconds {seconds}, grace {grace}", "give 0 or more")
        self.clock, self.seconds, self.grace = clock, seconds, grace
        self.number, self.count = jax.process_index(), jax.process_count()
        self.beats, self.stacks = workdir / "heartbeats", workdir / "stacks"
        self.tick = min(max(seconds / 5, 0.2), 10.0)
        self.ended = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watches for the length of a block."""
        if not self.seconds:
            yield
            return
        self.stacks.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            self._file("stacks").unlink()
        self._beat()
        thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        # A main thread that holds the interpreter's lock stops this one too: C code then dumps
        # the stacks to process-N-locked.txt and ends the process.
        with open(self._file("locked"), "w") as last:
            try:
                self._arm(last)
                thread.start()
                yield
            finally:
                self.ended.set()
                thread.join(self.tick + 5)
                faulthandler.cancel_dump_traceback_later()
        os.unlink(last.name)

    def _arm(self, file: Any) -> None:
        limit = self.seconds * _SLOWER + self.grace + 60
        faulthandler.dump_traceback_later(limit, exit=True, file=file)

    def _run(self) -> None:
        with open(self._file("locked"), "a") as last:
            while not self.ended.wait(self.tick):
                self._arm(last)
                self._beat()
                now = self.clock.now
                if time.monotonic() - now[2] <= limit_of(now[0], self.seconds):
                    continue
                if not excused(self.beats, self.count, now[1], self.seconds):
                    self._alarm(now)
            faulthandler.cancel_dump_traceback_later()

    def _file(self, kind: str) -> pathlib.Path:
        if kind == "stacks":
            return self.stacks / f"process-{self.number}.txt"
        if kind == "locked":
            return self.stacks / f"process-{self.number}-locked.txt"
        return self.beats / f"process-{self.number}.json"

    def _beat(self) -> None:
        phase, step, since = self.clock.now
        row = {
            "process": self.number,
            "processes": self.count,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "step": step,
            "phase": phase,
            "seconds": round(time.monotonic() - since, 1),
            "time": time.time(),
        }
        with contextlib.suppress(OSError):  # a full disk must not end a run
            files.write_json(self._file("beat"), row)

    def _alarm(self, now: tuple[str, int, float]) -> None:
        phase, step, since = now
        place = self._file("stacks")
        with open(place, "w") as file:
            file.write(f"process {self.number}, step {step}, {_words(phase)}\n")
            file.flush()
            faulthandler.dump_traceback(file)
        time.sleep(min(2 * self.tick, 5.0))  # for the others' heartbeats
        if self.ended.is_set() or self.clock.now != now:
            return  # slow, not hung
        print(
            f"watchdog: process {self.number} ({socket.gethostname()}) has been "
            f"{_words(phase)} in step {step} for {time.monotonic() - since:.0f} s; "
            f"{blame(self.beats, self.count)}; stacks in {place}; ending in {self.grace:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if not self.ended.wait(self.grace):
            sys.stdout.flush()
            os._exit(EXIT_STATUS)


def limit_of(phase: str, seconds: float) -> float:
    """How long a phase may take when a step may take `seconds`."""
    if phase in _UNTIMED:
        return math.inf
    return seconds * (1.0 if phase in STEP else _SLOWER)


def excused(beats: pathlib.Path, count: int, step: int, seconds: float) -> bool:
    """Whether one that is not ahead of `step` compiles, saves or evaluates, within its time."""
    for number in range(count):
        try:
            row = json.loads((beats / f"process-{number}.json").read_text())
        except (OSError, ValueError):
            continue
        age = time.time() - row["time"]
        known = age < _SILENT and row["phase"] not in STEP and row["step"] <= step
        if known and row["seconds"] + age < limit_of(row["phase"], seconds):
            return True
    return False


def blame(beats: pathlib.Path, count: int) -> str:
    """Says whom the others wait for, by the heartbeats: the processes that are furthest behind."""
    rows, silent = [], []
    for number in range(count):
        try:
            row = json.loads((beats / f"process-{number}.json").read_text())
        except (OSError, ValueError):
            silent.append(f"process {number}")
            continue
        if time.time() - row["time"] > _SILENT:
            silent.append(f"process {number} ({row['host']}, pid {row['pid']})")
        rows.append(row)
    if silent:
        return f"no sign of life from {', '.join(silent[:4])}"
    if count == 1:
        return "it is the only process"
    last = min(_place(row) for row in rows)
    behind = [row for row in rows if _place(row) == last]
    if len(behind) == count:
        return f"all {count} processes are there: a device or the network hangs, not one process"
    names = ", ".join(
        f"process {row['process']} ({row['host']}, pid {row['pid']}) hangs in step {row['step']}, "
        f"{_words(row['phase'])}"
        for row in behind[:4]
    )
    more = f" and {len(behind) - 4} more" if len(behind) > 4 else ""
    return f"{names}{more}"


def _place(row: dict[str, Any]) -> tuple[int, int]:
    # In the order of the loop: who waits for data has not dispatched the step, who waits for the
    # device has. Host work lies between.
    order = {"data": 0, "host": 1, "device": 2}
    return row["step"], order.get(row["phase"], 3)


def _words(phase: str) -> str:
    return {
        "data": "waiting for data",
        "host": "placing the batch or dispatching the step",
        "device": "waiting for the devices",
        "evaluate": "evaluating",
        "save": "saving",
    }.get(phase, phase)
