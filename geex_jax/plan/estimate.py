"""Bytes of a training step from shapes and sharding rules alone: no libtpu, no compiler.

Parameters and optimizer are exact. What the backward pass keeps is read from the traced step: the
outputs that the scan over layers stacks up, under whatever remat policy. The working set beside
it is a model: see `working_set`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, AxisType

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig
from geex_jax.parallel import AXES
from geex_jax.parallel.rules import ACTIVATION_RULES
from geex_jax.plan.topology import Topology
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


def abstract_program(config: Any, sizes: Mapping[str, int]) -> tuple[Program, Any]:
    """The step of a config on a mesh without devices, and its jaxpr."""
    mesh: Any = AbstractMesh(
        tuple(sizes.values()), tuple(sizes), axis_types=(AxisType.Auto,) * len(sizes)
    )
    program = train_program(config, mesh)
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        return program, program.step.trace(program.state, program.batch).jaxpr
