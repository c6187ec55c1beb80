"""Our train step against a peer JAX trainer's published step, at the same shape, in the same run.

The peer is nanodo. Its parts are a choice of our config (no biases, tanh GELU, learned positions,
tied head), so both sides start from the same parameters, see the same batches with the same
optimizer, and their losses must agree before anything is timed. They differ in this: our
LayerNorms have a bias (two vectors a block), our attention heeds segments, our step can skip a
spike; nanodo keeps a buffer of accumulated gradients and logs statistics of three trees. It is
therefore measured twice, as published and without the statistics, and the ratio is to the faster.

The sides are processes that take turns, step by step (see `train_step_bench`); where other
programs hold the cores, the processor time of a step says more than its seconds. With libtpu both
are also compiled for one TPU topology: the compiler's bytes a chip and its summed cycles. These
are the compiler's word, not measurements.
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

from geex_jax.benchmark import compiled, peer_nanodo, turns
from geex_jax.benchmark.train_step_bench import OURS, OurStep, check_losses, make_batch, parse_cores
from geex_jax.errors import GeexError
from geex_jax.plan import topology as topologies

PEER, BARE = "nanodo", "nanodo, no statistics"
BATCHES = 2
CHECKED_STEPS = 6
TOLERANCE = {"float32": 1e-3, "bfloat16": 2e-2}
COUNTS = ("batch_size", "seq_len", "rounds", "loss_chunk", "tpu_batch_size", "tpu_seq_len")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `geex bench peer-step`."""
    add = parser.add_argument
    add("--peer", metavar="DIR", help="a clone of github.com/google-deepmind/nanodo")
    add("--only", choices=("cpu", "tpu"), help="run one half: timed here, or compiled for a TPU")
    add("--preset", default="geex-20m", help="model shape (default geex-20m)")
    add("--batch-size", type=int, default=4, help="rows of a batch (default 4)")
    add("--seq-len", type=int, default=256, help="tokens of a row (default 256)")
    add("--dtype", choices=sorted(TOLERANCE), default="float32", help="compute type (float32)")
    add("--rounds", type=int, default=7, help="turns of each side (default 7)")
    add("--loss-chunk", type=int, default=64, help="positions whose logits we make at a time (64)")
    add("--cores", metavar="LIST", help="cores to pin both to, as 0,1 or 0-3 (default: all)")
    add("--topology", default="v5e:2x2", help="to compile for (default v5e:2x2)")
    add("--tpu-preset", default="geex-125m", help="shape compiled for it (default geex-125m)")
    add("--tpu-batch-size", type=int, default=16, help="rows of a batch there (default 16)")
    add("--tpu-seq-len", type=int, default=1024, help="tokens of a row there (default 1024)")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> None:
    """Measures and prints; says that it is skipped where no peer is given.

    Raises:
      GeexError: a flag that does not fit, a checkout without nanodo, losses that differ.
    """
    for flag in COUNTS:
        if getattr(args, flag) < 1:
            name = flag.replace("_", "-")
            raise GeexError(f"--{name} {getattr(args, flag)}", "give a number above 0")
    cores = parse_cores(args.cores)
    if args.peer is None:
        reason = "no peer: give a clone of github.com/google-deepmind/nanodo as --peer DIR"
        print(json.dumps({"skipped": reason}) if args.json else f"skipped: {reason}")
        return
    folder = str(peer_nanodo.check_checkout(args.peer))
    result: dict[str, Any] = {}
    if args.only != "tpu":
        spec = Spec(args.preset, args.dtype, args.seq_len, args.loss_chunk)
        result["cpu"] = measure(spec, folder, args.batch_size, args.rounds, cores)
    if args.only != "cpu":
        spec = Spec(args.tpu_preset, "bfloat16", args.tpu_seq_len, 512)
        result["tpu"] = compile_both(spec, folder, args.tpu_batch_size, args.topology, cores)
    print(json.dumps(result) if args.json else report(result))


@dataclasses.dataclass(frozen=True)
class Spec:
    """A shape of nanodo's parts and the optimizer of both sides.

    Attributes:
      preset: whose width, depth, heads and vocabulary are taken.
      dtype: compute type; parameters are float32.
      seq_len: tokens of a row, and rows of the position table.
      loss_chunk: positions whose logits we make at a time.
      unroll: our layers are no loop, as nanodo's are none. Compiled for a TPU they stay one: it
        keeps the gathered parameters of one layer, not of all.
    """

    preset: str
    dtype: str
    seq_len: int
    loss_chunk: int
    unroll: bool = False

    def model_config(self) -> Any:
        """The ModelConfig; the top query layer's place is taken by one more plain layer."""
        from geex_jax import models

        base = models.preset(self.preset)
        if base.position != "learned" or base.gated_mlp or base.norm != "layernorm":
            raise GeexError(
                f"nanodo has no model with the parts of {self.preset}",
                "take a geex preset or codegeex-13b",
            )
        if self.seq_len > base.context_length:
            raise GeexError(
                f"rows of {self.seq_len} are longer than the context of {self.preset}",
                f"give at most {base.context_length}",
            )
        changes = dict(peer_nanodo.PARTS, num_layers=base.num_blocks, dtype=self.dtype)
        # The compiler's cycles do not cover Pallas kernels: both sides take XLA's attention.
        if hasattr(base, "attention"):
            changes["attention"] = "xla"
        if self.unroll:
            changes["scan_unroll"] = base.num_blocks
        return base.replace(context_length=self.seq_len, **changes)

    def optimizer_config(self) -> Any:
        """The OptimizerConfig."""
        from geex_jax.training.optimizer import OptimizerConfig

        return OptimizerConfig(lr=1e-3, warmup=1, steps=1000)


