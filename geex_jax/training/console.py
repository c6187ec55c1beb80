"""What a run says: the banner, a line every few steps, why a step was skipped."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import jax
import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.training import metrics as measures
from geex_jax.training.goodput import Clock, Goodput
from geex_jax.training.optimizer import schedule
from geex_jax.training.run import Run
from geex_jax.training.step import TrainState


class Progress:
    """Reads the numbers of a step, writes them, prints a line, stops a run that cannot learn.

    Attributes:
      not_finite: whether the last step that was added had numbers that are not finite.
    """

    def __init__(
        self, run: Run, writer: measures.MetricWriter, step: int, say: Any, clock: Clock,
        goodput: Goodput,
    ):  # fmt: skip
        self.run, self.writer, self.say = run, writer, say
        self.clock, self.goodput = clock, goodput
        self.skipped_in_a_row, self.not_finite = 0, False
        # Only the first process's figures are written; a measurement by all would disturb it.
        first = jax.process_index() == 0
        self.peak = measures.peak_flops(run.model.config.dtype)[0] if first else math.inf
        self.flops = measures.flops_per_token(run.model.config, run.seq_len)
        self.lr = schedule(run.optimizer_config)
        self.names = [language.name for language in run.manifest.languages]
        self.first = self.last_step = step
        self.last_spent = clock.step_seconds()
        self.began = time.monotonic()
        self.tokens_seen = np.zeros(len(self.names), np.int64)
        self.skips = np.zeros(len(self.names), np.int64)
        self.window = np.zeros((2, len(self.names)))  # nats and tokens since the last line

    def resume(self, kept: dict[str, Any]) -> None:
        """Goes on counting from what a checkpoint has kept."""
        for key, counts in (("tokens_seen", self.tokens_seen), ("language_skips", self.skips)):
            for name, count in kept.get(key, {}).items():
                counts[self.run.manifest.language_index(name)] = count

    def kept(self) -> dict[str, Any]:
        """What a checkpoint keeps for `resume`."""
        return {
            "tokens_seen": self.seen(),
            "language_skips": self._named(self.skips),
            "productive_seconds": self.goodput.productive(),
        }

    def seen(self) -> dict[str, int]:
        """Returns language name to tokens seen so far, padding left out."""
        return self._named(self.tokens_seen)

    def _named(self, counts: np.ndarray) -> dict[str, int]:
        return {n: count for n, count in zip(self.names, counts.tolist(), strict=True) if count}

    def add(self, step: int, numbers: dict[str, jax.Array]) -> None:
        """Takes the numbers of a step that has been dispatched."""
        with self.clock.during("device"):
            read = jax.device_get(numbers)
        table = np.asarray(read["by_language"], np.float64)  # [4, languages], see training.step
        values = {k: float(v) for k, v in read.items() if k != "by_language"}
        self.tokens_seen += table[3].astype(np.int64)
        self._mind_skips(step, values, table)
        if not values["skipped"]:
            self.window += table[:2]
        row: dict[str, Any] = {
            "loss": values["loss"],
            "bits_per_byte": (
                values["loss"] * values["tokens"] / math.log(2) / max(table[2].sum(), 1.0)
            ),
            "grad_norm": values["grad_norm"],
            "lr": float(np.asarray(self.lr(step - 1))),
            "skipped": values["skipped"],
        }
        config = self.run.config
        if step % config.log.every == 0 or step == config.steps:
            row |= self._speed(step) | self._languages()
            waits = row["data_seconds"] / max(row["step_seconds"], 1e-9)
            self.say(
                f"step {step:>6}/{config.steps}  loss {row['loss']:.4f}  "
                f"{row['bits_per_byte']:.3f} bits/byte  grad {row['grad_norm']:.2f}  "
                f"lr {row['lr']:.2e}  {row['tokens_per_second']:,.0f} tokens/s  "
                f"MFU {row['mfu']:.1%}  goodput {row['goodput']:.0%}  "
                + (f"waits for data {waits:.0%}  " if waits > 0.1 else "")
                + f"{files.seconds(row['seconds_left'])} left",
                flush=True,
            )
            self.goodput.write(step)
        self.writer.write(step, "train", row)

    def _languages(self) -> dict[str, Any]:
        """Tokens seen, mean loss since the last line, and skipped batches, of each language."""
        nats, tokens = self.window
        losses = {
            name: nats[i] / tokens[i] for i, name in enumerate(self.names) if tokens[i]
        }  # fmt: skip
        self.window = np.zeros_like(self.window)
        out: dict[str, Any] = {"tokens_seen": self.seen(), "language_loss": losses}
        return out | ({"language_skips": self._named(self.skips)} if self.skips.any() else {})

    def _mind_skips(self, step: int, values: dict[str, float], table: np.ndarray) -> None:
        self.not_finite = bool(values["not_finite"])
        if not values["skipped"]:
            self.skipped_in_a_row = 0
            return
        self.skipped_in_a_row += 1
        if values["not_finite"]:
            what = f"loss {values['loss']}, gradient norm {values['grad_norm']}: not finite"
        else:
            what = (
                f"spike: loss {values['loss']:.3f} (limit {values['limit']:.3f}), "
                f"gradient norm {values['grad_norm']:.3g}"
            )
        self.skips += table[3] > 0
        nats, tokens = table[:2]
        losses = {
            name: float(nats[i] / tokens[i]) for i, name in enumerate(self.names) if tokens[i]
        }
        # The languages that were hit the hardest come first; NaN counts as that.
        worst = sorted(losses, key=lambda n: -losses[n] if math.isfinite(losses[n]) else -math.inf)
        told = "  ".join(f"{name} {losses[name]:.3f}" for name in worst[:6])
        self.say(
            f"step {step} skipped, parameters unchanged: {what}; loss by language: {told}",
            file=sys.stderr,
        )
        self.writer.write(step, "skip", {**values, "language_loss": losses})
        if self.skipped_in_a_row >= self.run.config.skip.stop_after:
            raise GeexError(
                f"{self.skipped_in_a_row} steps in a row had to be skipped, the last one {step} "
                f"({what})",
                "lower optimizer.lr or look at the data; the last checkpoint is good",
            )

    def _speed(self, step: int) -> dict[str, float]:
        # Over step time (see `goodput`), so that saves and evaluations do not count.
        config, steps = self.run.config, max(step - self.last_step, 1)
        spent = self.clock.step_seconds()
        parts = {name: (spent[name] - self.last_spent[name]) / steps for name in spent}
        seconds = max(sum(parts.values()), 1e-9)
        rate = config.batch_size * self.run.seq_len / seconds
        mfu = rate * self.flops / (self.peak * self.run.mesh.size)
        self.last_step, self.last_spent = step, spent
        left = (config.steps - step) * (time.monotonic() - self.began) / max(step - self.first, 1)
        return {
            "tokens_per_second": rate,
            "mfu": mfu,
            "goodput": self.goodput.value(),
            "step_seconds": seconds,
            **{f"{name}_seconds": value for name, value in parts.items()},
            "seconds_left": left,
        }


def banner(run: Run, state: TrainState, step: int, say: Any) -> None:
    """Says what will be trained, on what, where, and how its speed is counted.

    The first process says it: what it says takes a measurement.
    """
    if jax.process_index() != 0:
        return
    config, shape, total = run.config, run.model.config, run.manifest.total("train")
    count = sum(x.size for x in jax.tree.leaves(state.params))
    held = sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
        for x in jax.tree.leaves(state)
    )
    _, source = measures.peak_flops(shape.dtype)
    sizes = " x ".join(f"{name} {size}" for name, size in run.mesh.shape.items())
    several = jax.process_count()
    tokens = config.batch_size * run.seq_len
    say(
        f"experiment  {config.name} in {run.workdir}\n"
        f"model       {shape.name}: {count:,} parameters, {shape.num_layers} layers"
        f"{' + top query layer' if shape.top_query_layer else ''} of {shape.d_model}, "
        f"vocabulary {shape.vocab_size}, computing in {shape.dtype}\n"
        f"mesh        {sizes} ({run.mesh.devices.flat[0].device_kind}, "
        f"{f'{several} processes' if several > 1 else '1 process'})\n"
        f"data        {config.data.folder} ({run.manifest.fingerprint}): {total.tokens:,} tokens, "
        f"{len(run.manifest.splits.get('train', {}))} languages\n"
        f"step        {config.batch_size} rows x {run.seq_len} = {tokens:,} tokens, "
        f"{config.steps} steps = {config.steps * tokens / max(total.tokens, 1):.2f} epochs\n"
        f"memory      about {held / 1e6:,.0f} MB per device for parameters and optimizer\n"
        f"MFU         6 FLOPs per matmul parameter and token + full-square attention, over the "
        f"{source}\n" + (f"resuming    at step {step}" if step else "starting    at step 0"),
        flush=True,
    )


def say_compiled(program: Any, spent: float, say: Any) -> None:
    """Says how long the compiler took and how much memory it predicts."""
    memory = program.memory_analysis()
    if memory is None:  # some backends do not tell
        say(f"compiled    in {spent:.0f} s", flush=True)
        return
    say(
        f"compiled    in {spent:.0f} s; the compiler predicts "
        f"{(memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 1e6:,.0f} MB per device: "
        f"{memory.argument_size_in_bytes / 1e6:,.0f} state and batch, "
        f"{memory.temp_size_in_bytes / 1e6:,.0f} temporaries",
        flush=True,
    )
