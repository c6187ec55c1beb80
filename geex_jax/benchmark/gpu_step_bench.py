"""MFU of our train step on a GPU, against plain PyTorch with torch.compile and SDPA, in one call.

Both sides train the same CodeGeeX shape from the same parameters on the same batches: float32
parameters and moments, bfloat16 compute (PyTorch by autocast), fused AdamW, clipping. Their losses
must agree before anything is timed. Each is a process of its own; they take turns, step by step,
and only one runs at a time, but both hold their memory.

MFU is model FLOPs a second (`training.metrics.flops_per_token`) over a matmul rate: the measured
one (a square bfloat16 matmul, the best of either side's), and the maker's figure where it is known.
`--device cpu` runs the same code on a small shape, to test it; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import resource
import statistics
import tempfile
import time
from typing import Any

import numpy as np

from geex_jax.benchmark import turns
from geex_jax.benchmark.train_step_bench import (
    OURS,
    PYTORCH,
    check,
    check_losses,
    make_batch,
    parse_cores,
)
from geex_jax.errors import GeexError

BATCHES = 2
CHECKED_STEPS = 4
TOLERANCE = 2e-2  # bfloat16, and float32 sums in another order
MATMUL = {"cuda": 8192, "cpu": 128}  # bfloat16 is very slow on many CPUs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench gpu-step`."""
    add = parser.add_argument
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only tests the code paths")
    add("--preset", default="geex-1.3b", help="a CodeGeeX shape (default geex-1.3b)")
    add("--batch-size", type=int, default=8, help="rows of a batch (default 8)")
    add("--seq-len", type=int, default=2048, help="tokens of a row (default 2048)")
    add("--steps", type=int, default=10, help="timed steps of each side (default 10)")
    add("--loss-chunk", type=int, default=512, help="positions whose logits we make at a time")
    add("--attention", help="our model.attention (default: the config's)")
    add("--remat", default="none", help="our model.remat (default none)")
    add("--eager", action="store_true", help="PyTorch without torch.compile")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints.

    Raises:
      GeexError: no GPU, no PyTorch, a flag that does not fit, losses that differ.
    """
    for flag in ("batch_size", "seq_len", "steps", "loss_chunk"):
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise GeexError(f"--{name} {getattr(args, flag)}", "give a number above 0")
    changes = {"remat": args.remat} | ({"attention": args.attention} if args.attention else {})
    spec = Spec(
        args.preset, args.device, changes, args.loss_chunk, CHECKED_STEPS + args.steps, args.eager
    )
    result = measure(spec, args.batch_size, args.seq_len, args.steps)
    print(json.dumps(result) if args.json else report(result))


@dataclasses.dataclass(frozen=True)
class Spec:
    """What both processes need to know.

    Attributes:
      preset: the shape.
      device: "cuda" or "cpu".
      changes: fields of our ModelConfig that do not change what is computed.
      loss_chunk: positions of a row whose logits we make at a time.
      steps: at which the schedule ends.
      eager: PyTorch is not compiled.
    """

    preset: str
    device: str
    changes: dict[str, str]
    loss_chunk: int
    steps: int
    eager: bool

    def model_config(self) -> Any:
        """The ModelConfig: bfloat16 compute over float32 parameters."""
        from geex_jax import models

        return models.preset(self.preset, dtype="bfloat16", **self.changes)

    def optimizer_config(self) -> Any:
        """The OptimizerConfig of both sides."""
        from geex_jax.training.optimizer import OptimizerConfig

        return OptimizerConfig(lr=3e-4, warmup=1, steps=self.steps)


def measure(spec: Spec, batch_size: int, seq_len: int, steps: int) -> dict[str, Any]:
    """Figures of one run, as `--json` prints them.

    Raises:
      GeexError: see `run`.
    """
    from geex_jax.training import metrics

    config = spec.model_config()
    check(spec.preset, config, seq_len)
    batches = [make_batch(config.vocab_size, batch_size, seq_len, i) for i in range(BATCHES)]
    cores = parse_cores(None)
    # Ours would else take three quarters of the GPU's memory, used or not.
    ours_env = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if spec.device == "cpu":
        ours_env["JAX_PLATFORMS"] = "cpu"
    with turns.closing_all() as sides, tempfile.TemporaryDirectory() as folder:
        sides[OURS] = turns.Side(f"{__name__}:OurGpuStep", spec, cores, ours_env)
        start = pathlib.Path(folder) / "parameters.npz"  # too large for a pipe
        sides[OURS].call("save", str(start))
        peer_env = {"JAX_PLATFORMS": "cpu"}  # its half of JAX holds no GPU memory
        sides[PYTORCH] = turns.Side(f"{__name__}:TorchGpuStep", (spec, str(start)), cores, peer_env)
        losses = {
            name: [side.call("step", batches[i % BATCHES])[0] for i in range(CHECKED_STEPS)]
            for name, side in sides.items()
        }
        difference = check_losses(losses, TOLERANCE)
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(steps):
            for name, side in sides.items():
                seconds[name].append(side.call("step", batches[turn % BATCHES])[1])
        rates = {name: side.call("matmul_rate") for name, side in sides.items()}
        memory = {name: side.call("peak_bytes") for name, side in sides.items()}
        device = sides[OURS].call("device")
    tokens = batch_size * seq_len
    per_token = metrics.flops_per_token(config, seq_len)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    measured, public = max(rates.values()), metrics.PEAK_FLOPS.get(device)
    return {
        **dataclasses.asdict(spec),
        "batch_size": batch_size,
        "seq_len": seq_len,
        "device_kind": device,
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "torch")},
        "parameters": metrics.count_params(config),
        "flops_per_token": per_token,
        "losses": losses,
        "largest_relative_difference": difference,
        "matmul_size": MATMUL[spec.device],
        "matmul_flops_per_second": rates,
        "public_peak": public,
        "seconds": seconds,
        "tokens_per_second": {name: tokens / x for name, x in median.items()},
        "mfu_measured": {n: per_token * tokens / x / measured for n, x in median.items()},
        "mfu_public": {
            n: per_token * tokens / x / public if public else None for n, x in median.items()
        },
        "peak_bytes": memory,
        "ratio": median[PYTORCH] / median[OURS],
    }


class OurGpuStep:
    """Our trainer on one device, in its own process."""

    def __init__(self, spec: Spec):
        import jax

        from geex_jax.models import Transformer
        from geex_jax.parallel import make_mesh
        from geex_jax.training import optimizer, step

        self.spec = spec
        found = jax.devices()[0]
        if spec.device == "cuda" and found.platform != "gpu":
            raise GeexError(
                f"no GPU: JAX sees {found.device_kind}",
                'pip install "geex-jax[gpu]" on a machine with one, or test the code with '
                "--device cpu --preset geex-3m --seq-len 64 --steps 2",
            )
        model = Transformer(spec.model_config())
        tx = optimizer.make_optimizer(spec.optimizer_config())
        config = step.StepConfig(loss_chunk=spec.loss_chunk)
        self.mesh = make_mesh({"data": 1}, [found])
        self.state = step.sharded_init(self.mesh, lambda: step.init_state(model, tx, 0, config))
        self.update = step.jit_train_step(self.mesh, self.state)

    def save(self, path: str) -> None:
        """Writes the parameters, by path."""
        import jax

        from geex_jax.parallel import by_path

        arrays: dict[str, Any] = {
            k: np.asarray(jax.device_get(v)) for k, v in by_path(self.state.params).items()
        }
        np.savez(path, **arrays)

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Takes one step; returns its loss and its seconds."""
        import jax

        from geex_jax.parallel import use_mesh

        start = time.perf_counter()
        with use_mesh(self.mesh):
            self.state, metrics = self.update(self.state, batch)
        jax.block_until_ready(self.state)
        return float(metrics["loss"]), time.perf_counter() - start

    def matmul_rate(self) -> float:
        """FLOP/s of a square bfloat16 matmul: ten in a row, the best of five times."""
        import jax
        import jax.numpy as jnp

        n = MATMUL[self.spec.device]
        x = jax.random.normal(jax.random.key(0), (n, n), jnp.bfloat16)
        matmul = jax.jit(jnp.matmul)
        return _rate(n, lambda: matmul(x, x), jax.block_until_ready)

    def peak_bytes(self) -> int | None:
        """The most memory in use on the device, or of the process on a CPU."""
        import jax

        if self.spec.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        stats = jax.devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use")

    def device(self) -> str:
        """Its maker's name for it."""
        import jax

        return jax.devices()[0].device_kind


