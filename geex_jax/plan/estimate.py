"""Bytes of a training step from shapes and sharding rules alone: no libtpu, no compiler.

Parameters and optimizer are exact. What the backward pass keeps is read from the traced step: the
outputs that the scan over layers stacks up, under whatever remat policy. The working set beside
it is a model: see `working_set`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, AxisType

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig
from geex_jax.pages import Table, text_table
from geex_jax.parallel import AXES
from geex_jax.parallel.rules import ACTIVATION_RULES
from geex_jax.plan.topology import Topology
from geex_jax.training.metrics import flops_per_token
from geex_jax.training.program import Program, train_program


def local_bytes(leaf: Any) -> int:
    """Bytes that one device holds of a ShapeDtypeStruct with a sharding."""
    shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding is not None else leaf.shape
    return math.prod(shape) * jax.dtypes.canonicalize_dtype(leaf.dtype).itemsize


def stacked(jaxpr: Any, length: int) -> Iterator[Any]:
    """Abstract values that scans of a given length stack up, in loops' bodies too."""
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "scan" and eqn.params["length"] == length:
            yield from (v.aval for v in eqn.outvars[eqn.params["num_carry"] :])
        for value in eqn.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                if hasattr(getattr(part, "jaxpr", part), "eqns"):
                    yield from stacked(part, length)


def activations(
    jaxpr: Any, config: Any, model: ModelConfig, mesh: Mapping[str, int]
) -> dict[str, float]:
    """Bytes of one device that the forward pass keeps for the backward pass, device and host.

    Stacked gradients, which have no batch dimension, are not among them.
    """
    rows = config.batch_size // config.accumulate
    kept = {"device": 0.0, "host": 0.0}
    for aval in stacked(jaxpr, model.num_layers):
        if rows not in aval.shape[1:]:
            continue
        place = "host" if "host" in str(getattr(aval, "memory_space", "")).lower() else "device"
        kept[place] += math.prod(aval.shape) * aval.dtype.itemsize / _ways(aval, model, mesh)
    return kept


def _ways(aval: Any, model: ModelConfig, mesh: Mapping[str, int]) -> int:
    """Into how many parts the mesh splits a stacked activation [L, B, T, ...]."""
    rules = dict(ACTIVATION_RULES)
    split = {model.num_heads, model.kv_heads, model.d_ff}
    # The residual stream has three dimensions beside the layer; heads have four, the MLP is wider.
    inner = split & set(aval.shape[3:]) and (len(aval.shape) > 4 or aval.shape[-1] == model.d_ff)
    names = ("batch", "length", "heads") if inner else ("batch", "residual_length", "embed")
    axes: set[str] = set()
    for name in names:
        found = rules.get(name, rules.get("length"))
        axes |= {found} if isinstance(found, str) else set(found or ())
    return math.prod(mesh.get(axis, 1) for axis in axes)


def mesh_sizes(wanted: Mapping[str, int], devices: int) -> dict[str, int]:
    """Sizes of all axes, -1 filled in, as `make_mesh` does it with devices.

    Raises:
      GeexError: they do not fit the number of devices.
    """
    sizes = {name: int(wanted.get(name, 1)) for name in AXES}
    known = math.prod(n for n in sizes.values() if n > 0)
    free = [name for name, n in sizes.items() if n < 0]
    if len(free) > 1 or known > devices or devices % known or (not free and known != devices):
        raise GeexError(
            f"a mesh of {sizes} does not fill {devices} devices",
            f"give sizes whose product is {devices}, one of them -1",
        )
    return {name: devices // known if name in free else n for name, n in sizes.items()}


def place(config: Any, sizes: Mapping[str, int], topology: Topology) -> Program:
    """The step of a config on a mesh without devices, not traced."""
    kinds = (AxisType.Auto,) * len(sizes)
    device = _abstract_device(topology)
    known = {} if device is None else {"abstract_device": device}
    mesh: Any = AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, **known)
    return train_program(config, mesh)


