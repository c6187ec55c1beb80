"""Numbers of one matrix to int8 or int4 and back (2303.17568, section 2.4).

W_q = round(W / scale), scale = max|W| / (2^(bits-1) - 1) over each output channel, or over each
group of an output channel's weights.

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
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.kernels import integers

Rounding = Literal["clean", "official"]
FLOAT32_TINY = float(jnp.finfo(jnp.float32).tiny)
FLOAT16_STEP = 2.0**-24  # the distance of subnormal float16 numbers


@functools.partial(jax.jit, static_argnames=("bits", "rounding", "group"))
def quantize_kernel(
    kernel: jax.Array, bits: int, rounding: Rounding, group: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """One kernel [.., in, out] to integers [.., out, in] (int4: packed, [.., out, in/2]) and scale.

    The scale [.., out], by groups [.., out, in/group], is float32 ("clean") or float16
    ("official"). Of a stacked kernel one layer at a time is in float32.
    """
    if kernel.ndim > 2:
        return jax.lax.map(lambda k: quantize_kernel(k, bits, rounding, group), kernel)
    return quantize_rows(kernel.T, bits, rounding, group)


@functools.partial(jax.jit, static_argnames=("bits", "rounding", "group"))
def quantize_rows(
    weight: jax.Array, bits: int, rounding: Rounding, group: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """As `quantize_kernel` for a matrix that is out-major already: [out, in], or a table [V, D]."""
    weight = weight.astype(jnp.float32)
    if rounding == "official":
        weight = round_to_float16(weight)
    scale = scale_of(in_groups(weight, group), bits, rounding)
    ints = to_integers(weight, scale, bits, rounding)
    if rounding == "official":
        scale = scale.astype(jnp.float16)
    return (pack_int4(ints) if bits == 4 else ints), scale


def in_groups(weight: jax.Array, group: int | None) -> jax.Array:
    """[out, in] as [out, groups, group]; unchanged without groups."""
    return weight if group is None else weight.reshape(weight.shape[0], -1, group)


def scale_of(weight: jax.Array, bits: int, rounding: Rounding = "clean") -> jax.Array:
    """max|W| / largest integer over the last axis of float32 [..., n]: [...]."""
    peak = jnp.max(jnp.abs(weight), axis=-1)
    # XLA would turn division by one number into an inexact multiplication.
    largest = jax.lax.optimization_barrier(jnp.full_like(peak, 2 ** (bits - 1) - 1))
    scale = peak / largest
    if rounding == "official":
        scale = jnp.maximum(round_to_float16(scale), FLOAT16_STEP)
    else:
        scale = jnp.maximum(scale, FLOAT32_TINY)
    return jnp.where(peak == 0, 1.0, scale)


def to_integers(
    weight: jax.Array, scale: jax.Array, bits: int, rounding: Rounding = "clean"
) -> jax.Array:
    """round(W / scale) of float32 [out, in] by scales [out] or [out, groups]: int8 [out, in]."""
    parts = weight if scale.ndim == 1 else weight.reshape(*scale.shape, -1)
    quotient = parts / scale[..., None]
    if rounding == "official":
        quotient = round_to_float16(quotient)
    largest = 2 ** (bits - 1) - 1
    ints = jnp.clip(jnp.round(quotient), -largest, largest).astype(jnp.int8)
    return ints.reshape(weight.shape)


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


def dequantize_kernel(linear: Mapping[str, Any], rounding: Rounding = "clean") -> jax.Array:
    """The float32 kernel [.., in, out] of one quantized linear's leaves."""
    return jnp.swapaxes(_times_scale(integers(linear), linear["kernel_scale"], rounding), -1, -2)


def dequantize_table(table: Mapping[str, Any], rounding: Rounding = "clean") -> jax.Array:
    """The float32 token table [V, D] of `tokens_int8` and `tokens_scale`."""
    return _times_scale(table["tokens_int8"], table["tokens_scale"], rounding)


def _times_scale(ints: jax.Array, scale: jax.Array, rounding: Rounding) -> jax.Array:
    scale = scale.astype(jnp.float32)[..., None]
    grouped = scale.ndim > ints.ndim
    parts = ints.reshape(*scale.shape[:-1], -1) if grouped else ints
    weight = (parts.astype(jnp.float32) * scale).reshape(ints.shape)
    return round_to_float16(weight) if rounding == "official" else weight


def check_rounding(rounding: str) -> None:
    """Raises GeexError for a rounding that is not known."""
    if rounding not in get_args(Rounding):
        raise GeexError(
            f"unknown rounding {rounding!r}", did_you_mean(rounding, get_args(Rounding))
        )
