"""Matmuls of few rows with int8 or int4 weights for TPUs, in Pallas: each weight is read once.

Where XLA leaves a factor: programs compiled for v5e (libtpu 0.0.42, default effort), a scan over
layers of [20480, 5120]. Bytes moved over bytes of weights, and the compiler's cycles over the time
that those bytes take at the chip's bandwidth (a plain copy has 1.2; nothing was timed):

| weights, activations | rows | bytes | cycles |
|---|---|---|---|
| int8, bfloat16 | 1 | 1.00 | 6.53 |
| the same, padded to 8 rows | 1 | 1.00 | 1.68 |
| int8, bfloat16 | 16 | 1.00 | 1.68 |
| int8, int8 | 16 | 1.00 | 1.40 |
| int8 in groups of 128, bfloat16 | 16 | 2.94 | 14.6 |
| int4, bfloat16 | 1 | 1.00 | 19.6 |
| int4, bfloat16 | 16 | 8.99 | 78.9 |
| int4 in groups of 128, bfloat16 | 1 | 48.1 | 102 |
| int4 in groups of 128, bfloat16 | 16 | 8.54 | 75.4 |

So int4 weights and groups are this kernel's, and plain int8 is XLA's (`quantized_tpu`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from geex_jax.kernels.int8_matmul import quantize

LANES = 128
TILE = 5 << 18  # bytes of a tile of weights
COLUMNS = 5120  # stored columns of a tile, at most
ROWS = 512  # rows of a product: those of x, times a tile's groups
HELD = 4 << 20  # bytes of x, which stays in fast memory


def tiles(rows: int, out: int, columns: int, groups: int) -> tuple[int, int]:
    """(outputs, stored columns) of a tile of weights [out, columns]; (0, 0) if none suits."""
    wide = 0
    for size in range(LANES, min(columns, COLUMNS) + 1, LANES):
        if columns % size == 0 and _held(rows, columns, groups, size):
            wide = size
    tall = [n for n in (1024, 512, 256, LANES) if out % n == 0 and n * wide <= TILE]
    return (tall[0], wide) if wide and tall else (0, 0)


def _held(rows: int, columns: int, groups: int, size: int) -> bool:
    # Groups of a tile must be whole, and its scales a multiple of 8 rows, or all of them.
    if not groups:
        return True
    of_tile, rest = divmod(size * groups, columns)
    return not rest and rows * of_tile <= ROWS and (of_tile % 8 == 0 or of_tile == groups)


def _padded(rows: int, kind: Any) -> int:
    step = 32 // jnp.dtype(kind).itemsize
    return -(-rows // step) * step


def takes(x: jax.Array, kernel: jax.Array, scale: jax.Array, activations: str) -> bool:
    """Whether the kernel takes x [rows, in] and these leaves ([L, out, in] or [out, in])."""
    groups = scale.shape[-1] if scale.ndim == kernel.ndim else 0
    if activations == "int8" and (groups or kernel.dtype == jnp.uint8):
        return False
    kind = jnp.int8 if activations == "int8" else x.dtype
    rows, (out, columns) = _padded(x.shape[0], kind), kernel.shape[-2:]
    held = rows * x.shape[1] * jnp.dtype(kind).itemsize
    fits = held <= HELD and rows <= ROWS and x.dtype in (jnp.bfloat16, jnp.float32)
    return fits and tiles(rows, out, columns, groups)[0] > 0


def matmul(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    index: jax.Array | int = 0,
    activations: str = "float",
    interpret: bool = False,
) -> jax.Array:
    """x [rows, in] times weights, as `quantized.reference` has it, on one device.

    Args:
      x: bfloat16 or float32.
      kernel: int8 [out, in] or uint8 [out, in/2], or a stack of them [L, ...], of which only the
        one that is asked for is read: a slice would first be copied.
      scale: of this layer, [out] or [out, groups].
      index: int32 [], the layer.
      activations: "float", or "int8" (int8 weights without groups).

    Returns:
      float32 [rows, out].
    """
    kernel = kernel if kernel.ndim == 3 else kernel[None]
    packed, count = kernel.dtype == jnp.uint8, x.shape[0]
    row_scale = None
    if activations == "int8":
        x, row_scale = quantize(x, -1)
    rows, (_, out, columns) = _padded(count, x.dtype), kernel.shape
    x = jnp.pad(x, ((0, rows - count), (0, 0)))
    # The even and the odd columns of int4 weights lie in the two halves of a byte.
    halves = [x[:, 0::2], x[:, 1::2]] if packed else [x]
    groups = scale.shape[1] if scale.ndim == 2 else 0
    tall, wide = tiles(rows, out, columns, groups)
    of_tile = wide * groups // columns
    scales = scale.astype(jnp.float32).reshape(out, -1).T  # [1 or groups, out]
    of_scales = (lambda o, i, _: (i, o)) if groups else (lambda o, i, _: (0, o))
    y: Any = pl.pallas_call(
        functools.partial(_kernel, steps=columns // wide, groups=of_tile),
        out_shape=jax.ShapeDtypeStruct((rows, out), jnp.float32),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(out // tall, columns // wide),
            in_specs=[
                *[pl.BlockSpec((rows, columns), lambda o, i, _: (0, 0))] * len(halves),
                pl.BlockSpec((None, tall, wide), lambda o, i, layer: (layer[0], o, i)),
                pl.BlockSpec((of_tile or 1, tall), of_scales),
            ],
            out_specs=pl.BlockSpec((rows, tall), lambda o, i, _: (0, o)),
            scratch_shapes=[
                pltpu.VMEM((rows, tall), jnp.int32 if row_scale is not None else jnp.float32)
            ],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=2 * rows * out * columns * len(halves),
            bytes_accessed=out * columns + 4 * scales.size + x.nbytes + 4 * rows * out,
            transcendentals=0,
        ),
        interpret=interpret,
        name="quantized_matmul",
    )(jnp.asarray(index, jnp.int32)[None], *halves, kernel, scales)
    y = y[:count]
    return y if row_scale is None else y * row_scale


def _kernel(index, *refs, steps: int, groups: int):
    del index
    *inputs, kernel, scale, out, total = refs
    at = pl.program_id(1)

    @pl.when(at == 0)
    def _():
        total[...] = jnp.zeros_like(total)

    stored = kernel[...]
    part = pl.ds(pl.multiple_of(at * stored.shape[1], LANES), stored.shape[1])
    if len(inputs) == 2:
        wide = stored.astype(jnp.int32)
        # To the top of 32 bits and back, which keeps the sign.
        weights = [jnp.right_shift(jnp.left_shift(wide, up), 28) for up in (24, 28)]
    else:
        weights = [stored]
    rows = total.shape[0]
    for x, weight in zip(inputs, weights, strict=True):
        added = _product(x[:, part], weight, groups)
        if not groups:
            total[...] += added
        for g in range(groups):
            total[...] += added[g * rows : (g + 1) * rows] * scale[g : g + 1]

    @pl.when(at == steps - 1)
    def _():
        y = total[...].astype(jnp.float32)
        out[...] = y if groups else y * scale[...]


def _product(x: jax.Array, weights: jax.Array, groups: int) -> jax.Array:
    # x [R, C] times weights [O, C]: [R, O], or [groups * R, O] where each group's columns alone
    # count: x repeated with zeros elsewhere, so that the weights need no cutting.
    if x.dtype == jnp.int8:
        dims = (((1,), (1,)), ((), ()))
        return jax.lax.dot_general(x, weights, dims, preferred_element_type=jnp.int32)
    if groups:
        size = x.shape[1] // groups
        group = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) // size
        x = jnp.concatenate([jnp.where(group == g, x, 0) for g in range(groups)], axis=0)
    exact = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        x,
        weights.astype(jnp.float32).astype(x.dtype),
        (((1,), (1,)), ((), ())),
        precision=exact,
        preferred_element_type=jnp.float32,
    )