def abstract_program(
    config: Any, sizes: Mapping[str, int], topology: Topology
) -> tuple[Program, Any]:
    """The step of a config on a mesh without devices, and its jaxpr."""
    program = place(config, sizes, topology)
    mesh: Any = program.mesh
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        return program, program.step.trace(program.state, program.batch).jaxpr


def _abstract_device(topology: Topology) -> Any:
    # Kernels are chosen by the device that is traced for. Older versions of jax know no platform.
    make: Any = getattr(jax.sharding, "AbstractDevice", None)
    for words in ({"platform": "tpu"}, {}):
        try:
            return make(device_kind=topology.chip.kind, num_cores=1, **words)
        except TypeError:
            continue
    return None


# Arrays of the working set that exist at the same time, as multiples of one. Fitted, not derived,
# by least squares to eleven compiled steps: 13B on v5e:16x16 (1 row a device, 4), v6e:8x8 (4, 8),
# v6e:16x16 (6), v4:4x4x4 (6), v5p:4x4x4 and 4x4x8 (4), tpu7x:4x4x4 (8), geex-1.3b on v5e:2x4 and
# geex-6b on v6e:4x4, which are met within 9 %. `geex bench plan` prints how far off it is
# elsewhere.
GATHERED = 3.75  # a layer's weights: in use, being fetched; their gradients before they are cut
WIDE = 8.35  # [tokens, d_ff] in the compute type
NARROW = 12.0  # [tokens, d_model] in the compute type
SCORES = 3.85  # float32 [heads, T, T], where attention is no kernel
LOGITS = 2.0  # float32 [rows, chunk, vocabulary]
SETS = 5.9  # of gradients added up: the sum, a part's, the new sum, and what the update makes of it


def working_set(program: Program, config: Any, sizes: Mapping[str, int], kernel: bool) -> dict:
    """Bytes of one device for what lives only a while: in a block, in the loss.

    Args:
      program: the step. config: its config. sizes: of the mesh axes.
      kernel: attention runs as a Pallas kernel, so no scores [T, T] exist.
    """
    model, length = program.model, program.batch["tokens"].shape[1]
    rows = rows_at_once(config, sizes)
    tokens = rows * length / sizes.get("sequence", 1)
    tensor, width = sizes["tensor"], 2 if model.dtype != "float32" else 4
    whole = _layer_elements(program) / tensor * width
    wide = tokens * model.d_ff / tensor * width * (WIDE + model.gated_mlp)
    narrow = tokens * model.d_model * width * NARROW
    scores = 0.0
    if not kernel:
        scores = SCORES * tokens * length * model.num_heads / tensor * 4
    chunk = min(config.loss_chunk, length)
    table = model.vocab_size * model.d_model / tensor
    logits = LOGITS * rows * chunk * model.vocab_size / tensor * 4
    return {
        "block": GATHERED * whole + wide + narrow + scores,
        "loss": logits + table * (width + 4) + narrow / 2,
    }


def _layer_elements(program: Program) -> float:
    leaves = jax.tree.leaves(program.state.params["layers"]) if (
        "layers" in program.state.params
    ) else jax.tree.leaves(program.state.params.get("layers_0", {}))  # fmt: skip
    stacked = program.model.num_layers if "layers" in program.state.params else 1
    return sum(math.prod(leaf.shape) for leaf in leaves) / stacked


@dataclasses.dataclass(frozen=True)
class Traced:
    """What a traced step tells of a remat policy, whatever the rows and the mesh.

    Attributes:
      device, host: bytes kept for the backward pass of one row, over all devices that share it.
      kernel: attention runs as a Pallas kernel. ratio: FLOPs over the model's.
    """

    device: float
    host: float
    kernel: bool
    ratio: float


