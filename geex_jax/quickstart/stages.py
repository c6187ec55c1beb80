"""Rows of commands: each verb is printed before it runs, and timed."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import shlex
import time
from collections.abc import Callable, Sequence

from geex_jax.errors import GeexError

Verb = Callable[[Sequence[str]], int]


@dataclasses.dataclass
class Stage:
    """One command and the seconds that it took."""

    command: str
    seconds: float


class Stages:
    """Runs verbs, one after the other.

    Args:
      verb: runs one command line of words, returns its exit status.
      seconds: time for all of them together.

    Attributes:
      done: the commands so far.
    """

    def __init__(self, verb: Verb, seconds: float):
        self._verb = verb
        self._started = time.monotonic()
        self._seconds = seconds
        self.done: list[Stage] = []

    @property
    def gone(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self._seconds - self.gone

    def attempt(self, *words: object, printed: io.StringIO | None = None) -> int:
        """Runs a command that may fail; returns its exit status.

        What it prints goes to `printed`, if that is given.
        """
        line = ["geex", *map(str, words)]
        print(f"\n$ {shlex.join(line)}", flush=True)
        began = time.monotonic()
        aside = (
            contextlib.redirect_stdout(printed) if printed is not None else contextlib.nullcontext()
        )
        with aside:
            status = self._verb(line[1:])
        self.done.append(Stage(shlex.join(line), time.monotonic() - began))
        return status

    def run(self, *words: object, printed: io.StringIO | None = None) -> None:
        """Runs a command that must succeed.

        Raises:
          GeexError: it did not.
        """
        if status := self.attempt(*words, printed=printed):
            line = shlex.join(["geex", *map(str, words)])
            raise GeexError(f"'{line}' ended with status {status}", "see above")

    def read(self, *words: object) -> str:
        """Runs a command that must succeed; returns what it printed."""
        printed = io.StringIO()
        self.run(*words, printed=printed)
        return printed.getvalue()


def steps_that_fit(seconds: float, experiment: pathlib.Path, vocab_size: int, seq_len: int) -> int:
    """Steps of the experiment that this machine does in that time: a few are tried."""
    import jax
    import numpy as np

    from geex_jax.models import Transformer
    from geex_jax.training import config as configs
    from geex_jax.training import init_state, make_optimizer, train_step

    config = configs.load_config(experiment)
    model = Transformer(configs.model_config(config, vocab_size, seq_len))
    optimizer = make_optimizer(configs.optimizer_config(config))
    shape = (config.batch_size, seq_len)
    ids = np.random.default_rng(0).integers(0, vocab_size, shape, np.int32)
    ones = np.ones(shape, np.int32)
    batch = {"tokens": ids, "targets": ids, "segment_ids": ones, "loss_mask": ones.astype("f4")}
    batch["positions"] = np.broadcast_to(np.arange(seq_len, dtype=np.int32), shape)
    step = jax.jit(train_step, donate_argnums=0)
    state, _ = step(init_state(model, optimizer, config=configs.step_config(config)), batch)
    times = []
    for _ in range(7):
        began = time.monotonic()
        state, _ = jax.block_until_ready(step(state, batch))
        times.append(time.monotonic() - began)
    # The loop also reads data, writes metrics and shares the cores with its loader.
    return max(60, int(0.85 * seconds / float(np.median(times))))


def planned_steps(
    workdir: pathlib.Path, seconds: float, experiment: pathlib.Path, vocab_size: int, seq_len: int
) -> int:
    """Steps of a run: as many as fit, or those that it was started with."""
    saved = workdir / "experiment.json"
    if saved.is_file():  # a run taken up again keeps its schedule
        return json.loads(saved.read_text())["steps"]
    print("\ntrying a few steps to see how many fit", flush=True)
    return steps_that_fit(seconds, experiment, vocab_size, seq_len)