def batch_of(vocab_size: int, batch_size: int, seq_len: int, seed: int) -> dict[str, np.ndarray]:
    """Random rows as nanodo reads them: the target is the next token, the last has none.

    nanodo takes id 0 for padding, so there is none.
    """
    batch = make_batch(vocab_size - 1, batch_size, seq_len, seed)
    tokens = batch["tokens"] + 1
    targets = np.pad(tokens[:, 1:], ((0, 0), (0, 1)))
    return {
        **batch,
        "tokens": tokens,
        "targets": targets,
        "loss_mask": (targets != 0).astype(np.float32),
    }


def measure(
    spec: Spec, folder: str, batch_size: int, rounds: int, cores: list[int]
) -> dict[str, Any]:
    """Figures of one run on this machine, as `--json` prints them under "cpu".

    Raises:
      GeexError: losses that differ, or a peer that does not import.
    """
    from geex_jax.training import metrics

    spec = dataclasses.replace(spec, unroll=True)
    config = spec.model_config()
    load_before = os.getloadavg()[0]
    batches = [batch_of(config.vocab_size, batch_size, spec.seq_len, i) for i in range(BATCHES)]
    env = {"JAX_PLATFORMS": "cpu"}
    with turns.closing_all() as sides:
        sides[OURS] = turns.Side(f"{__name__}:Ours", spec, cores, env)
        params = sides[OURS].call("parameters")
        for name in (PEER, BARE):
            peer = peer_nanodo.PeerSpec(folder, config, spec.optimizer_config(), name == PEER)
            sides[name] = turns.Side(
                "geex_jax.benchmark.peer_nanodo:NanodoStep", (peer, params), cores, env
            )
        losses = {
            name: [side.call("step", batches[i % BATCHES])[0] for i in range(CHECKED_STEPS)]
            for name, side in sides.items()
        }
        difference = check_losses(losses, TOLERANCE[spec.dtype])
        counts = {OURS: metrics.count_params(config), PEER: sides[PEER].call("parameters")}
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(rounds):
            for name, side in sides.items():
                before = side.call("cpu_seconds")
                seconds[name].append(side.call("step", batches[turn % BATCHES])[1])
                cpu[name].append(side.call("cpu_seconds") - before)
    tokens = batch_size * spec.seq_len
    median = {name: statistics.median(times) for name, times in seconds.items()}
    best = {name: min(times) for name, times in seconds.items()}
    used = {name: min(times) for name, times in cpu.items()}
    return {
        **dataclasses.asdict(spec),
        "batch_size": batch_size,
        "rounds": rounds,
        "cores": cores,
        "jax": importlib.metadata.version("jax"),
        "parameters": counts,
        "losses": losses,
        "largest_relative_difference": difference,
        "tokens_per_second": {name: tokens / x for name, x in median.items()},
        "best_tokens_per_second": {name: tokens / x for name, x in best.items()},
        "seconds": seconds,
        "cpu_seconds": cpu,
        "tokens_per_cpu_second": {name: tokens / x for name, x in used.items()},
        "ratio": min(median[PEER], median[BARE]) / median[OURS],
        "ratio_best": min(best[PEER], best[BARE]) / best[OURS],
        "ratio_cpu": min(used[PEER], used[BARE]) / used[OURS],
        "load_average": [load_before, os.getloadavg()[0]],
    }


class Ours(OurStep):
    """Our trainer, which also tells the processor time of its process."""

    def cpu_seconds(self) -> float:
        """Of all threads, so far."""
        return time.process_time()


