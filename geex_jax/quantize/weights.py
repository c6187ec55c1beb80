"""Float weights to int8 or int4, one scale for each output channel (2303.17568, section 2.4).

W_q = round(W / scale), scale = max|W| / (2^(bits-1) - 1) over each output channel.

Two roundings:

- "clean" (the default): that formula in float32. It has the smaller error, and no row is undefined.
- "official": the integers and scales of the official code, bit for bit. Weights and scale are
  float16, and W / scale is rounded to float16 before it is rounded to an integer, which changes
  about 1 % of int8 values by one. For comparing with the official tools.

Rows on which the official code is undefined are defined here, for both: an all-zero row gives
zeros and scale 1; a scale that would underflow becomes the smallest one the type holds; quotients
beyond the largest integer are clipped to it and never wrap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.core import Tracer

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.kernels import unpack_int4

Params = dict[str, Any]
Rounding = Literal["clean", "official"]
Path = tuple[str, ...]

BITS = (4, 8)
LINEARS = ("query", "key", "value", "output", "gate", "up", "down")
KEPT = ("head",)  # a kernel that stays float
FLOAT32_TINY = float(jnp.finfo(jnp.float32).tiny)
FLOAT16_STEP = 2.0**-24  # the distance of subnormal float16 numbers


class Quantization(NamedTuple):
    """How a tree is quantized."""

    bits: int
    rounding: Rounding


def quantize_params(params: Params, bits: int = 8, rounding: Rounding = "clean") -> Params:
    """Quantizes the kernel of every linear inside a block, the top query layer included.

    Embeddings, norms, biases and an untied head stay as they are. Pure: works under `jax.jit` and
    `jax.eval_shape`. Of a stacked kernel one layer at a time is in float32.

    Args:
      params: parameter tree as in `geex_jax/README.md`, layers stacked or not.
      bits: 8 or 4.
      rounding: "clean" or "official" (see the module).

    Returns:
      The tree with each `kernel` [.., in, out] replaced by `kernel_int8` int8 [.., out, in] or
      `kernel_int4` uint8 [.., out, in/2] (even column in the high nibble), and `kernel_scale`
      [.., out] in float32 ("clean") or float16 ("official").

    Raises:
      GeexError: already quantized, other bits or rounding, a kernel of unknown place, an odd `in`
        with 4 bits, a NaN or infinity (not checked on tracers).
    """
    _check(params, bits, rounding)

    def convert(path: Path, linear: Params) -> Params:
        kernel = linear["kernel"]
        if bits == 4 and kernel.shape[-2] % 2:
            raise GeexError(
                f"{'/'.join(path)}/kernel has {kernel.shape[-2]} inputs, an odd number",
                "int4 packs inputs in pairs; use 8 bits",
            )
        _check_finite(path, kernel, rounding)
        ints, scale = quantize_kernel(kernel, bits, rounding)
        rest = {k: v for k, v in linear.items() if k != "kernel"}
        return rest | {f"kernel_int{bits}": ints, "kernel_scale": scale}

    return map_linears(params, convert)


@functools.partial(jax.jit, static_argnames=("bits", "rounding"))
def quantize_kernel(
    kernel: jax.Array, bits: int, rounding: Rounding
) -> tuple[jax.Array, jax.Array]:
    """One kernel [.., in, out] to integers [.., out, in] (int4: packed, [.., out, in/2]) and scale.

    The scale [.., out] is float32 ("clean") or float16 ("official").
    """
    if kernel.ndim > 2:
        return jax.lax.map(lambda k: quantize_kernel(k, bits, rounding), kernel)
    weight = kernel.T.astype(jnp.float32)
    # XLA would turn division by a constant into an inexact multiplication.
    largest = jax.lax.optimization_barrier(jnp.float32(2 ** (bits - 1) - 1))
    if rounding == "official":
        weight = round_to_float16(weight)
        peak = jnp.max(jnp.abs(weight), axis=1)
        scale = jnp.maximum(round_to_float16(peak / largest), FLOAT16_STEP)
    else:
        peak = jnp.max(jnp.abs(weight), axis=1)
        scale = jnp.maximum(peak / largest, FLOAT32_TINY)
    scale = jnp.where(peak == 0, 1.0, scale)
    quotient = weight / scale[:, None]
    if rounding == "official":
        quotient = round_to_float16(quotient)
        scale = scale.astype(jnp.float16)
    ints = jnp.clip(jnp.round(quotient), -largest, largest).astype(jnp.int8)
    return (pack_int4(ints) if bits == 4 else ints), scale


def round_to_float16(x: jax.Array) -> jax.Array:
    """The nearest float16 values of float32 x (ties to even), as float32.

    A cast there and back would not do: XLA may drop the pair and keep the excess precision.
    """
    # reduce_precision flushes subnormals to zero; there the step between numbers is constant.
    normal = jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)
    subnormal = jnp.round(x / FLOAT16_STEP) * FLOAT16_STEP
    return jnp.where(jnp.abs(x) < 2.0**-14, subnormal, normal)


def pack_int4(ints: jax.Array) -> jax.Array:
    """int8 [.., out, in] of -8..7 to uint8 [.., out, in/2]; the even column is the high nibble."""
    nibbles = ints.astype(jnp.uint8) & 0xF
    return (nibbles[..., 0::2] << 4) | nibbles[..., 1::2]


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
    _check_rounding(rounding)

    def convert(path: Path, linear: Params) -> Params:
        del path
        weight = dequantize_kernel(linear, rounding).astype(dtype)
        rest = {k: v for k, v in linear.items() if not k.startswith("kernel_")}
        return rest | {"kernel": weight}

    return map_linears(params, convert)


def dequantize_kernel(linear: Params, rounding: Rounding = "clean") -> jax.Array:
    """The float32 kernel [.., in, out] of one quantized linear's leaves."""
    packed = linear.get("kernel_int4")
    ints = linear["kernel_int8"] if packed is None else unpack_int4(packed)
    scale = linear["kernel_scale"].astype(jnp.float32)
    weight = ints.astype(jnp.float32) * scale[..., None]
    if rounding == "official":
        weight = round_to_float16(weight)
    return jnp.swapaxes(weight, -1, -2)


