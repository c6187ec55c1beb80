"""Attention in plain jnp: what every kernel must equal."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

MASKED = -1e30  # finite: a row that sees nothing (padding) gives a mean, not NaN


def attention_mask(
    query_slots: jax.Array,
    key_slots: jax.Array,
    segment_ids: jax.Array | None = None,
    window: jax.Array | int | None = None,
) -> jax.Array:
    """Builds the mask [B, 1, T, S] from slots int32 [B or 1, T] and [S].

    A query sees key slots up to its own, within the window, of its own segment only
    (`segment_ids` int32 [B, T], T == S).
    """
    query, key = query_slots[:, :, None], key_slots[None, None, :]
    mask = key <= query
    if window is not None:
        mask &= key > query - window
    if segment_ids is not None:
        mask &= segment_ids[:, :, None] == segment_ids[:, None, :]
    return mask[:, None]


def causal_mask(length: int, segment_ids: jax.Array | None, window: int | None) -> jax.Array:
    """The mask [B or 1, 1, T, T] of a whole sequence."""
    steps = jnp.arange(length, dtype=jnp.int32)
    return attention_mask(steps[None], steps, segment_ids, window)


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    drop: Callable[[jax.Array], jax.Array] = lambda probs: probs,
) -> tuple[jax.Array, jax.Array]:
    """Softmax(q k^T / sqrt(head_width)) v, the softmax in float32.

    Args:
      query: [B, T, H, W]; key, value: [B, S, K, W] with H a multiple of K.
      mask: bool, broadcastable to [B, 1, T, S].
      drop: dropout on the probabilities.

    Returns:
      The result [B, T, H, W] and the probabilities [B, H, T, S], both in the query's dtype.
    """
    batch, length, heads, width = query.shape
    kv_heads = key.shape[2]
    if kv_heads == heads:  # a group axis of 1 would cost a CPU bytes in the backward pass
        scores = jnp.einsum("bthw,bshw->bhts", query, key, preferred_element_type=jnp.float32)
        scores = jnp.where(mask, scores * width**-0.5, MASKED)
        probs = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
        return jnp.einsum("bhts,bshw->bthw", drop(probs), value), probs
    query = query.reshape(batch, length, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("btkgw,bskw->bkgts", query, key, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, :, None], scores * width**-0.5, MASKED)
    probs = jax.nn.softmax(scores, axis=-1).astype(query.dtype)
    out = jnp.einsum("bkgts,bskw->btkgw", drop(probs), value)
    return out.reshape(batch, length, heads, width), probs.reshape(batch, heads, length, -1)
