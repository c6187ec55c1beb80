"""The plan of serving: the engine's own prefill and decode steps, compiled ahead of time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.inference.programs import Programs
from geex_jax.inference.settings import EngineConfig
from geex_jax.inference.state import EngineState, check_mesh, init_state, state_shardings
from geex_jax.inference.steps import Chunk, Decode
from geex_jax.models import ModelConfig, Transformer, preset
from geex_jax.parallel import make_mesh, parse_mesh, shardings, use_mesh
from geex_jax.plan import flops as counting
from geex_jax.plan.compile import FAST, Look, Summary, compile_lowered
from geex_jax.plan.estimate import local_bytes
from geex_jax.plan.roofline import LABEL, roofline
from geex_jax.plan.topology import Topology, open_devices
from geex_jax.plan.train import describe
from geex_jax.quantize import quantize_params


def check(plan: Serving, model: ModelConfig) -> None:
    """Refuses settings that no program exists for.

    Raises:
      GeexError: one of them.
    """
    if plan.bits not in (4, 8, 16):
        raise GeexError(f"--bits {plan.bits}", "choose 4, 8 or 16")
    if plan.kv_bits not in (8, 16):
        raise GeexError(f"--kv-bits {plan.kv_bits}", "choose 8 or 16")
    if plan.activations == "int8" and plan.bits == 16:
        raise GeexError("--activations int8 with bfloat16 weights", "give --bits 8 or 4 too")
    if plan.batch < 1:
        raise GeexError(f"--batch {plan.batch}", "give a number above 0")
    if not 1 < plan.context <= model.context_length:
        raise GeexError(
            f"--context {plan.context} does not fit {model.name}",
            f"give 2 to {model.context_length}",
        )
    if plan.prefill < 1:
        raise GeexError(f"--prefill {plan.prefill}", "give a number above 0")


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is served, and how.

    Attributes:
      preset_name: the shape.
      bits: of the weights of linears; 16 is bfloat16.
      batch: rows decoded together.
      context: slots of a row, all of which a step reads.
      kv_bits: of the cache: 16, or 8 (integers, and a float32 scale for each token and head).
      activations: "float", or "int8": what quantized weights are multiplied by.
      prefill: tokens of a prompt that are taken in at once, into one row.
      mesh_text: as `parse_mesh` reads it; empty puts all devices on the tensor axis.
    """

    preset_name: str = "codegeex-13b"
    bits: int = 8
    batch: int = 1
    context: int = 2048
    kv_bits: int = 16
    activations: str = "float"
    prefill: int = 256
    mesh_text: str = ""


