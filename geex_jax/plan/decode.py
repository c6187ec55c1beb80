"""The plan of serving: the real prefill and decode programs, compiled ahead of time on shapes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.inference import decode as serving
from geex_jax.inference.sampling import make_sampling, row_keys
from geex_jax.models import ModelConfig, Transformer, preset
from geex_jax.parallel import make_mesh, parse_mesh, shardings, use_mesh
from geex_jax.plan import flops as counting
from geex_jax.plan.compile import FAST, Look, Summary, compile_lowered
from geex_jax.plan.estimate import local_bytes
from geex_jax.plan.roofline import LABEL, roofline
from geex_jax.plan.topology import Topology, open_devices
from geex_jax.plan.train import describe
from geex_jax.quantize import quantize_params


def check(bits: int, batch: int, context: int, kv_bits: int, prompt: int, model: ModelConfig):
    """Refuses settings that no program exists for.

    Raises:
      GeexError: one of them.
    """
    if bits not in (4, 8, 16):
        raise GeexError(f"--bits {bits}", "choose 4, 8 or 16")
    if kv_bits != 16:
        raise GeexError(
            f"--kv-bits {kv_bits}: the cache holds keys and values in the compute type, 16 bits",
            "leave it out; there is no cache of fewer bits to plan",
        )
    if batch < 1:
        raise GeexError(f"--batch {batch}", "give a number above 0")
    if not 1 < context <= model.context_length:
        raise GeexError(
            f"--context {context} does not fit {model.name}",
            f"give 2 to {model.context_length}",
        )
    if not 0 < prompt < context:
        raise GeexError(f"--prompt {prompt}", f"give 1 to {context - 1}, below --context")


def plan_decode(
    topology: Topology,
    options: dict[str, Any] | None = None,
    cache: files.Path | None = None,
    fast: bool = False,
    *,
    preset_name: str = "codegeex-13b",
    bits: int = 8,
    batch: int = 1,
    context: int = 2048,
    kv_bits: int = 16,
    prompt: int = 0,
    mesh_text: str = "",
) -> dict[str, Any]:
    """Compiles prefill and the decode loop of a preset for a topology.

    Args:
      topology: one slice.
      options, cache, fast: see `plan_train`.
      preset_name: the shape.
      bits: of the weights of linears; 16 is bfloat16.
      batch: sequences decoded together.
      context: slots of the cache.
      kv_bits: of the cache.
      prompt: tokens that prefill takes in at once; 0 is half the context.
      mesh_text: as `parse_mesh` reads it; empty puts all devices on the tensor axis.

    Returns:
      A dict as of `plan_train`; `compiled` is the decode loop, `prefill` the other program.

    Raises:
      GeexError: settings that no program exists for.
    """
    model = preset(preset_name).replace(dtype="bfloat16", param_dtype="bfloat16")
    prompt = prompt or context // 2
    check(bits, batch, context, kv_bits, prompt, model)
    devices = open_devices(topology)
    sizes = parse_mesh(mesh_text) if mesh_text else {"tensor": -1, "fsdp": 1}
    mesh = make_mesh(sizes, devices)
    options = {**(FAST if fast else {}), **(options or {})}
    shapes = Shapes.of(model, bits, batch, context, prompt, mesh)
    slice_of = [0] * topology.devices
    look = Look(copies=frozenset(shapes.watched()))
    found: dict[str, Summary] = {}
    counted = counting.Count()
    for name, traced in shapes.programs(mesh):
        if name == "decode":
            counted = counting.count(traced.jaxpr)
        label = f"compiling {name} of {model.name} for {topology.label}"
        found[name] = compile_lowered(
            traced.lower(), topology, slice_of, options, cache, look, label
        )
    return _report(topology, shapes, mesh, counted, found, fast, bits, prompt)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """The arguments of both programs as ShapeDtypeStructs with shardings.

    Attributes:
      model: the decoder. params: its parameters. state: what the loop carries.
      request: what stays the same. tokens, lengths: of the prompts. context: slots.
    """

    model: Transformer
    params: Any
    state: Any
    request: Any
    tokens: Any
    lengths: Any
    context: int

    @classmethod
    def of(
        cls, config: ModelConfig, bits: int, batch: int, context: int, prompt: int, mesh: Any
    ) -> Shapes:
        """Shapes for a mesh; nothing is allocated."""
        model = Transformer(config)

        def build() -> Any:
            params: Any = model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
            return quantize_params(params, bits) if bits < 16 else params

        params = jax.eval_shape(build)
        request = jax.eval_shape(
            lambda: serving.Request(
                jnp.zeros((batch,), jnp.int32),
                jnp.zeros((), jnp.int32),
                jnp.zeros((config.vocab_size,), jnp.float32),
                row_keys(0, jnp.arange(batch, dtype=jnp.uint32)),
                make_sampling(batch, config.vocab_size, 0.0, 0, 0.0),
            )
        )
        tokens = jax.ShapeDtypeStruct((batch, prompt), jnp.int32)
        lengths = jax.ShapeDtypeStruct((batch,), jnp.int32)
        state = jax.eval_shape(
            lambda p, t, n, r: serving._prefill(model, p, t, n, r, slots=context, width=context),
            params, tokens, lengths, request,
        )  # fmt: skip
        whole = NamedSharding(mesh, PartitionSpec())
        # Heads and their width are one axis of the cache, and lie on the tensor axis.
        split = NamedSharding(mesh, PartitionSpec(None, None, None, "tensor"))

        def place(leaf: Any) -> Any:
            return split if leaf.ndim == 4 else whole

        return cls(
            model,
            _placed(params, shardings(mesh, params, uneven=True)),
            _placed(state, jax.tree.map(place, state)),
            _placed(request, jax.tree.map(lambda _: whole, request)),
            _placed(tokens, whole),
            _placed(lengths, whole),
            context,
        )

    def programs(self, mesh: Any) -> list[tuple[str, Any]]:
        """(name, traced program) of the decode loop and of prefill."""
        steps = jax.ShapeDtypeStruct((), jnp.int32, sharding=self.lengths.sharding)
        with use_mesh(mesh):
            return [
                ("decode", serving._decode.trace(
                    self.model, self.params, self.state, self.request, steps)),
                ("prefill", serving._prefill.trace(
                    self.model, self.params, self.tokens, self.lengths, self.request,
                    slots=self.context, width=self.context)),
            ]  # fmt: skip

    def watched(self) -> set[int]:
        """Numbers of elements, on one device, of the cache, a layer's part of it, and kernels."""
        leaves = jax.tree_util.tree_flatten_with_path(self.params)[0]
        kernels = {
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * (2 if "int4" in name else 1)
            for path, leaf in leaves
            if "kernel" in (name := str(path[-1].key)) and "scale" not in name
        }
        key = self.state.cache.key
        cache = math.prod(key.sharding.shard_shape(key.shape))
        return kernels | {cache, cache // key.shape[0]}

    def bytes(self) -> dict[str, float]:
        """Of one device: parameters, cache, rest."""
        weights = sum(map(local_bytes, jax.tree.leaves(self.params)))
        cache = local_bytes(self.state.cache.key) + local_bytes(self.state.cache.value)
        rest = sum(map(_size, jax.tree.leaves((self.state, self.request)))) - cache
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


def _report(topology, shapes, mesh, counted, found, fast, bits, prompt) -> dict[str, Any]:
    config, summary, first = shapes.model.config, found["decode"], found["prefill"]
    batch = shapes.tokens.shape[0]
    leaves = jax.tree.leaves(jax.eval_shape(
        lambda: shapes.model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    ))  # fmt: skip
    floor, line, times = shapes.floor(), "", None
    if summary.fits:
        moved = summary.traffic["loops"]
        times = roofline(topology, counted.total, counted.total, moved, summary.collectives)
        chip = topology.chip
        least = floor * chip.devices / chip.bandwidth
        step = max(times.seconds[0], least)
        line = (
            f"a step moves {moved / 1e9:.2f} GB of HBM on a device, the weights and the cache are "
            f"{floor / 1e9:.2f} GB ({moved / floor:.2f} x): {step * 1e3:.1f} ms, "
            f"{batch / step:,.0f} tokens/s at most ({LABEL})"
        )
    return {
        "kind": "decode",
        "label": LABEL,
        "topology": describe(topology),
        "model": {
            "name": config.name, "length": shapes.context,
            "parameters": sum(math.prod(x.shape) for x in leaves),
        },
        "step": {
            "mesh": {k: int(v) for k, v in mesh.shape.items()}, "bits": bits, "batch": batch,
            "context": shapes.context, "prompt": prompt,
            "text": f"{_weights(bits)} weights, batch {batch}, {shapes.context} slots of "
            f"{config.dtype} keys and values, prompts of {prompt} tokens",
        },
        "state": shapes.bytes(),
        "floor": floor,
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
