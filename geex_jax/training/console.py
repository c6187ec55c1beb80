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
from geex_jax.training.optimizer import schedule
from geex_jax.training.run import Run
from geex_jax.training.step import TrainState


class Progress:
    """Reads the numbers of a step, writes them, prints a line, stops a run that cannot learn."""

    def __init__(self, run: Run, writer: measures.MetricWriter, step: int, say: Any):
        self.run, self.writer, self.say = run, writer, say
        self.skipped_in_a_row = 0
        self.peak, _ = measures.peak_flops(run.model.config.dtype)
        self.flops = measures.flops_per_token(run.model.config, run.seq_len)
        self.lr = schedule(run.optimizer_config)
        self.first = self.last_step = step
        self.began = self.last_time = time.monotonic()
        self.tokens_seen = np.zeros(len(run.manifest.languages), np.int64)

    def resume(self, tokens_seen: dict[str, int]) -> None:
        """Goes on counting from what a checkpoint has kept."""
        for name, count in tokens_seen.items():
            self.tokens_seen[self.run.manifest.language_index(name)] = count

    def seen(self) -> dict[str, int]:
        """Returns language name to tokens seen so far, padding left out.

        Counted from the batches. With several processes these are one process's rows times the
        number of processes; the rows of a language are dealt to them evenly.
        """
        counts = zip(self.run.manifest.languages, self.tokens_seen.tolist(), strict=True)
        return {language.name: count for language, count in counts if count}

    def add(self, step: int, numbers: dict[str, jax.Array], batch: dict[str, np.ndarray]) -> None:
        """Takes the numbers of a step that has been dispatched."""
        values = {k: float(v) for k, v in jax.device_get(numbers).items()}
        self._mind_skips(step, values)
        tokens = np.count_nonzero(batch["segment_ids"], axis=1) * jax.process_count()
        np.add.at(self.tokens_seen, batch["language"], tokens)
        row: dict[str, Any] = {
            "loss": values["loss"],
            "bits_per_byte": self._bits_per_byte(values["loss"], batch),
            "grad_norm": values["grad_norm"],
            "lr": float(np.asarray(self.lr(step - 1))),
            "skipped": values["skipped"],
        }
        config = self.run.config
        if step % config.log.every == 0 or step == config.steps:
            row |= self._speed(step)
            row["tokens_seen"] = self.seen()
            self.say(
                f"step {step:>6}/{config.steps}  loss {row['loss']:.4f}  "
                f"{row['bits_per_byte']:.3f} bits/byte  grad {row['grad_norm']:.2f}  "
                f"lr {row['lr']:.2e}  {row['tokens_per_second']:,.0f} tokens/s  "
                f"MFU {row['mfu']:.1%}  {files.seconds(row['seconds_left'])} left",
                flush=True,
            )
        self.writer.write(step, "train", row)

    def _bits_per_byte(self, loss: float, batch: dict[str, np.ndarray]) -> float:
        # With several processes this is the bits per byte of this process's rows' byte count.
        tokens = float(np.sum(batch["loss_mask"]))
        size = float(np.sum(self.run.counter.per_row(batch)))
        return loss * tokens / math.log(2) / max(size, 1.0)

    def _mind_skips(self, step: int, values: dict[str, float]) -> None:
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
        self.say(f"step {step} skipped, parameters unchanged: {what}", file=sys.stderr)
        if self.skipped_in_a_row >= self.run.config.skip.stop_after:
            raise GeexError(
                f"{self.skipped_in_a_row} steps in a row had to be skipped, the last one {step} "
                f"({what})",
                "lower optimizer.lr or look at the data; the last checkpoint is good",
            )

    def _speed(self, step: int) -> dict[str, float]:
        now, config = time.monotonic(), self.run.config
        rows = config.batch_size * self.run.seq_len
        rate = rows * (step - self.last_step) / max(now - self.last_time, 1e-9)
        mfu = rate * self.flops / (self.peak * self.run.mesh.size)
        self.last_step, self.last_time = step, now
        left = (config.steps - step) * (now - self.began) / max(step - self.first, 1)
        return {"tokens_per_second": rate, "mfu": mfu, "seconds_left": left}


def banner(run: Run, state: TrainState, step: int, say: Any) -> None:
    """Says what will be trained, on what, where, and how its speed is counted."""
    config, shape, total = run.config, run.model.config, run.manifest.total("train")
    count = sum(x.size for x in jax.tree.leaves(state.params))
    held = sum(x.nbytes for x in jax.tree.leaves(state)) / run.mesh.shape["fsdp"]
    held /= run.mesh.shape["tensor"]
    _, source = measures.peak_flops(shape.dtype)
    sizes = " x ".join(f"{name} {size}" for name, size in run.mesh.shape.items())
    tokens = config.batch_size * run.seq_len
    say(
        f"experiment  {config.name} in {run.workdir}\n"
        f"model       {shape.name}: {count:,} parameters, {shape.num_layers} layers"
        f"{' + top query layer' if shape.top_query_layer else ''} of {shape.d_model}, "
        f"vocabulary {shape.vocab_size}, computing in {shape.dtype}\n"
        f"mesh        {sizes} ({run.mesh.devices.flat[0].device_kind}, "
        f"{jax.process_count()} process(es))\n"
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
