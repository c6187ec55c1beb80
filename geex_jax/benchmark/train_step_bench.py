"""Tokens per second of our jitted train step against plain PyTorch, in the same run.

Both sides have the same shape, parameters, batches, dtype and optimizer, and are pinned to the
same cores. Before anything is timed, both take a few optimizer steps on the same batches and
their losses must agree.

Both live in one process and take turns, step by step, each blocking until its step is done, so
that the load of other programs falls on both. An idle OpenMP or XLA worker spins for some
milliseconds after a step and then sleeps, against seconds per step here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from geex_jax.errors import GeexError

BATCHES = 2
CHECKED_STEPS = 6  # each batch comes back, so that the losses show what the updates did
# Largest relative difference of the losses over the checked steps.
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
SIDES = ("geex_jax", "pytorch")

Step = Callable[[dict[str, np.ndarray]], float]


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
        "--cores", metavar="LIST", help="cores to pin both to, as 0,1 or 0-3 (default: all allowed)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; raises GeexError if the losses differ or a flag does not fit."""
    for flag in ("batch_size", "seq_len", "rounds"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise GeexError(f"--{name} {getattr(args, flag)}", "give a number above 0")
    result = measure(
        args.preset, args.batch_size, args.seq_len, args.dtype, args.rounds, parse_cores(args.cores)
    )
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


def measure(
    preset: str, batch_size: int, seq_len: int, dtype: str, rounds: int, cores: list[int]
) -> dict[str, Any]:
    """Returns the figures of one run, as `--json` prints them.

    Args:
      preset: name of a CodeGeeX shape.
      batch_size, seq_len: of every batch; rows hold one document each.
      dtype: "float32" or "bfloat16" (parameters stay float32).
      rounds: timed steps of each side.
      cores: both sides run on these only. XLA's threads keep them if jax has not started a
        backend before; afterwards the process gets its cores back.

    Raises:
      GeexError: an unknown preset, PyTorch missing, or losses that differ.
    """
    pin = hasattr(os, "sched_setaffinity")
    before = os.sched_getaffinity(0) if pin else set()
    if pin:
        os.sched_setaffinity(0, cores)  # before either side starts its threads
    try:
        return _measure(preset, batch_size, seq_len, dtype, rounds, cores)
    finally:
        if pin:
            os.sched_setaffinity(0, before)


def _measure(
    preset: str, batch_size: int, seq_len: int, dtype: str, rounds: int, cores: list[int]
) -> dict[str, Any]:
    from geex_jax import models
    from geex_jax.training import metrics

    config = models.preset(preset, dtype=dtype)
    if seq_len > config.context_length:
        raise GeexError(
            f"--seq-len {seq_len} is longer than the context of {preset}",
            f"give at most {config.context_length}",
        )
    load_before = os.getloadavg()
    batches = [make_batch(config.vocab_size, batch_size, seq_len, i) for i in range(BATCHES)]
    sides = make_sides(config, CHECKED_STEPS + rounds, len(cores))
    losses = {
        name: [step(batches[i % BATCHES]) for i in range(CHECKED_STEPS)]
        for name, step in sides.items()
    }
    difference = check_losses(losses, TOLERANCE[dtype])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, step in sides.items():
            start = time.perf_counter()
            step(batches[turn % BATCHES])
            seconds[name].append(time.perf_counter() - start)

    tokens = batch_size * seq_len
    flops = metrics.flops_per_token(config, seq_len) * tokens
    speeds = {
        name: {
            "tokens_per_second": tokens / statistics.median(times),
            "best_tokens_per_second": tokens / min(times),
            "gflops_per_second": flops / statistics.median(times) / 1e9,
            "seconds": times,
        }
        for name, times in seconds.items()
    }
    ours, theirs = (seconds[name] for name in SIDES)
    return {
        "preset": preset,
        "parameters": metrics.count_params(config),
        "batch_size": batch_size,
        "seq_len": seq_len,
        "dtype": dtype,
        "cores": cores,
        "rounds": rounds,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch")},
        "losses": losses,
        "largest_relative_difference": difference,
        "speeds": speeds,
        "ratio": statistics.median(theirs) / statistics.median(ours),
        "ratio_best": min(theirs) / min(ours),
        "load_average": [load_before[0], os.getloadavg()[0]],
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


def make_sides(config: Any, steps: int, threads: int) -> dict[str, Step]:
    """Both trainers, from the same parameters, each `step(batch) -> loss`.

    Args:
      config: the ModelConfig.
      steps: the learning rate's schedule ends there.
      threads: what PyTorch may use; XLA takes as many as the process has cores.
    """
    import jax

    from geex_jax.benchmark import torch_reference as reference
    from geex_jax.models import Transformer
    from geex_jax.parallel import make_mesh, use_mesh
    from geex_jax.training import optimizer as optim
    from geex_jax.training import step as training

    settings = optim.OptimizerConfig(lr=1e-3, warmup=1, steps=steps)
    rates = np.asarray(optim.schedule(settings)(np.arange(steps)), float).tolist()
    mesh = make_mesh({"data": 1})
    optimizer = optim.make_optimizer(settings)
    state = training.sharded_init(
        mesh, lambda: training.init_state(Transformer(config), optimizer, seed=0)
    )
    reference.torch.set_num_threads(threads)
    peer = reference.TorchStep(config, jax.device_get(state.params), settings)
    update = training.jit_train_step(mesh, state)
    taken = 0

    def ours(batch: dict[str, np.ndarray]) -> float:
        nonlocal state
        with use_mesh(mesh):
            state, metrics = update(state, batch)
        jax.block_until_ready(state)
        return float(metrics["loss"])

    def theirs(batch: dict[str, np.ndarray]) -> float:
        nonlocal taken
        taken += 1
        return peer.step(batch, rates[taken - 1])

    return dict(zip(SIDES, (ours, theirs), strict=True))


def check_losses(losses: dict[str, list[float]], tolerance: float) -> float:
    """Returns the largest relative difference; raises GeexError if it exceeds the tolerance."""
    ours, theirs = (np.array(losses[name]) for name in SIDES)
    difference = float(np.max(np.abs(ours - theirs) / np.abs(theirs)))
    if not difference <= tolerance:
        raise GeexError(
            f"the losses differ by {difference:.1e} (ours {losses[SIDES[0]]}, PyTorch's "
            f"{losses[SIDES[1]]})",
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
        lines.append(f"  losses {name:<9}" + "".join(f" {x:.5f}" for x in losses))
    lines.append(
        f"  losses agree to {result['largest_relative_difference']:.1e} over "
        f"{len(result['losses'][SIDES[0]])} optimizer steps"
    )
    for name, speed in result["speeds"].items():
        lines.append(
            f"  {name:<9} {speed['tokens_per_second']:9.1f} tokens/s (median), "
            f"{speed['best_tokens_per_second']:9.1f} (best), "
            f"{speed['gflops_per_second']:7.1f} GFLOP/s"
        )
    lines.append(
        f"times PyTorch: {result['ratio']:.2f} by medians, {result['ratio_best']:.2f} by best; "
        f"load average "
        f"{result['load_average'][0]:.1f} before, {result['load_average'][1]:.1f} after"
    )
    return "\n".join(lines)
