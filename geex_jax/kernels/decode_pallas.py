"""Decode attention for TPUs in Pallas: a block of the flat cache read once, as it lies.

XLA's way to the same (`decode_attention.block_diagonal`) transposes a layer's values into another
array first, three times the bytes, and reads all slots whatever the lengths are. Here a row's
keys and values go through fast memory in tiles of slots; tiles behind a row's last token, or
before its window, are not fetched. Softmax is updated from tile to tile (flash decoding).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from geex_jax.kernels.plain import MASKED

LANES = 128
TILE = 3 << 19  # bytes of a tile of keys: two of keys and two of values are in fast memory
ROWS = 256  # query rows (new tokens x heads) up to a flat axis of 5120; fewer if it is longer


def tile(slots: int, flat: int, itemsize: int) -> int:
    """Slots of a tile, a multiple of 128 that divides `slots`; 0 if none does."""
    sizes = [n for n in (1024, 512, 256, LANES) if slots % n == 0]
    return next((n for n in sizes if n * flat * itemsize <= TILE), sizes[-1] if sizes else 0)


def takes(query: jax.Array, key: jax.Array, reach: int | None = None) -> bool:
    """Whether the kernel takes these shapes: else the twins compute them."""
    size = key.shape[2] if reach is None else reach
    width = query.shape[3]
    rows, flat = query.shape[1] * query.shape[2], key.shape[3]
    small = rows * max(flat, 5120) <= ROWS * 5120 and flat <= 16384
    aligned = width % LANES == 0 and tile(size, flat, key.dtype.itemsize) > 0
    return small and aligned and query.dtype in (jnp.bfloat16, jnp.float32)


def decode_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    block: jax.Array,
    slots: jax.Array,
    key_scale: jax.Array | None = None,
    value_scale: jax.Array | None = None,
    window: jax.Array | int | None = None,
    interpret: bool = False,
    row: jax.Array | int = 0,
    reach: int | None = None,
) -> jax.Array:
    """As `decode_attention.reference`, for shapes that `takes` accepts, on one device.

    Of the cache the rows from `row` on are read, and `reach` slots of them.
    """
    batch, length, heads, width = query.shape
    _, _, size, flat = key.shape
    size = size if reach is None else reach
    rows, step = length * heads, tile(size, flat, key.dtype.itemsize)
    far = jnp.asarray(2**30 if window is None else window, jnp.int32)
    # The tiles of each row's first and last key that any of its queries sees.
    last = jnp.clip(jnp.max(slots, axis=1) // step, 0, size // step - 1)
    first = jnp.clip((jnp.min(slots, axis=1) - far + 1) // step, 0, last)
    place = jnp.stack([jnp.asarray(block, jnp.int32), jnp.asarray(row, jnp.int32)])
    scalars = (place, first, last, far[None])
    ends = jnp.repeat(slots, heads, axis=1)[..., None]  # [B, R, 1], the slot of each query row

    def of_row(b, s, *_):
        return b, 0, 0

    def of_cache(b, s, block, first, last, far):
        return block[0], block[1] + b, jnp.clip(s, first[b], last[b]), 0

    def of_scales(b, s, *scalars):
        block, row, at, _ = of_cache(b, s, *scalars)
        return block, row, 0, at

    arrays = [query.reshape(batch, rows, width), ends, key, value]
    one_row = pl.BlockSpec((None, rows, width), of_row)
    specs = [
        one_row,
        pl.BlockSpec((None, rows, 1), of_row),
        pl.BlockSpec((None, None, step, flat), of_cache),
        pl.BlockSpec((None, None, step, flat), of_cache),
    ]
    # A TPU keeps scales with slots along the lanes, so that this is no copy.
    scales = [jnp.swapaxes(s, 2, 3) for s in (key_scale, value_scale) if s is not None]
    specs += [pl.BlockSpec((None, None, s.shape[2], step), of_scales) for s in scales]
    moved = 2 * batch * size * flat * key.dtype.itemsize + 2 * query.nbytes
    moved += sum(batch * size * s.shape[2] * 4 for s in scales)
    out: Any = pl.pallas_call(
        functools.partial(
            _kernel, step=step, heads=heads, width=width, scaled=bool(scales), size=size
        ),
        out_shape=jax.ShapeDtypeStruct((batch, rows, width), query.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(batch, size // step),
            in_specs=specs,
            out_specs=one_row,
            scratch_shapes=[
                pltpu.VMEM((rows, flat), query.dtype),
                pltpu.VMEM((rows, flat), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
                pltpu.VMEM((rows, LANES), jnp.float32),
            ],
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        # What attention needs; each matrix product is as wide as all heads, for the same bytes.
        cost_estimate=pl.CostEstimate(
            flops=4 * batch * rows * size * width,
            bytes_accessed=moved,
            transcendentals=batch * rows * size,
        ),
        interpret=interpret,
        name="decode_attention",
    )(*scalars, *arrays, *scales)
    return out.reshape(query.shape)


def _kernel(block, first, last, far, query, ends, key, value, *rest, step, heads, width, scaled,
            size):  # fmt: skip
    del block
    key_scale, value_scale = rest[:2] if scaled else (None, None)
    out, spread, total, most, weight = rest[2 * scaled :]
    row, at = pl.program_id(0), pl.program_id(1)
    kv_heads = key.shape[1] // width
    rows = query.shape[0]
    # The key head of each query row; rows are ordered by token, then head.
    owner = jax.lax.broadcasted_iota(jnp.int32, (rows, 1), 0) % heads // (heads // kv_heads)

    @pl.when(at == 0)
    def _():
        # A row's query among zeros, at the place of its head in the flat axis.
        for k in range(kv_heads):
            spread[:, k * width : (k + 1) * width] = jnp.where(owner == k, query[...], 0)
        total[...] = jnp.zeros_like(total)
        weight[...] = jnp.zeros_like(weight)
        most[...] = jnp.full_like(most, MASKED)

    @pl.when((at >= first[row]) & (at <= last[row]))
    def _():
        scores = _dot(spread[...], key[...].astype(spread.dtype), 1) * width**-0.5
        if scaled:
            scores = scores * _by_row(key_scale, owner)
        slot = at * step + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        seen = (slot <= ends[...]) & (slot > ends[...] - far[0])
        scores = jnp.where(seen, scores, MASKED)
        before = most[:, :1]
        highest = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        # What no query sees has no weight, even while a row has seen nothing yet.
        shares = jnp.where(seen, jnp.exp(scores - highest), 0.0)
        fade = jnp.exp(before - highest)
        weight[...] = weight[...] * fade + jnp.sum(shares, axis=1, keepdims=True)
        most[...] = jnp.broadcast_to(highest, most.shape)
        if scaled:
            shares = shares * _by_row(value_scale, owner)
        added = _dot(shares.astype(spread.dtype), value[...].astype(spread.dtype), 0)
        total[...] = total[...] * fade + added

    @pl.when(at == size // step - 1)
    def _():
        found = jnp.zeros((rows, width), jnp.float32)
        for k in range(kv_heads):
            found = jnp.where(owner == k, total[:, k * width : (k + 1) * width], found)
        out[...] = (found / weight[:, :1]).astype(out.dtype)


def _dot(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    # a [R, C] times b with C along `axis`, in float32.
    dims = (((1,), (axis,)), ((), ()))
    exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(a, b, dims, precision=exact, preferred_element_type=jnp.float32)


def _by_row(scale: Any, owner: jax.Array) -> jax.Array:
    # Scales [K, slots] of key heads as [R, slots] of query rows: a product with ones, exact.
    heads = jax.lax.broadcasted_iota(jnp.int32, (owner.shape[0], scale.shape[0]), 1)
    return _dot((heads == owner).astype(jnp.float32), scale[...], 0)
