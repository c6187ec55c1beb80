"""Tokens per second of our jitted train step against plain PyTorch, in the same run.

All sides have the same shape, parameters, batches, dtype and optimizer, and are pinned to the
same cores. Before anything is timed, each takes a few optimizer steps on the same batches and the
losses must agree. Then they take turns, step by step, so that the load of other programs falls on
all; only one runs at a time.

Each side is a process of its own, and PyTorch is measured twice. OpenMP's threads spin while they
wait for each other; where other programs hold one of the cores that makes a step of geex-20m up
to five times as slow (6.0 s in place of 1.2 s on two cores at load 3), which says nothing about
PyTorch. With OMP_WAIT_POLICY=PASSIVE they sleep instead: slower on an idle machine, far faster on
a busy one. The policy is read once in a process. The ratio is taken to the faster of the two.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import statistics
import time
from typing import Any

import numpy as np

from geex_jax.benchmark import turns
from geex_jax.errors import GeexError

BATCHES = 2
CHECKED_STEPS = 6  # each batch comes back, so that the losses show what the updates did
# Largest relative difference of the losses over the checked steps.
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
OURS, PYTORCH, PASSIVE = "geex_jax", "pytorch", "pytorch, passive waits"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench train-step`."""
    parser.add_argument("--preset", default="geex-20m", help="model shape (default geex-20m)")
    parser.add_argument("--batch-size", type=int, default=4, help="rows of a batch (default 4)")
    parser.add_argument("--seq-len", type=int, default=256, help="tokens of a row (default 256)")
    parser.add_argument(
        "--dtype", choices=sorted(TOLERANCE), default="float32", help="compute type (float32)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (default 7)")
    parser.add_argument(
        "--loss-chunk",
        type=int,
        default=64,
        help="positions of a row whose logits we make at a time (default 64, fast on CPUs)",
    )
    parser.add_argument(
        "--cores", metavar="LIST", help="cores to pin both to, as 0,1 or 0-3 (default: all allowed)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; raises GeexError if the losses differ or a flag does not fit."""
    for flag in ("batch_size", "seq_len", "rounds", "loss_chunk"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise GeexError(f"--{name} {getattr(args, flag)}", "give a number above 0")
    cores = parse_cores(args.cores)
    spec = Spec(args.preset, args.dtype, args.loss_chunk, CHECKED_STEPS + args.rounds, len(cores))
    result = measure(spec, args.batch_size, args.seq_len, args.rounds, cores)
    print(json.dumps(result) if args.json else report(result))


def parse_cores(text: str | None) -> list[int]:
    """Returns the core numbers that "0,2-3" names, or all that this process may use.

    Raises:
      GeexError: not a list of numbers, or a core that this process may not use.
    """
    if not hasattr(os, "sched_setaffinity"):
        if text:
            raise GeexError("this system cannot pin to cores", "leave --cores out")
        return list(range(os.cpu_count() or 1))
    allowed = sorted(os.sched_getaffinity(0))
    if text is None:
        return allowed
    cores: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cores |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise GeexError(f"--cores {text} is not a list of cores", "write 0,1 or 0-3") from None
    if not cores or not cores <= set(allowed):
        raise GeexError(f"--cores {text} does not fit", f"this process may use {allowed}")
    return sorted(cores)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What the workers need to know: the shape, and `steps` at which the schedule ends."""

    preset: str
    dtype: str
    loss_chunk: int
    steps: int
    threads: int

    def model_config(self) -> Any:
        """The ModelConfig."""
        from geex_jax import models

        return models.preset(self.preset, dtype=self.dtype)

    def optimizer_config(self) -> Any:
        """The OptimizerConfig of all sides."""
        from geex_jax.training.optimizer import OptimizerConfig

        return OptimizerConfig(lr=1e-3, warmup=1, steps=self.steps)


def check(name: str, config: Any, seq_len: int) -> None:
    """Refuses rows that the preset `name` does not take, and a machine without PyTorch."""
    if seq_len > config.context_length:
        raise GeexError(
            f"--seq-len {seq_len} is longer than the context of {name}",
            f"give at most {config.context_length}",
        )
    if importlib.util.find_spec("torch") is None:
        raise GeexError("this bench needs PyTorch", 'pip install "geex-jax[convert]"')


def measure(
    spec: Spec, batch_size: int, seq_len: int, rounds: int, cores: list[int]
) -> dict[str, Any]:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      spec: shape, dtype ("bfloat16" keeps float32 parameters) and length of the schedule.
      batch_size, seq_len: of every batch; rows hold one document each.
      rounds: timed steps of each side.
      cores: all sides run on these only.

    Raises:
      GeexError: an unknown preset, PyTorch missing, or losses that differ.
    """
    config = spec.model_config()
    check(spec.preset, config, seq_len)
    load_before = os.getloadavg()[0]
    batches = [make_batch(config.vocab_size, batch_size, seq_len, i) for i in range(BATCHES)]
    with turns.closing_all() as sides:
        sides[OURS] = turns.Side(f"{__name__}:OurStep", spec, cores, {"JAX_PLATFORMS": "cpu"})
        start = (spec, sides[OURS].call("parameters"))
        policies = {PYTORCH: {}, PASSIVE: {"OMP_WAIT_POLICY": "PASSIVE"}}
        if len(cores) == 1:
            del policies[PASSIVE]  # one thread waits for nobody
        for name, env in policies.items():
            sides[name] = turns.Side(f"{__name__}:PeerStep", start, cores, env)
        losses = {
            name: [side.call("step", batches[i % BATCHES])[0] for i in range(CHECKED_STEPS)]
            for name, side in sides.items()
        }
        difference = check_losses(losses, TOLERANCE[spec.dtype])
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name, side in sides.items():
                seconds[name].append(side.call("step", batches[turn % BATCHES])[1])
    return {
        **dataclasses.asdict(spec),
        "batch_size": batch_size,
        "seq_len": seq_len,
        "rounds": rounds,
        "cores": cores,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch")},
        "losses": losses,
        "largest_relative_difference": difference,
        **figures(config, batch_size, seq_len, seconds),
        "load_average": [load_before, os.getloadavg()[0]],
    }


def figures(
    config: Any, batch_size: int, seq_len: int, seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """Speeds of the sides from the seconds of their steps, and how many times PyTorch we are.

    `ratio` compares medians and `ratio_best` best steps, each with the faster PyTorch.
    """
    from geex_jax.training import metrics

    tokens = batch_size * seq_len
    flops = metrics.flops_per_token(config, seq_len) * tokens
    median = {name: statistics.median(times) for name, times in seconds.items()}
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "parameters": metrics.count_params(config),
        "speeds": {
            name: {
                "tokens_per_second": tokens / median[name],
                "best_tokens_per_second": tokens / best[name],
                "gflops_per_second": flops / median[name] / 1e9,
                "seconds": times,
            }
            for name, times in seconds.items()
        },
        "ratio": min(v for k, v in median.items() if k != OURS) / median[OURS],
        "ratio_best": min(v for k, v in best.items() if k != OURS) / best[OURS],
    }


def make_batch(vocab_size: int, batch_size: int, seq_len: int, seed: int) -> dict[str, np.ndarray]:
    """One batch in the layout of `geex_jax.data`: random ids, one full document in each row."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab_size, (batch_size, seq_len + 1), dtype=np.int32)
    positions = np.tile(np.arange(seq_len, dtype=np.int32), (batch_size, 1))
    return {
        "tokens": np.ascontiguousarray(ids[:, :-1]),
        "targets": np.ascontiguousarray(ids[:, 1:]),
        "positions": positions,
        "segment_ids": np.ones_like(positions),
        "loss_mask": np.ones(positions.shape, np.float32),
    }


class OurStep:
    """Our trainer, in its own process."""

    def __init__(self, spec: Spec):
        import jax

        from geex_jax.models import Transformer
        from geex_jax.parallel import make_mesh
        from geex_jax.training import optimizer, step

        model = Transformer(spec.model_config())
        tx = optimizer.make_optimizer(spec.optimizer_config())
        config = step.StepConfig(loss_chunk=spec.loss_chunk)
        self.mesh = make_mesh({"data": 1}, jax.devices()[:1])
        self.state = step.sharded_init(self.mesh, lambda: step.init_state(model, tx, 0, config))
        self.update = step.jit_train_step(self.mesh, self.state)

    def parameters(self) -> Any:
        """The parameter tree as NumPy arrays."""
        import jax

        return jax.device_get(self.state.params)

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Takes one step; returns its loss and its seconds."""
        import jax

        from geex_jax.parallel import use_mesh

        start = time.perf_counter()
        with use_mesh(self.mesh):
            self.state, metrics = self.update(self.state, batch)
        jax.block_until_ready(self.state)
        loss = float(metrics["loss"])
        return loss, time.perf_counter() - start


class PeerStep:
    """PyTorch's trainer from our parameters, in its own process."""

    def __init__(self, start: tuple[Spec, Any]):
        from geex_jax.benchmark import torch_reference as reference
        from geex_jax.training import optimizer

        spec, params = start
        settings = spec.optimizer_config()
        rates = optimizer.schedule(settings)(np.arange(spec.steps))
        self.rates = iter(np.asarray(rates, float).tolist())
        reference.torch.set_num_threads(spec.threads)
        self.peer = reference.TorchStep(spec.model_config(), params, settings)

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Takes one step; returns its loss and its seconds."""
        rate = next(self.rates)
        start = time.perf_counter()
        loss = self.peer.step(batch, rate)
        return loss, time.perf_counter() - start


def check_losses(losses: dict[str, list[float]], tolerance: float) -> float:
    """Returns the largest relative difference; raises GeexError if it exceeds the tolerance."""
    ours = np.array(losses[OURS])
    theirs = np.array([values for name, values in losses.items() if name != OURS])
    difference = float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
    if not difference <= tolerance:
        raise GeexError(
            f"the losses differ by {difference:.1e} (ours {ours}, PyTorch's {theirs[0]})",
            "the two sides do not compute the same: report it as a bug",
        )
    return difference


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    versions = result["versions"]
    lines = [
        f"{result['preset']}, {result['parameters'] / 1e6:.1f}M parameters, {result['dtype']}, "
        f"batch {result['batch_size']} x {result['seq_len']}, cores {result['cores']}, "
        f"{result['rounds']} rounds; jax {versions['jax']}, torch {versions['torch']}"
    ]
    for name, losses in result["losses"].items():
        lines.append(f"  losses {name:<22}" + "".join(f" {x:.5f}" for x in losses))
    lines.append(
        f"  losses agree to {result['largest_relative_difference']:.1e} over "
        f"{len(result['losses'][OURS])} optimizer steps"
    )
    for name, speed in result["speeds"].items():
        lines.append(
            f"  {name:<22} {speed['tokens_per_second']:9.1f} tokens/s (median), "
            f"{speed['best_tokens_per_second']:9.1f} (best), "
            f"{speed['gflops_per_second']:7.1f} GFLOP/s"
        )
    lines.append(
        f"times the faster PyTorch: {result['ratio']:.2f} by medians, "
        f"{result['ratio_best']:.2f} by best; load average "
        f"{result['load_average'][0]:.1f} before, {result['load_average'][1]:.1f} after"
    )
    return "\n".join(lines)