def trace(config: Any, sizes: Mapping[str, int], topology: Topology) -> tuple[Program, Traced]:
    """Traces the step of a config on a mesh of given sizes."""
    from geex_jax.plan import flops as counting

    program, jaxpr = abstract_program(config, sizes, topology)
    counted = counting.count(jaxpr)
    kept = activations(jaxpr, config, program.model, sizes)
    tokens = config.batch_size * program.batch["tokens"].shape[1]
    ratio = counted.total / tokens / flops_per_token(program.model, tokens // config.batch_size)
    per_row = sizes["tensor"] * sizes.get("sequence", 1) / rows_at_once(config, sizes)
    kernel = bool(counted.kernels or counted.unknown)
    return program, Traced(kept["device"] * per_row, kept["host"] * per_row, kernel, ratio)


def rows_at_once(config: Any, sizes: Mapping[str, int]) -> float:
    """Rows that the devices of one place along `data` and `fsdp` work on at a time."""
    return config.batch_size / config.accumulate / (sizes["data"] * sizes["fsdp"])


def estimate(
    config: Any, topology: Topology, known: tuple[Program, Traced] | None = None
) -> dict[str, Any]:
    """Bytes of one device for the step of a config, by arithmetic.

    Args:
      config: an experiment's config.
      topology: the slice or slices.
      known: from `trace`: a program of the same model and mesh, and what is known of the policy.

    Returns:
      A dict that JSON can hold: `parts` (name -> bytes), `total`, `usable`, `fits`, `host` (bytes
      in the host's memory), `flops_ratio` (of rematerialization), `label`.

    Raises:
      GeexError: sizes that do not divide over the mesh or the topology.
    """
    from geex_jax.plan.train import gradient_bytes, state_bytes

    sizes = mesh_sizes(config.mesh.to_dict(), topology.devices)
    program, traced = known or trace(config, sizes, topology)
    length = program.batch["tokens"].shape[1]
    share = rows_at_once(config, sizes) / sizes["tensor"] / sizes.get("sequence", 1)
    sets = 1.0 if config.accumulate == 1 else SETS
    parts = {
        **state_bytes(program),
        "gradients": sets * gradient_bytes(program),
        "kept for the backward pass": traced.device * share,
        "working set": max(working_set(program, config, sizes, traced.kernel).values()),
    }
    total = sum(parts.values())
    per_token = flops_per_token(program.model, length)
    return {
        "kind": "memory",
        "label": "estimate: arithmetic from shapes, not compiled",
        "topology": topology.label,
        "model": program.model.name,
        "mesh": sizes,
        "batch_size": config.batch_size,
        "accumulate": config.accumulate,
        "remat": config.model.remat,
        "parts": parts,
        "total": total,
        "usable": topology.chip.usable,
        "fits": total <= topology.chip.usable,
        "host": traced.host * share,
        "elements": sum(math.prod(x.shape) for x in jax.tree.leaves(program.state.params)),
        "tokens": config.batch_size * length,
        "width": program.model.d_model,
        "blocks": program.model.num_blocks,
        "flops": per_token * config.batch_size * length,
        "flops_ratio": traced.ratio,
    }


def render(found: Mapping[str, Any]) -> str:
    """An estimate as text."""
    from geex_jax.plan.render import gib

    mesh = " x ".join(f"{k}={v}" for k, v in found["mesh"].items() if v > 1) or "one device"
    rows: list[list[Any]] = [[name, gib(size)] for name, size in found["parts"].items()]
    rows.append(["all", gib(found["total"])])
    if found["host"]:
        rows.append(["in the host's memory", gib(found["host"])])
    verdict = "fits" if found["fits"] else "does not fit"
    return (
        f"{found['model']} on {found['topology']}, mesh {mesh}, batch {found['batch_size']} in "
        f"{found['accumulate']}, remat {found['remat']}: {verdict} {gib(found['usable'])} a device "
        f"({found['label']})\n{text_table(Table('', ['bytes of one device', ''], rows))}"
    )
