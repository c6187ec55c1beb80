"""JAX's splash attention for TPUs, with tiles of our choice.

Splash reads only the tiles that the causal mask (and the window) leaves, masks segments inside a
tile, and has one kernel for the whole backward pass. On CPUs it runs in Pallas's interpreter.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

LANES = 128  # of a TPU's vector registers: lengths and head widths are padded to multiples of it
CONTEXT = "context"  # checkpoint name of what the backward kernel needs: result and log-sum-exp

# Longest sequence -> (query tile, key tile, keys computed at a time), forward and backward alike,
# for heads of 128 in 16 bits. See `tiles`.
TILES: tuple[tuple[int | None, tuple[int, int, int]], ...] = (
    (512, (512, 512, 512)),
    (None, (1024, 1024, 512)),
)
# The fused backward kernel writes a part of the query's gradient for each key tile, to be summed:
# up to here at most 8 of the query's size. Longer sequences take one kernel more instead.
FUSED = 8192


def tiles(length: int, width: int, itemsize: int) -> kernel.BlockSizes:
    """The tiles for sequences of `length` (a multiple of 128), heads of `width`.

    JAX's default of 128 x 128 starts 64 times as many grid steps as 1024 x 1024, each too short to
    hide its loads. MaxText publishes 512 (base.yml) to 2048 (benchmarks of v6e). 1024 is the
    largest that libtpu 0.0.42 compiles for v5e and v5p within its default scoped VMEM (2048 needs
    v6e, or xla_tpu_scoped_vmem_limit_kib), and of a causal row of 2048 it skips a quarter, where
    2048 skips nothing. Chosen by that arithmetic and not timed: no TPU was at hand.

    Args:
      length: tokens, padded.
      width: elements of a head, padded.
      itemsize: bytes of an element of the query.
    """
    sizes = next(sizes for longest, sizes in TILES if longest is None or length <= longest)
    # Wider heads and elements take fewer rows, for the same VMEM.
    shrink = max(width // LANES, 1) * max(itemsize // 2, 1)
    query, keys, compute = (_dividing(length, size // shrink) for size in sizes)
    compute = compute if keys % compute == 0 else keys
    fused = length <= FUSED
    return kernel.BlockSizes(
        block_q=query,
        block_kv=keys,
        block_kv_compute=compute,
        block_q_dkv=query,
        block_kv_dkv=keys,
        block_kv_dkv_compute=compute,
        block_q_dq=None if fused else query,
        block_kv_dq=None if fused else keys,
        use_fused_bwd_kernel=fused,
    )


def _dividing(length: int, most: int) -> int:
    # The largest multiple of 128 that divides the length and is no longer than `most`.
    sizes = range(LANES, min(length, max(most, LANES)) + 1, LANES)
    return max(size for size in sizes if length % size == 0)


def splash_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    window: int | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention on one device.

    Args:
      query: [B, T, H, W]; key, value: [B, T, K, W], H a multiple of K.
      segment_ids: int32 [B, T] or None; attention stays within equal ids.
      window: key j is seen from i if i - window < j <= i.
      interpret: run on a CPU, step by step.

    Returns:
      [B, T, H, W] in the query's dtype.
    """
    length, width = query.shape[1], query.shape[3]
    long, wide = (-size % LANES for size in (length, width))
    # Splash does not scale. In float32, so that 16-bit queries are rounded once.
    query = (query.astype(jnp.float32) * width**-0.5).astype(query.dtype)

    def prepared(x: jax.Array) -> jax.Array:  # [B, heads, T padded, W padded]
        return jnp.pad(jnp.swapaxes(x, 1, 2), ((0, 0), (0, 0), (0, long), (0, wide)))

    query, key, value = prepared(query), prepared(key), prepared(value)
    heads, padded = query.shape[1:3]
    shape = (padded, padded)
    # Rows added at the end lie after all others, so the causal mask hides them.
    mask = masks.CausalMask(shape)
    if window is not None and window < length:
        mask = masks.LocalMask(shape, (window - 1, 0), 0)
    run = kernel.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=tiles(padded, query.shape[3], query.dtype.itemsize),
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=CONTEXT,
        interpret=interpret,
    )
    ids = None
    if segment_ids is not None:
        padded_ids = jnp.pad(segment_ids, ((0, 0), (0, long)))
        ids = kernel.SegmentIds(q=padded_ids, kv=padded_ids)
    out: Any = jax.vmap(run)(query, key, value, ids)
    return jnp.swapaxes(out, 1, 2)[:, :length, :, :width]
