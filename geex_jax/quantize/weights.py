"""Parameter trees: float to quantized by a policy, leaf by leaf, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from geex_jax.errors import GeexError
from geex_jax.quantize.policy import FORMATS, TABLE, Format, Policy, parse
from geex_jax.quantize.rounding import (
    Rounding,
    check_rounding,
    dequantize_kernel,
    dequantize_table,
    quantize_kernel,
    quantize_rows,
    round_to_float16,
)

Params = dict[str, Any]
Path = tuple[str, ...]
Place = Callable[[str, tuple[int, ...]], Sharding]


class Quantization(NamedTuple):
    """How a tree is quantized: its narrowest weights, see `formats_of` for all of them."""

    bits: int
    rounding: Rounding
    group: int | None = None


def quantize_params(
    params: Params,
    policy: Policy | str | int = 8,
    rounding: Rounding = "clean",
    *,
    bits: int | None = None,
    place: Place | None = None,
    consume: bool = False,
) -> Params:
    """Quantizes weights as a policy says, one leaf after the other.

    Pure: works under `jax.jit` and `jax.eval_shape`. Of a stacked kernel one layer at a time is in
    float32. Leaves that lie on a mesh are quantized there, each device its own part, and stay.

    Args:
      params: parameter tree as in `geex_jax/README.md`, layers stacked or not.
      policy: see `policy.parse`; 8 and 4 quantize the linears of blocks, the top query layer's
        included, and leave embeddings and an untied head.
      rounding: "clean" or "official" (see `rounding`); "official" has no groups.
      bits: another word for `policy`.
      place: (path, shape) -> sharding of a new leaf, such as `parallel.placer(mesh)`; by default
        integers are split as their kernel was.
      consume: give each float kernel's memory back as soon as it is quantized; the float tree is
        not usable afterwards.

    Returns:
      The tree with `kernel` [.., in, out] replaced by `kernel_int8` int8 [.., out, in] or
      `kernel_int4` uint8 [.., out, in/2] (even column in the high nibble), and `kernel_scale`
      [.., out], by groups [.., out, groups], in float32 ("clean") or float16 ("official");
      `embedding/tokens` [V, D], if asked for, by `tokens_int8` and `tokens_scale` [V].

    Raises:
      GeexError: already quantized, no such policy or rounding, a kernel that no rule matches, an
        `in` that does not divide, a NaN or infinity (not checked on tracers).
    """
    table = checked_policy(params, policy if bits is None else bits, rounding)

    def linear(path: Path, leaves: Params) -> Params:
        name, kernel = "/".join(path), leaves["kernel"]
        how = table.format(name)
        if how.bits is None:
            return leaves
        check_inputs(name, kernel.shape[-2], how)
        _check_finite(f"{name}/kernel", kernel, rounding)
        names = f"kernel_int{how.bits}", "kernel_scale"
        one = functools.partial(quantize_kernel, bits=how.bits, rounding=rounding, group=how.group)
        new = _in_place(one, kernel, [f"{name}/{n}" for n in names], place, consume, turned=True)
        rest = {k: v for k, v in leaves.items() if k != "kernel"}
        return rest | dict(zip(names, new, strict=True))

    def tokens(leaves: Params) -> Params:
        if table.format(TABLE).bits is None:
            return leaves
        _check_finite(TABLE, leaves["tokens"], rounding)
        names = "tokens_int8", "tokens_scale"
        one = functools.partial(quantize_rows, bits=8, rounding=rounding)
        paths = [f"embedding/{n}" for n in names]
        new = _in_place(one, leaves["tokens"], paths, place, consume, turned=False)
        rest = {k: v for k, v in leaves.items() if k != "tokens"}
        return rest | dict(zip(names, new, strict=True))

    return map_weights(params, linear, tokens)


def checked_policy(params: Params, policy: Policy | str | int, rounding: str) -> Policy:
    """The policy for a float tree.

    Raises:
      GeexError: see `quantize_params`; nothing has been computed yet.
    """
    table = parse(policy)
    check_rounding(rounding)
    if already := quantization_of(params):
        raise GeexError(
            f"these parameters are already int{already.bits}", "quantize the float checkpoint"
        )
    paths = weights_of(params)
    formats = {table.format(path) for path in paths}
    table.check_used(paths)
    if rounding == "official" and any(f.group for f in formats):
        raise GeexError(
            f"policy {table.name}: the official code has no groups", "use --rounding clean"
        )
    return table


def check_policy(params: Params, policy: Policy | str | int, rounding: Rounding = "clean") -> None:
    """Raises the GeexError that `quantize_params` would, before anything is computed."""
    jax.eval_shape(lambda tree: quantize_params(tree, policy, rounding), params)


def weights_of(params: Params) -> list[str]:
    """The paths that a policy decides about: linears and the token table."""
    found: list[str] = []

    def linear(path: Path, leaves: Params) -> Params:
        found.append("/".join(path))
        return leaves

    def tokens(leaves: Params) -> Params:
        found.append(TABLE)
        return leaves

    map_weights(params, linear, tokens)
    return found


def check_inputs(name: str, inputs: int, how: Format) -> None:
    """Raises GeexError if the inputs of a kernel do not divide as its format needs."""
    if how.bits == 4 and inputs % 2:
        raise GeexError(
            f"{name}/kernel has {inputs} inputs, an odd number",
            "int4 packs inputs in pairs; use 8 bits",
        )
    if how.group and inputs % how.group:
        fits = [f.name for f in FORMATS.values() if f.group and inputs % f.group == 0]
        raise GeexError(
            f"{name}/kernel has {inputs} inputs, which groups of {how.group} do not divide",
            f"use {' or '.join([*fits, 'int4'])} for it",
        )


def dequantize_params(
    params: Params, rounding: Rounding = "clean", dtype: Any = jnp.float32
) -> Params:
    """The float tree that a quantized one stands for, each kernel [.., in, out] again.

    Args:
      params: a quantized tree.
      rounding: "clean": q * scale in float32, what `Linear` computes with. "official": each
        weight rounded to float16 as well, as the official GPU kernel does.
      dtype: of the kernels returned.

    Raises:
      GeexError: the tree is not quantized.
    """
    if not is_quantized(params):
        raise GeexError("these parameters are not quantized", "quantize them first")
    check_rounding(rounding)

    def linear(path: Path, leaves: Params) -> Params:
        del path
        if "kernel_scale" not in leaves:
            return leaves
        weight = dequantize_kernel(leaves, rounding).astype(dtype)
        rest = {k: v for k, v in leaves.items() if not k.startswith("kernel_")}
        return rest | {"kernel": weight}

    def tokens(leaves: Params) -> Params:
        if "tokens_scale" not in leaves:
            return leaves
        rest = {k: v for k, v in leaves.items() if not k.startswith("tokens_")}
        return rest | {"tokens": dequantize_table(leaves, rounding).astype(dtype)}

    return map_weights(params, linear, tokens)


def formats_of(params: Params) -> dict[str, str]:
    """The format of every linear and of the token table: {"layers/mlp/up": "int4-g64", ...}."""
    found: dict[str, str] = {}

    def linear(path: Path, leaves: Params) -> Params:
        found["/".join(path)] = format_of(leaves).name
        return leaves

    def tokens(leaves: Params) -> Params:
        found[TABLE] = "int8" if "tokens_scale" in leaves else "float"
        return leaves

    map_weights(params, linear, tokens)
    return found


def format_of(leaves: Params) -> Format:
    """The format of one linear by its leaves."""
    if "kernel_scale" not in leaves:
        return FORMATS["float"]
    bits = 8 if "kernel_int8" in leaves else 4
    ints, scale = leaves[f"kernel_int{bits}"], leaves["kernel_scale"]
    if len(scale.shape) < len(ints.shape):
        return Format(bits)
    return Format(bits, ints.shape[-1] * (8 // bits) // scale.shape[-1])


def quantization_of(params: Params) -> Quantization | None:
    """How the tree is quantized, or None for a float tree.

    The rounding is read off the scales: the official ones are float16.
    """
    found: list[Quantization] = []

    def linear(path: Path, leaves: Params) -> Params:
        del path
        how = format_of(leaves)
        if how.bits is not None:
            found.append(Quantization(how.bits, _rounding(leaves["kernel_scale"]), how.group))
        return leaves

    def tokens(leaves: Params) -> Params:
        if "tokens_scale" in leaves:
            found.append(Quantization(8, _rounding(leaves["tokens_scale"])))
        return leaves

    map_weights(params, linear, tokens)
    return min(found, key=lambda q: q.bits) if found else None


def _rounding(scale: Any) -> Rounding:
    return "official" if scale.dtype == jnp.float16 else "clean"


def is_quantized(params: Params) -> bool:
    """True if any weight of the tree is held in integers."""
    return quantization_of(params) is not None


def map_weights(
    params: Params,
    linear: Callable[[Path, Params], Params],
    tokens: Callable[[Params], Params] = lambda leaves: leaves,
) -> Params:
    """Returns the tree with `linear(path, leaves)` in place of every linear's leaves.

    `tokens(leaves)` takes the embedding's place; positions are among its leaves.
    """

    def walk(tree: Params, path: Path) -> Params:
        out: Params = {}
        for name, value in tree.items():
            here = (*path, name)
            if not isinstance(value, dict):
                out[name] = value
            elif any(leaf.startswith("kernel") for leaf in value):
                out[name] = linear(here, value)
            elif here == ("embedding",):
                out[name] = tokens(value)
            else:
                out[name] = walk(value, here)
        return out

    return walk(params, ())


def _in_place(
    function: Callable[[Any], tuple[Any, Any]],
    weight: Any,
    paths: list[str],
    place: Place | None,
    consume: bool,
    turned: bool,
) -> tuple[Any, Any]:
    """Runs `function` where the weight lies, and frees the weight if asked to."""
    if isinstance(weight, Tracer):
        return function(weight)
    sharding = getattr(weight, "sharding", None)
    if place is None and isinstance(sharding, NamedSharding) and sharding.mesh.size > 1:
        place = _beside(sharding, weight.ndim, turned)
    if place is None:
        new = function(weight)
    else:
        shapes = jax.eval_shape(function, weight)
        out = tuple(place(p, s.shape) for p, s in zip(paths, shapes, strict=True))
        new = jax.jit(function, out_shardings=out)(weight)
    if consume and isinstance(weight, jax.Array):
        jax.block_until_ready(new)
        weight.delete()
    return new


def _beside(sharding: NamedSharding, ndim: int, turned: bool) -> Place:
    # Integers are split as their weight, a scale as the outputs; groups are kept whole.
    spec = [*sharding.spec, *[None] * (ndim - len(sharding.spec))]
    rows, columns = (spec[-1], spec[-2]) if turned else (spec[-2], spec[-1])

    def place(path: str, shape: tuple[int, ...]) -> Sharding:
        scale = path.endswith("_scale")
        axes = [*spec[:-2], rows, *([None] * (len(shape) - ndim + 1) if scale else [columns])]
        return NamedSharding(sharding.mesh, PartitionSpec(*axes))

    return place


@functools.partial(jax.jit, static_argnames=("rounding",))
def _all_finite(weight: jax.Array, rounding: Rounding) -> jax.Array:
    # A maximum and a minimum carry a NaN or infinity through, without a float copy of the stack.
    ends = jnp.stack([jnp.max(weight), jnp.min(weight)]).astype(jnp.float32)
    return jnp.all(jnp.isfinite(round_to_float16(ends) if rounding == "official" else ends))


def _check_finite(path: str, weight: Any, rounding: Rounding) -> None:
    if isinstance(weight, Tracer):
        return
    if not _all_finite(weight, rounding):
        beyond = " or a value beyond float16" if rounding == "official" else ""
        raise GeexError(
            f"{path} holds a NaN or an infinity{beyond}",
            "quantize a checkpoint from before it diverged"
            + (", or use --rounding clean" if beyond else ""),
        )