def quantization_of(params: Params) -> Quantization | None:
    """How the tree is quantized, or None for a float tree.

    The rounding is read off the scales: the official ones are float16.
    """
    found: list[Quantization] = []

    def look(path: Path, linear: Params) -> Params:
        del path
        if "kernel_scale" in linear:
            bits = 8 if "kernel_int8" in linear else 4
            half = linear["kernel_scale"].dtype == jnp.float16
            found.append(Quantization(bits, "official" if half else "clean"))
        return linear

    map_linears(params, look)
    return found[0] if found else None


def is_quantized(params: Params) -> bool:
    """True if any linear of the tree holds integers."""
    return quantization_of(params) is not None


def map_linears(params: Params, change: Callable[[Path, Params], Params]) -> Params:
    """Returns the tree with `change(path, leaves)` in place of every block linear's leaves.

    Raises:
      GeexError: a kernel whose place is neither that of a block's linear nor of the head.
    """

    def walk(tree: Params, path: Path) -> Params:
        out: Params = {}
        for name, value in tree.items():
            here = (*path, name)
            if not isinstance(value, dict):
                out[name] = value
            elif not any(leaf.startswith("kernel") for leaf in value):
                out[name] = walk(value, here)
            elif name in LINEARS:
                out[name] = change(here, value)
            elif name in KEPT:
                out[name] = value
            else:
                raise GeexError(
                    f"{'/'.join(here)} holds a kernel but is no known linear",
                    f"known: {', '.join((*LINEARS, *KEPT))}",
                )
        return out

    return walk(params, ())


def _check(params: Params, bits: int, rounding: str) -> None:
    if bits not in BITS:
        raise GeexError(f"cannot quantize to {bits} bits", "choose 8 or 4")
    _check_rounding(rounding)
    already = quantization_of(params)
    if already:
        raise GeexError(
            f"these parameters are already int{already.bits}", "quantize the float checkpoint"
        )


def _check_rounding(rounding: str) -> None:
    if rounding not in get_args(Rounding):
        raise GeexError(
            f"unknown rounding {rounding!r}", did_you_mean(rounding, get_args(Rounding))
        )


@functools.partial(jax.jit, static_argnames=("rounding",))
def _all_finite(kernel: jax.Array, rounding: Rounding) -> jax.Array:
    # A maximum and a minimum carry a NaN or infinity through, without a float copy of the stack.
    ends = jnp.stack([jnp.max(kernel), jnp.min(kernel)]).astype(jnp.float32)
    return jnp.all(jnp.isfinite(round_to_float16(ends) if rounding == "official" else ends))


def _check_finite(path: Path, kernel: Any, rounding: Rounding) -> None:
    if isinstance(kernel, Tracer):
        return
    if not _all_finite(kernel, rounding):
        beyond = " or a value beyond float16" if rounding == "official" else ""
        raise GeexError(
            f"{'/'.join(path)}/kernel holds a NaN or an infinity{beyond}",
            "quantize a checkpoint from before it diverged"
            + (", or use --rounding clean" if beyond else ""),
        )