def compile_both(
    spec: Spec, folder: str, batch_size: int, topology: str, cores: list[int]
) -> dict[str, Any]:
    """What the TPU compiler says of both steps, or why it was not asked, under "tpu"."""
    if importlib.util.find_spec("libtpu") is None:
        return {"skipped": 'no libtpu here: pip install "geex-jax[tpu]"'}
    config = spec.model_config()
    out: dict[str, Any] = {
        **dataclasses.asdict(spec),
        "batch_size": batch_size,
        "topology": topology,
        "libtpu": importlib.metadata.version("libtpu"),
    }
    for name in (OURS, PEER, BARE):
        peer = peer_nanodo.PeerSpec(folder, config, spec.optimizer_config(), name == PEER)
        with turns.closing_all() as sides:  # one after the other: a compiler takes all cores
            sides[name] = turns.Side(
                f"{__name__}:Compiler", (spec, peer), cores, topologies.ENVIRONMENT
            )
            start = time.perf_counter()
            method = "ours" if name == OURS else "peers"
            out[name] = sides[name].call(method, topology, batch_size)
            out[name]["compile_seconds"] = time.perf_counter() - start
    return out


class Compiler:
    """Compiles either side's step for a topology, in a process of its own."""

    def __init__(self, specs: tuple[Spec, peer_nanodo.PeerSpec]):
        self.spec, self.peer = specs

    def ours(self, topology: str, batch_size: int) -> dict[str, int]:
        """The figures of our step, parameters and batch over `fsdp`."""
        import jax

        from geex_jax.models import Transformer
        from geex_jax.parallel import batch_sharding, make_mesh, use_mesh
        from geex_jax.training import optimizer, step

        devices = topologies.open_devices(topologies.parse(topology))
        mesh = make_mesh({"fsdp": len(devices)}, devices)
        model = Transformer(self.spec.model_config())
        tx = optimizer.make_optimizer(self.spec.optimizer_config())
        config = step.StepConfig(loss_chunk=self.spec.loss_chunk)
        state = jax.eval_shape(lambda: step.init_state(model, tx, 0, config))
        place = batch_sharding(mesh)
        shapes = make_batch(2, batch_size, self.spec.seq_len, 0)
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
            for name, x in shapes.items()
        }
        with use_mesh(mesh):
            lowered = step.jit_train_step(mesh, state).lower(state, batch)
        return compiled.figures(lowered.compile())

    def peers(self, topology: str, batch_size: int) -> dict[str, int]:
        """The figures of nanodo's step, parameters and batch over its axis "data"."""
        devices = topologies.open_devices(topologies.parse(topology))
        return compiled.figures(peer_nanodo.lower(self.peer, devices, batch_size).compile())


def report(result: dict[str, Any]) -> str:
    """The figures as text for people."""
    lines = []
    if cpu := result.get("cpu"):
        lines += _cpu_lines(cpu)
    if tpu := result.get("tpu"):
        lines += [f"TPU: skipped: {tpu['skipped']}"] if "skipped" in tpu else _tpu_lines(tpu)
    return "\n".join(lines)


def _cpu_lines(cpu: dict[str, Any]) -> list[str]:
    counts = cpu["parameters"]
    lines = [
        f"{cpu['preset']} with nanodo's parts, {cpu['dtype']}, batch {cpu['batch_size']} x "
        f"{cpu['seq_len']}, cores {cpu['cores']}, {cpu['rounds']} rounds; jax {cpu['jax']}",
        f"  parameters: ours {counts[OURS]:,}, nanodo's {counts[PEER]:,}",
        f"  losses agree to {cpu['largest_relative_difference']:.1e} over "
        f"{len(cpu['losses'][OURS])} optimizer steps from the same parameters",
    ]
    for name, speed in cpu["tokens_per_second"].items():
        best = cpu["best_tokens_per_second"][name]
        used = cpu["tokens_per_cpu_second"][name]
        lines.append(
            f"  {name:<22} {speed:9.1f} tokens/s (median), {best:9.1f} (best); "
            f"{used:8.1f} a CPU second (best)"
        )
    before, after = cpu["load_average"]
    lines.append(
        f"times the faster nanodo: {cpu['ratio']:.2f} by medians, {cpu['ratio_best']:.2f} by "
        f"best, {cpu['ratio_cpu']:.2f} by CPU time; "
        f"load average {before:.1f} before, {after:.1f} after"
    )
    return lines


def _tpu_lines(tpu: dict[str, Any]) -> list[str]:
    lines = [
        f"{tpu['preset']} with nanodo's parts, {tpu['dtype']}, batch {tpu['batch_size']} x "
        f"{tpu['seq_len']}, compiled for {tpu['topology']} by libtpu {tpu['libtpu']} (the "
        "compiler's word, not measured; cycles without collectives)"
    ]
    for name in (OURS, PEER, BARE):
        one = tpu[name]
        held = one["argument_bytes"] + one["temporary_bytes"]
        lines.append(
            f"  {name:<22} {held / 2**30:7.3f} GiB/chip ({one['argument_bytes'] / 2**30:.3f} held, "
            f"{one['temporary_bytes'] / 2**30:.3f} temporary), "
            f"{one['estimated_cycles'] / 1e6:9.2f} M cycles, "
            f"compiled in {one['compile_seconds']:.0f} s"
        )
    return lines
