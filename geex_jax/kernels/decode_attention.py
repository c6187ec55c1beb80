"""Attention of a few new tokens over a flat cache: one function, whatever computes it.

The cache is [blocks, B, slots, kv_heads * head_width]: heads and their width are one axis, since a
TPU pads a short head axis and then copies the whole cache. Only one block of it is read, in its
own type. In an int8 cache each token's head has a scale; scores and probabilities are scaled
in place of keys and values, so that no float copy of those is made.

`reference` says what every other way must equal.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from geex_jax.kernels import cpu_native_attention as native
from geex_jax.kernels import decode_pallas, plain
from geex_jax.kernels.attention import mesh_cut, platform

FEW = 512  # query rows (new tokens x query heads) up to which a TPU takes `block_diagonal`
FEW_ON_CPU = 32  # the same for a CPU, whose price is the multiplications


def decode_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    block: jax.Array | int,
    slots: jax.Array,
    *,
    key_scale: jax.Array | None = None,
    value_scale: jax.Array | None = None,
    window: jax.Array | int | None = None,
    row: jax.Array | None = None,
    reach: int | None = None,
) -> jax.Array:
    """Softmax(q k^T / sqrt(W)) v over one block of a cache, the softmax in float32.

    Args:
      query: [B, T, H, W] in the compute type.
      key, value: [blocks, R, S, K * W], R at least B, H a multiple of K; the compute type, or int8.
      block: int32 [], whose keys and values.
      slots: int32 [B, T]; a query sees cache slots up to its own.
      key_scale, value_scale: float32 [blocks, R, S, K], of an int8 cache.
      window: a query sees slots s with slot - window < s only; may be a traced int32.
      row: int32 [], the cache's row of the first query row; None: 0.
      reach: static; only this many slots are read; None: all.

    Returns:
      [B, T, H, W] in the query's dtype.
    """
    scales = () if key_scale is None or value_scale is None else (key_scale, value_scale)
    # Where what is read begins: of the rows those that the queries are of.
    block = jnp.stack(
        [jnp.asarray(block, jnp.int32), jnp.asarray(0 if row is None else row, jnp.int32)]
    )
    far = jnp.int32(2**30) if window is None else jnp.asarray(window, jnp.int32)
    cut = mesh_cut()
    reach = key.shape[2] if reach is None else reach
    run = functools.partial(_run, where=platform(), windowed=window is not None, reach=reach)
    if not cut.free or cut.mesh.size == 1 or not _fits(cut, query, key):
        return run(query, key, value, block, slots, far, *scales)
    batch, heads = cut.batch or None, cut.heads or None
    held = PartitionSpec(None, batch, None, heads)
    place = PartitionSpec(batch, None, heads, None)
    whole = PartitionSpec()
    split: Any = jax.shard_map(
        run,
        in_specs=(place, held, held, whole, PartitionSpec(batch, None), whole)
        + (held,) * len(scales),
        out_specs=place,
        axis_names=cut.free,
        check_vma=False,  # Pallas calls do not say over which axes they vary
    )
    return split(query, key, value, block, slots, far, *scales)


def _fits(cut, query: jax.Array, key: jax.Array) -> bool:
    ways = cut.ways(cut.heads)
    kv_heads = key.shape[3] // query.shape[3]
    return query.shape[0] % cut.ways(cut.batch) == 0 and kv_heads % ways == 0


def _run(
    query, key, value, block, slots, far, *scales, where: str, windowed: bool, reach: int
) -> jax.Array:
    # One device's part; `block` is the block and the row where what is read begins.
    window = far if windowed else None
    if where == "tpu" and decode_pallas.takes(query, key, reach):
        return decode_pallas.decode_attention(
            query, key, value, block[0], slots, *scales, window=window, row=block[1], reach=reach
        )
    if where == "cpu" and native.takes(query, key, scales):
        return native.decode_attention(query, key, value, block, slots, *scales, window=window)
    few = query.shape[1] * query.shape[2] <= {"tpu": FEW, "cpu": FEW_ON_CPU}.get(where, 0)
    run = block_diagonal if few else reference  # on a CPU that turns the whole cache by heads
    key, value, *scales = (_part(c, block, query.shape[0], reach) for c in (key, value, *scales))
    return run(query, key, value, 0, slots, *scales, window=window)


def _part(cache: jax.Array, start: jax.Array, batch: int, reach: int) -> jax.Array:
    # Of a cache [blocks, R, S, F] what is read of one block: [1, batch, reach, F].
    size = (1, batch, reach, cache.shape[3])
    if size == cache.shape:
        return cache
    return jax.lax.dynamic_slice(cache, (start[0], start[1], 0, 0), size)


def _of_block(cache: jax.Array, block: jax.Array | int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(cache, block, keepdims=False)


def reference(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    block: jax.Array | int,
    slots: jax.Array,
    key_scale: jax.Array | None = None,
    value_scale: jax.Array | None = None,
    window: jax.Array | int | None = None,
) -> jax.Array:
    """`decode_attention` in plain `jnp`."""
    batch, length, _, width = query.shape
    split = (batch, key.shape[2], -1, width)
    keys, values = (_of_block(c, block).reshape(split).astype(query.dtype) for c in (key, value))
    mask = plain.attention_mask(slots, jnp.arange(key.shape[2]), window=window)
    if key_scale is None or value_scale is None:
        return plain.dot_product_attention(query, keys, values, mask)[0]
    kv_heads = keys.shape[2]
    grouped = query.reshape(batch, length, kv_heads, -1, width)
    scores = jnp.einsum("btkgw,bskw->bkgts", grouped, keys, preferred_element_type=jnp.float32)
    scores = scores * (_by_head(key_scale, block)[:, :, None, None] * width**-0.5)
    probs = jax.nn.softmax(jnp.where(mask[:, :, None], scores, plain.MASKED), axis=-1)
    probs = (probs * _by_head(value_scale, block)[:, :, None, None]).astype(query.dtype)
    out = jnp.einsum("bkgts,bskw->btkgw", probs, values)
    return out.reshape(query.shape)


def _by_head(scale: jax.Array, block: jax.Array | int) -> jax.Array:
    # [blocks, B, S, K] to [B, K, S] of one block.
    return jnp.swapaxes(_of_block(scale, block), 1, 2)


def block_diagonal(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    block: jax.Array | int,
    slots: jax.Array,
    key_scale: jax.Array | None = None,
    value_scale: jax.Array | None = None,
    window: jax.Array | int | None = None,
) -> jax.Array:
    """`decode_attention` as two matmuls over the flat axis, for a TPU's matrix units.

    A head's query lies in its own part of a row of zeros as long as all heads, so that one matmul
    reads the flat keys as they lie; of the product with the flat values each head keeps its own
    part. K times the multiplications, of which a matrix unit does 128 rows at the price of one.
    """
    batch, length, heads, width = query.shape
    kv_heads = key.shape[3] // width
    own = jnp.eye(kv_heads, dtype=query.dtype)
    grouped = query.reshape(batch, length, kv_heads, -1, width)
    spread = jnp.einsum("btkgw,kj->btkgjw", grouped, own).reshape(batch, length * heads, -1)
    keys, values = (_of_block(c, block).astype(query.dtype) for c in (key, value))
    scores = _scores(spread, keys)
    scores = scores.reshape(batch, length, kv_heads, -1, key.shape[2]) * width**-0.5
    if key_scale is not None:
        scores = scores * _by_head(key_scale, block)[:, None, :, None]
    mask = plain.attention_mask(slots, jnp.arange(key.shape[2]), window=window)[:, 0]
    probs = jax.nn.softmax(jnp.where(mask[:, :, None, None], scores, plain.MASKED), axis=-1)
    if value_scale is not None:
        probs = probs * _by_head(value_scale, block)[:, None, :, None]
    rows = probs.astype(query.dtype).reshape(batch, length * heads, -1)
    wide = jnp.einsum("brs,bsf->brf", rows, values)
    wide = wide.reshape(batch, length, kv_heads, -1, kv_heads, width)
    return jnp.einsum("btkgjw,kj->btkgw", wide, own).reshape(query.shape)


def _scores(rows: jax.Array, keys: jax.Array) -> jax.Array:
    """Rows [B, R, F] by keys [B, S, F], in float32 [B, R, S]."""
    if platform() != "cpu":
        return jnp.einsum("brf,bsf->brs", rows, keys, preferred_element_type=jnp.float32)
    # A CPU packs a product's second operand: not the keys. See `cpu._kernel_first`.
    scores = jnp.einsum("bsf,brf->bsr", keys, rows, preferred_element_type=jnp.float32)
    return jnp.swapaxes(jax.lax.optimization_barrier(scores), 1, 2)
