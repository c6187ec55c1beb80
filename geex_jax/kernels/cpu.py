"""Matmuls with few rows on CPUs, in plain XLA.

XLA:CPU has two traps for a decode step. A dot with one row becomes a vector product whose narrow
operand is widened first: in a loop it keeps a float copy of all int8 weights, and reads that. And a
dot of int8 by float is one of float by float. A dot of int8 by int8 with at least two rows is
neither: it reads the weights as they are and adds up int32.

So rows are padded, and activations are made of integers. For weights-only int8 ("float"
activations) each row of x is cut into int8 limbs, x = (256^2 a + 256 b + c) * scale, which become
rows of one dot: three for float32 (24 bits, so no coarser than float32 sums), two for 16-bit types.
A decode step pads its one row to four anyway: exact activations cost it nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from geex_jax.kernels import cpu_native as native
from geex_jax.kernels import cpu_native_floats as floats
from geex_jax.kernels.attention import platform
from geex_jax.kernels.int8_matmul import quantize
from geex_jax.kernels.packing import integers

# Above these many rows of limbs, weights are widened once and multiplied as floats.
MOST_ROWS = 64
# Up to these many rows the kernel is a product's first operand.
FEW_ROWS = 32
# The largest integer that `count` signed digits of base 256 hold, the last rounded to nearest.
LARGEST = {2: 127 * 256 + 127, 3: 127 * 65536 + 127 * 256 + 127}


def limb_count(dtype: Any) -> int:
    """Limbs that hold the precision of a float type: 3 of float32, 2 of 16 bits."""
    return 3 if jnp.dtype(dtype).itemsize > 2 else 2


def limbs(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Cuts x [..., in] into int8 digits of base 256, the largest first.

    Returns:
      int8 [count, ..., in] and float32 scales [..., 1]: x ~ (256^(count-1) first + ...) * scale,
      off by half a scale at most, which is the row's largest magnitude / `LARGEST[count]`.
    """
    x = x.astype(jnp.float32)
    largest = LARGEST[count]
    peak = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    scale = jnp.maximum(peak / largest, jnp.finfo(jnp.float32).tiny)
    # Through the reciprocal, as XLA would do it in most programs.
    rest = jnp.clip(jnp.round(x * (1 / scale)), -largest, largest).astype(jnp.int32)
    digits = []
    for _ in range(count - 1):
        digit = ((rest + 128) & 255) - 128
        digits.append(digit)
        rest = (rest - digit) >> 8
    digits.append(rest)
    return jnp.stack(digits[::-1]).astype(jnp.int8), scale


def int8_dot(rows: jax.Array, kernel: jax.Array) -> jax.Array:
    """int8 rows [M, in] by an int8 kernel [out, in], exactly, in int32 [M, out].

    Rows are padded to a multiple of four, so that there are never fewer than two. XLA:CPU packs a
    product's second operand anew in each call: of few rows that has to be the rows. The barrier
    keeps it from turning the product round to save the transpose.
    """
    count = rows.shape[0]
    rows = jnp.pad(rows, ((0, -count % 4), (0, 0)))
    if count <= FEW_ROWS:
        sums = jnp.einsum("oi,mi->om", kernel, rows, preferred_element_type=jnp.int32)
        sums = jax.lax.optimization_barrier(sums).T
    else:
        sums = jnp.einsum("mi,oi->mo", rows, kernel, preferred_element_type=jnp.int32)
    return sums[:count]


def float_dot(x: jax.Array, kernel: jax.Array, result: Any = None) -> jax.Array:
    """x [..., in] by an out-major kernel [out, in] of the same type; `result` is the sums' type.

    On a CPU a single row of a 16-bit type is padded to two, and several rows of float32 are the
    C++ kernel's, where that is built.
    """
    if platform() == "cpu" and _several(x, kernel) and native.available():
        y = floats.float_matmul(x.reshape(-1, x.shape[-1]), kernel)
        return y.reshape(*x.shape[:-1], -1)
    single = x.size == x.shape[-1] and x.dtype.itemsize == 2 and platform() == "cpu"
    if not single:
        return jnp.einsum("...i,oi->...o", x, kernel, preferred_element_type=result)
    rows = jnp.pad(x.reshape(1, -1), ((0, 1), (0, 0)))
    y = jnp.einsum("mi,oi->mo", rows, kernel, preferred_element_type=result)[:1]
    return y.reshape(*x.shape[:-1], -1)


