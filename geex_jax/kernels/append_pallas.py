"""New tokens into an int8 cache on TPUs, in Pallas and in place.

XLA's scatter of more than a few rows wants int8 tiles of another shape, and scales in another
order, than what reads the cache: it would copy all of it in every layer. The plain function is
`models.cache.write`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec

from geex_jax.kernels.attention import mesh_cut, platform

ROWS, LANES = 32, 128  # of a tile of int8; a tile is what can be written


def wanted(key: jax.Array, new: jax.Array) -> bool:
    """Whether `append` is the way to put new [B, T, K, W] into an int8 cache [.., S, K * W]."""
    cut = mesh_cut()
    flat, kv_heads = key.shape[3], new.shape[2]
    ways = cut.ways(cut.heads)
    fits = new.shape[0] % cut.ways(cut.batch) == 0 and kv_heads % ways == 0
    aligned = key.shape[2] % LANES == 0 and flat // ways % LANES == 0
    return platform() == "tpu" and key.dtype == jnp.int8 and fits and aligned and new.shape[1] <= 8


def append(
    cache: Sequence[jax.Array],
    new: Sequence[jax.Array],
    block: jax.Array | int,
    slots: jax.Array,
    row: jax.Array | int = 0,
) -> list[jax.Array]:
    """Writes the tokens of each row behind each other; slots past the end are dropped.

    Args:
      cache: keys, values int8 [blocks, R, S, F], their scales float32 [blocks, R, S, K].
      new: the same of new tokens, [B, T, F] and [B, T, K].
      block: int32 [], which block's.
      slots: int32 [B], of each row's first new token.
      row: int32 [], the cache's row of the first.

    Returns:
      The cache's arrays, which take the place of those given.
    """
    place = jnp.stack([jnp.asarray(block, jnp.int32), jnp.asarray(row, jnp.int32)])
    run = functools.partial(_append, interpret=platform() == "cpu")
    cut = mesh_cut()
    if not cut.free or cut.mesh.size == 1:
        return run(cache, new, place, slots)
    batch, heads = cut.batch or None, cut.heads or None
    held = [PartitionSpec(None, batch, None, heads)] * 4
    split: Any = jax.shard_map(
        run,
        in_specs=(
            held,
            [PartitionSpec(batch, None, heads)] * 4,
            PartitionSpec(),
            PartitionSpec(batch),
        ),
        out_specs=held,
        axis_names=cut.free,
        check_vma=False,  # Pallas calls do not say over which axes they vary
    )
    return split(list(cache), list(new), place, slots)


def _append(cache, new, place, slots, *, interpret: bool) -> list[jax.Array]:
    # One device's part. Scales have their slots last: so a TPU keeps them.
    held = [*cache[:2], *(jnp.swapaxes(x, 2, 3) for x in cache[2:])]
    for t in range(new[0].shape[1]):
        one = [x[:, t : t + 1] for x in new]
        one = [*one[:2], *(jnp.swapaxes(x, 1, 2) for x in one[2:])]
        held = _token(held, one, place, slots + t, interpret)
    return [*held[:2], *(jnp.swapaxes(x, 2, 3) for x in held[2:])]


def _token(held, new, place, slots, interpret: bool) -> list[jax.Array]:
    batch, size, flat = new[0].shape[0], held[0].shape[2], held[0].shape[3]
    kv_heads = held[2].shape[2]

    def row(b, *_):
        return b, 0, 0

    def of_tokens(b, place, slots):
        return place[0], place[1] + b, jnp.minimum(slots[b], size - 1) // ROWS, 0

    def of_scales(b, place, slots):
        return place[0], place[1] + b, 0, jnp.minimum(slots[b], size - 1) // LANES

    tokens = pl.BlockSpec((None, None, ROWS, flat), of_tokens)
    scales = pl.BlockSpec((None, None, kv_heads, LANES), of_scales)
    tiles = [tokens, tokens, scales, scales]
    given = [pl.BlockSpec((None, 1, flat), row)] * 2 + [pl.BlockSpec((None, kv_heads, 1), row)] * 2
    out: Any = pl.pallas_call(
        functools.partial(_kernel, size=size),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in held],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2, grid=(batch,), in_specs=[*given, *tiles], out_specs=tiles
        ),
        input_output_aliases={6 + i: i for i in range(4)},  # behind two scalars and the new tokens
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary",)),
        cost_estimate=pl.CostEstimate(
            flops=0,
            bytes_accessed=4 * batch * (ROWS * flat + kv_heads * LANES * 4),
            transcendentals=0,
        ),
        interpret=interpret,
        name="append_to_cache",
    )(place, slots, *new, *held)
    return list(out)


def _kernel(place, slots, *refs, size: int):
    del place
    new, tiles, out = refs[:4], refs[4:8], refs[8:]
    slot = slots[pl.program_id(0)]
    for i, (one, tile, put) in enumerate(zip(new, tiles, out, strict=True)):
        axis, step = (0, ROWS) if i < 2 else (1, LANES)
        first = jnp.minimum(slot, size - 1) // step * step
        here = first + jax.lax.broadcasted_iota(jnp.int32, tile.shape, axis) == slot
        wide = jnp.int32 if i < 2 else jnp.float32  # a TPU selects 32 bits
        put[...] = jnp.where(here, one[...].astype(wide), tile[...].astype(wide)).astype(put.dtype)