def plan_decode(
    topology: Topology,
    options: dict[str, Any] | None = None,
    cache: files.Path | None = None,
    fast: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Compiles the engine's decode steps and its prefill of a preset for a topology.

    Args:
      topology: one slice.
      options, cache, fast: see `plan_train`.
      **settings: see `Serving`.

    Returns:
      A dict as of `plan_train`; `compiled` is the loop of decode steps, `prefill` the other
      program.

    Raises:
      GeexError: settings that no program exists for.
    """
    plan = Serving(**settings)
    model = preset(plan.preset_name)
    check(plan, model)
    plan = dataclasses.replace(plan, prefill=min(plan.prefill, plan.context))
    model = model.replace(
        dtype="bfloat16",
        param_dtype="bfloat16",
        kv_cache="int8" if plan.kv_bits == 8 else "model",
        activations=plan.activations,
    )
    devices = open_devices(topology)
    sizes = parse_mesh(plan.mesh_text) if plan.mesh_text else {"tensor": -1, "fsdp": 1}
    mesh = make_mesh(sizes, devices)
    check_mesh(mesh)
    options = {**(FAST if fast else {}), **(options or {})}
    shapes = Shapes.of(model, plan, mesh)
    slice_of = [0] * topology.devices
    look = Look(copies=frozenset(shapes.watched()), lightest=True)
    found: dict[str, Summary] = {}
    counted = counting.Count()
    for name, traced in shapes.programs():
        if name == "decode":
            counted = counting.count(traced.jaxpr)
        label = f"compiling {name} of {model.name} for {topology.label}"
        with use_mesh(mesh):
            lowered = traced.lower()
        found[name] = compile_lowered(lowered, topology, slice_of, options, cache, look, label)
    return _report(topology, shapes, mesh, counted, found, fast)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The arguments of the engine's programs as ShapeDtypeStructs with shardings.

    Attributes:
      model: the decoder. plan: the settings. params: its parameters.
      state: what the engine keeps on the devices.
      mesh: of the devices.
    """

    model: Transformer
    plan: Serving
    params: Any
    state: EngineState
    mesh: Any

    @classmethod
    def of(cls, config: ModelConfig, plan: Serving, mesh: Any) -> Shapes:
        """Shapes for a mesh; nothing is allocated."""
        model = Transformer(config)

        def build() -> Any:
            params: Any = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
            return quantize_params(params, plan.bits) if plan.bits < 16 else params

        params = jax.eval_shape(build)
        state = jax.eval_shape(lambda: init_state(config, plan.batch, plan.context))
        return cls(
            model,
            plan,
            _placed(params, shardings(mesh, params, uneven=True)),
            _placed(state, state_shardings(state, mesh)),
            mesh,
        )

    def programs(self) -> list[tuple[str, Any]]:
        """(name, traced program) of decode steps and of prefill, as the engine compiles them."""
        programs = Programs(
            self.model, self.params, None, None, self.model.config.vocab_size, self.mesh
        )
        programs.state = self.state
        plan, state = self.plan, self.state

        def value(shape: tuple[int, ...], dtype: Any) -> Any:
            whole = NamedSharding(self.mesh, PartitionSpec())
            return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

        number = value((), jnp.int32)
        running = value((plan.batch,), jnp.bool_)
        chunk = value((1, plan.prefill), jnp.int32), value((plan.prefill,), jnp.int32)
        decode = Decode(plan.batch, plan.context, EngineConfig().steps)
        return [
            ("decode", programs.trace(
                decode, (self.params, None, state, running, number, None))),
            ("prefill", programs.trace(
                Chunk(plan.prefill, plan.context),
                (self.params, None, state, *chunk, number, number))),
        ]  # fmt: skip

    def watched(self) -> set[int]:
        """Numbers of elements, on one device, of the cache, a layer's part of it, and kernels."""
        leaves = jax.tree_util.tree_flatten_with_path(self.params)[0]
        kernels = {
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * (2 if "int4" in name else 1)
            for path, leaf in leaves
            if "kernel" in (name := str(path[-1].key)) and "scale" not in name
        }
        key: Any = self.state.cache.key
        cache = math.prod(key.sharding.shard_shape(key.shape))
        return kernels | {cache, cache // key.shape[0]}

    def bytes(self) -> dict[str, float]:
        """Of one device: parameters, cache, rest."""
        weights = sum(map(local_bytes, jax.tree.leaves(self.params)))
        cache = sum(map(local_bytes, self.state.cache.arrays))
        rest = sum(map(_size, jax.tree.leaves(self.state))) - cache
        return {"parameters": weights, "keys and values": cache, "rest": rest}

    def floor(self) -> float:
        """Bytes of one device that a step must read: all weights and all of the cache.

        Of the position tables one row is read; the token table is the tied head's kernel.
        """
        tables = ("embedding", "top_query")
        positions = sum(
            local_bytes(self.params[name]["positions"])
            for name in tables
            if "positions" in self.params.get(name, {})
        )
        sizes = self.bytes()
        return sizes["parameters"] + sizes["keys and values"] - positions


def _size(leaf: Any) -> int:
    # Keys of random numbers have no size in bytes of their own.
    return 0 if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else local_bytes(leaf)


def _placed(tree: Any, places: Any) -> Any:
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        tree, places,
    )  # fmt: skip


def _report(topology, shapes, mesh, counted, found, fast) -> dict[str, Any]:
    config, summary, first = shapes.model.config, found["decode"], found["prefill"]
    plan = shapes.plan
    leaves = jax.tree.leaves(jax.eval_shape(
        lambda: shapes.model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    ))  # fmt: skip
    floor, line, times, ratio = shapes.floor(), "", None, None
    if summary.fits:
        moved = summary.traffic["loops"]
        ratio = moved / floor
        times = roofline(topology, counted.total, counted.total, moved, summary.collectives)
        least = floor * topology.chip.devices / topology.chip.bandwidth
        step = max(times.seconds[0], least)
        line = (
            f"floor of a step, weights + cache: {floor / 1e9:.3f} GB of HBM on a device, "
            f"{least * 1e3:.2f} ms; as compiled it moves {moved / 1e9:.3f} GB, {ratio:.3f} x "
            f"(a greedy step; sampling moves up to {summary.traffic['dear'] / 1e9:.3f} GB more); "
            f"{step * 1e3:.2f} ms/token at least, {plan.batch / step:,.0f} tokens/s at most "
            f"({LABEL})"
        )
    held = "int8" if plan.kv_bits == 8 else config.dtype
    rounded = ", int8 activations" if plan.activations == "int8" else ""
    return {
        "kind": "decode",
        "label": LABEL,
        "topology": describe(topology),
        "model": {
            "name": config.name, "length": plan.context,
            "parameters": sum(math.prod(x.shape) for x in leaves),
        },
        "step": {
            "mesh": {k: int(v) for k, v in mesh.shape.items()}, **dataclasses.asdict(plan),
            "text": f"{_weights(plan.bits)} weights{rounded}, batch {plan.batch}, {plan.context} "
            f"slots of {held} keys and values",
        },
        "state": shapes.bytes(),
        "floor": floor,
        "ratio": ratio,
        "compiled": dataclasses.asdict(summary) | {"used": summary.used},
        "prefill": dataclasses.asdict(first) | {"used": first.used},
        "roofline": None if times is None else dataclasses.asdict(times),
        "speed": line,
        "fast": fast,
        "warnings": _warnings(counted, found),
    }  # fmt: skip


def _weights(bits: int) -> str:
    return "bfloat16" if bits == 16 else f"int{bits}"


def _warnings(counted: Any, found: dict[str, Summary]) -> list[str]:
    lines = [f"Pallas kernel {name} declares no FLOPs: counted as 0" for name in counted.unknown]
    for name, summary in found.items():
        for copy in summary.copies:
            lines.append(
                f"{name} makes {copy['type']} again, {copy['bytes'] / 1e6:.0f} MB, "
                f"{copy['count']:,.0f} times a step ({copy['name']}): a cache or weight, or a "
                "layer's part of it"
            )
    return lines