def _several(x: jax.Array, kernel: jax.Array) -> bool:
    wide = x.dtype == kernel.dtype == jnp.float32
    return wide and x.size > x.shape[-1] and kernel.ndim == 2


def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """table[ids] for a table [V, D] and ids int32 [...]; only the rows asked for are read.

    XLA:CPU widens the whole of a 16-bit table before it gathers; integers of 16 bits it does not.
    """
    if platform() != "cpu" or table.dtype.itemsize != 2:
        return table[ids]
    return _lookup(table, ids)


@jax.custom_jvp
def _lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    bits = jax.lax.bitcast_convert_type(table, jnp.uint16)
    return jax.lax.bitcast_convert_type(bits[ids], table.dtype)


@_lookup.defjvp
def _lookup_jvp(primals, tangents):
    table, ids = primals
    return _lookup(table, ids), tangents[0][ids]


def takes(x: jax.Array, leaves: Mapping[str, Any], activations: str) -> bool:
    """Whether `quantized_matmul` here is the way to multiply these on a CPU.

    In plain XLA many rows of exact activations are faster as floats, and groups of columns have
    sums of their own.
    """
    if not x.size:
        return False
    scale = leaves["kernel_scale"]
    if scale.ndim > 1:
        group = x.shape[-1] // scale.shape[-1]
        return native.available() and "kernel_int4" in leaves and group % 4 == 0
    if native.available():
        return True
    rows = x.size // x.shape[-1]
    return activations == "int8" or rows * limb_count(x.dtype) <= MOST_ROWS


def quantized_matmul(x: jax.Array, leaves: Mapping[str, Any], activations: str) -> jax.Array:
    """x [..., in] by the leaves of `quantized`, in float32 [..., out].

    With activations "int8" the integers are those of `quantized.reference`, and so is the result
    for a scale for each of out; else it differs from it by float32 rounding.
    """
    rows = x.reshape(-1, x.shape[-1])
    leaves = {name: leaves[name] for name in leaves if name.startswith("kernel_")}
    y = _matmul(rows, leaves, 1) if activations == "int8" else _exact(rows, leaves)
    return y.reshape(*x.shape[:-1], -1)


def _matmul(rows: jax.Array, leaves: Mapping[str, Any], count: int) -> jax.Array:
    if not native.available():
        return plain_matmul(rows, leaves, count)
    kernel = leaves.get("kernel_int4", leaves.get("kernel_int8"))
    return native.matmul(rows, kernel, leaves["kernel_scale"], count)


def plain_matmul(rows: jax.Array, leaves: Mapping[str, Any], count: int) -> jax.Array:
    """Rows [M, in] as `count` limbs, one being W8A8, by leaves without groups; float32 [M, out]."""
    kernel = integers(leaves)
    scale = leaves["kernel_scale"].astype(jnp.float32)
    if count == 1:
        ints, row_scale = quantize(rows, -1)
        return int8_dot(ints, kernel).astype(jnp.float32) * scale * row_scale
    digits, row_scale = limbs(rows, count)
    m = rows.shape[0]
    sums = int8_dot(digits.reshape(count * m, -1), kernel).reshape(count, m, -1)
    y = sums[0].astype(jnp.float32)
    for lower in sums[1:]:
        y = y * 256 + lower.astype(jnp.float32)
    return y * row_scale * scale


@jax.custom_jvp
def _exact(rows: jax.Array, leaves: Mapping[str, Any]) -> jax.Array:
    return _matmul(rows, leaves, limb_count(rows.dtype))


@_exact.defjvp
def _exact_jvp(primals, tangents):
    # Rounding has no slope of its own: the derivative is that of the product.
    rows, leaves = primals
    kernel = integers(leaves).astype(jnp.float32)
    scale = leaves["kernel_scale"].astype(jnp.float32).reshape(kernel.shape[0], -1, 1)
    weight = (kernel.reshape(*scale.shape[:2], -1) * scale).reshape(kernel.shape)
    moved = jnp.einsum("mi,oi->mo", tangents[0].astype(jnp.float32), weight)
    return _exact(rows, leaves), moved