class TorchGpuStep:
    """PyTorch's trainer from our parameters, in its own process."""

    def __init__(self, start: tuple[Spec, str]):
        from geex_jax.benchmark import torch_reference as reference
        from geex_jax.parallel import tree_of
        from geex_jax.training import optimizer

        self.spec, path = start
        self.torch = reference.torch
        if self.spec.device == "cuda" and not self.torch.cuda.is_available():
            raise GeexError(
                "PyTorch sees no GPU", "install the build of PyTorch for this machine's CUDA"
            )
        with np.load(path) as arrays:
            params = tree_of(dict(arrays))
        settings = self.spec.optimizer_config()
        rates = optimizer.schedule(settings)(np.arange(self.spec.steps))
        self.rates = iter(np.asarray(rates, float).tolist())
        # What our side varies without changing the result is none of the reference's business.
        config = dataclasses.replace(self.spec, changes={}).model_config()
        self.peer = reference.TorchStep(
            config, params, settings, self.spec.device, compiled=not self.spec.eager
        )

    def step(self, batch: dict[str, np.ndarray]) -> tuple[float, float]:
        """Takes one step; returns its loss (which waits for the device) and its seconds."""
        rate = next(self.rates)
        start = time.perf_counter()
        loss = self.peer.step(batch, rate)
        if self.spec.device == "cuda":
            self.torch.cuda.synchronize()
        return loss, time.perf_counter() - start

    def matmul_rate(self) -> float:
        """As ours."""
        n, device = MATMUL[self.spec.device], self.spec.device
        x = self.torch.randn(n, n, device=device).bfloat16()
        wait = self.torch.cuda.synchronize if device == "cuda" else (lambda: None)
        return _rate(n, lambda: x @ x, lambda _: wait())

    def peak_bytes(self) -> int:
        """The most memory allocated on the device, or of the process on a CPU."""
        if self.spec.device == "cpu":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return self.torch.cuda.max_memory_allocated()


