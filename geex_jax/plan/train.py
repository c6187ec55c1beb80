"""The plan of a training config on a topology: the real step, compiled ahead of time."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from geex_jax import files
from geex_jax.parallel import make_mesh, use_mesh
from geex_jax.plan import flops as counting
from geex_jax.plan.compile import FAST, Look, Summary, compile_lowered
from geex_jax.plan.estimate import activations, local_bytes
from geex_jax.plan.roofline import LABEL, roofline
from geex_jax.plan.scaling import keep_wire
from geex_jax.plan.topology import Topology, open_devices
from geex_jax.training.metrics import flops_per_token
from geex_jax.training.program import Program, train_program


def plan_train(
    config: Any,
    topology: Topology,
    options: dict[str, Any] | None = None,
    cache: files.Path | None = None,
    fast: bool = False,
) -> dict[str, Any]:
    """Compiles the step of a config for a topology and says what it takes.

    Args:
      config: an experiment's config.
      topology: the slice or slices.
      options: compiler options.
      cache: folder of summaries; None keeps nothing.
      fast: least effort of the compiler; cycles mean nothing then and are left out.

    Returns:
      A dict that JSON can hold: `topology`, `model`, `step`, `flops`, `state` (bytes of a device),
      `compiled` (a `Summary`), `roofline` or None where it does not fit, `warnings`.

    Raises:
      GeexError: no libtpu, sizes that do not divide, an option that the compiler does not know.
    """
    devices = open_devices(topology)
    mesh = make_mesh(config.mesh.to_dict(), devices)
    program = train_program(config, mesh)
    options = {**(FAST if fast else {}), **(options or {})}
    started = time.monotonic()
    with use_mesh(mesh):
        traced = program.step.trace(program.state, program.batch)
        counted = counting.count(traced.jaxpr)
        lowered = traced.lower()
    lowering = time.monotonic() - started
    slice_of = [int(getattr(d, "slice_index", 0) or 0) for d in mesh.devices.flatten()]
    look = Look(gradients=frozenset(sharded_sizes(program)))
    label = f"compiling {program.model.name} for {topology.label}"
    summary = compile_lowered(lowered, topology, slice_of, options, cache, look, label)
    summary.lower_seconds = lowering
    plan = report(config, program, topology, counted, summary, fast, traced.jaxpr)
    if cache:
        keep_wire(cache, plan)
    return plan


def sharded_sizes(program: Program) -> set[int]:
    """Numbers of elements of the parameters that lie sharded, of one layer where stacked."""
    sizes = set()
    leaves = jax.tree_util.tree_flatten_with_path(program.state.params)[0]
    for path, leaf in leaves:
        if leaf.ndim and local_bytes(leaf) < math.prod(leaf.shape) * leaf.dtype.itemsize:
            stacked = path[0].key == "layers" and leaf.ndim > 2
            sizes.add(math.prod(leaf.shape[stacked:]))
    return sizes


def state_bytes(program: Program) -> dict[str, float]:
    """Bytes of one device for parameters, the optimizer's state and the rest of the state."""
    state = program.state
    parts = {
        "parameters": float(sum(map(local_bytes, jax.tree.leaves(state.params)))),
        "optimizer": float(sum(map(local_bytes, jax.tree.leaves(state.opt_state)))),
    }
    everything = sum(map(local_bytes, jax.tree.leaves(state)))
    batch = sum(map(local_bytes, program.batch.values()))
    return parts | {"rest": everything - sum(parts.values()) + batch}


def gradient_bytes(program: Program) -> float:
    """Bytes of one device for one set of gradients, laid out as the parameters are."""
    return float(sum(map(local_bytes, jax.tree.leaves(program.state.params))))


def settings(config: Any, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """What of a config decides memory and speed."""
    rows = math.prod(mesh.shape[a] for a in ("data", "fsdp"))
    return {
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "rows_per_device": config.batch_size / config.accumulate / rows,
        "mesh": {k: int(v) for k, v in mesh.shape.items()},
        "model": {
            k: v.to_dict() if isinstance(v, ConfigDict) else v for k, v in config.model.items()
        },
        "loss_chunk": config.loss_chunk,
    }


def report(
    config: Any,
    program: Program,
    topology: Topology,
    counted: counting.Count,
    summary: Summary,
    fast: bool,
    jaxpr: Any,
) -> dict[str, Any]:
    """Everything known about a compiled step, as a dict."""
    model, length = program.model, program.batch["tokens"].shape[1]
    tokens = config.batch_size * length
    per_token = flops_per_token(model, length)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(program.state.params))
    found = None
    if summary.fits:
        found = roofline(
            topology, per_token * tokens, counted.total, summary.traffic["hbm"],
            summary.collectives, counted.int8,
        )  # fmt: skip
    return {
        "kind": "train",
        "label": LABEL,
        "topology": describe(topology),
        "model": {"name": model.name, "parameters": parameters, "length": length},
        "step": settings(config, program.mesh) | {"tokens": tokens},
        "flops": {
            "model_per_token": per_token,
            "convention": "6 per matmul parameter + 12 L H W S (full square); PaLM, appendix B",
            "program_per_token": counted.total / tokens,
            "ratio": counted.total / tokens / per_token,
            "kernels": counted.kernels,
            "unknown_kernels": counted.unknown,
            "int8_share": counted.int8 / counted.total if counted.total else 0.0,
        },
        "state": state_bytes(program),
        "gradients": gradient_bytes(program),
        "activations": activations(jaxpr, config, program.model, dict(program.mesh.shape)),
        "compiled": dataclasses.asdict(summary) | {"used": summary.used},
        "roofline": None if found is None else dataclasses.asdict(found) | {
            "seconds": found.seconds,
            "tokens_per_second": tuple(tokens / s for s in reversed(found.seconds)),
        },
        "fast": fast,
        "warnings": warnings(counted, summary, found, topology),
    }  # fmt: skip


def describe(topology: Topology) -> dict[str, Any]:
    """A topology as a dict."""
    chip = topology.chip
    return {
        "name": topology.name, "slices": topology.slices, "chips": topology.chips,
        "devices": topology.devices, "hosts": topology.hosts, "usable": chip.usable,
        "hbm": chip.hbm, "wrapped": list(topology.wrapped),
    }  # fmt: skip


def warnings(counted: Any, summary: Summary, found: Any, topology: Topology) -> list[str]:
    """What a reader should know before trusting or running it."""
    lines = []
    for name in counted.unknown:
        lines.append(f"Pallas kernel {name} declares no FLOPs: counted as 0, compute is too low")
    if summary.full_gradients:
        shapes = "; ".join(summary.full_gradients)
        lines.append(f"gradients all-reduced whole, a reduce-scatter sends half as much: {shapes}")
    for name in summary.unknown_loops:
        lines.append(f"loop {name} has a length that is data: counted once")
    if summary.fits and summary.used > topology.chip.usable:
        lines.append(
            "arguments + temporaries exceed the memory by the sum, but the compiler, which "
            "shares buffers between them, made a program for it"
        )
    if summary.memory.get("host", 0) + summary.memory.get("host_argument", 0):
        lines.append("part of the state or of the activations lies in the hosts' memory")
    if found and not all(topology.wrapped) and topology.chips > 4:
        lines.append("no full torus: count on the half-ICI column")
    return lines