def _rate(n: int, matmul: Any, wait: Any) -> float:
    wait(matmul())
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            out = matmul()
        wait(out)
        best = min(best, (time.perf_counter() - start) / 10)
    return 2 * n**3 / best


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    versions, n = result["versions"], result["matmul_size"]
    peer = "eager" if result["eager"] else "torch.compile"
    ours = ", ".join(f"{k} {v}" for k, v in result["changes"].items())
    lines = [
        f"{result['preset']} on {result['device_kind']}, {result['parameters'] / 1e9:.2f}B "
        f"parameters, bfloat16 over float32, batch {result['batch_size']} x {result['seq_len']}; "
        f"jax {versions['jax']} ({ours}), torch {versions['torch']} ({peer})",
        f"  losses agree to {result['largest_relative_difference']:.1e} over "
        f"{len(result['losses'][OURS])} optimizer steps from the same parameters",
    ]
    for name, rate in result["matmul_flops_per_second"].items():
        lines.append(f"  {name:<9} {n}^3 bfloat16 matmul: {rate / 1e12:.2f} TFLOP/s")
    for name, speed in result["tokens_per_second"].items():
        public, peak = result["mfu_public"][name], result["peak_bytes"][name]
        lines.append(
            f"  {name:<9} {speed:10.1f} tokens/s (median), MFU "
            f"{result['mfu_measured'][name]:.1%} of the measured rate"
            + (f", {public:.1%} of the public peak" if public else "")
            + (f", peak memory {peak / 2**30:.2f} GiB" if peak else "")
        )
    lines.append(f"times PyTorch: {result['ratio']:.2f} by medians")
    if result["device"] == "cpu":
        lines.append("on a CPU these figures only show that the code runs")
    return "\n".join(lines)
