"""Attention over a row whose positions are split over chips (ring attention, 2310.01889).

Every chip keeps its queries; keys, values and their segments travel around the ring, one hop a
step, while the softmax is put together from the parts. The backward pass sends keys, values and
their gradients round once more, so no chip ever holds a whole row of anything.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from geex_jax.kernels.plain import MASKED
from geex_jax.kernels.splash import CONTEXT

QUERY_CHUNK = 512  # queries whose scores against one block of keys exist at a time

Block = tuple[jax.Array, jax.Array, jax.Array]


def ring_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    segment_ids: jax.Array | None,
    axis_name: str | tuple[str, ...],
    window: int | None = None,
) -> jax.Array:
    """Causal attention within segments; to be called inside `jax.shard_map`.

    Args:
      query: [B, T, H, W], this chip's positions; chip i of the axis holds the i-th part of a row.
      key, value: [B, T, K, W], H a multiple of K.
      segment_ids: int32 [B, T], or None for one segment.
      axis_name: the mesh axis (or axes, as one ring) that splits the positions.
      window: key j is seen from i if i - window < j <= i.

    Returns:
      [B, T, H, W] in the query's dtype.
    """
    if segment_ids is None:
        segment_ids = jnp.ones(query.shape[:2], jnp.int32)
    return _ring(axis_name, window, query, key, value, segment_ids)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _ring(axis_name, window, query, key, value, segments):
    return _ring_forward(axis_name, window, query, key, value, segments)[0]


def _ring_forward(axis_name, window, query, key, value, segments):
    size, me = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)
    batch, length, heads, width = query.shape

    def step(carry, turn):
        block, best, total, out = carry
        source = (me - turn) % size

        def attend(best, total, out):
            part_best, part_total, part = _block(
                query, segments, block, _offset(me, source, length), window
            )
            new = jnp.maximum(best, part_best)
            old_weight, weight = jnp.exp(best - new), jnp.exp(part_best - new)
            out = out * _as_rows(old_weight) + part * _as_rows(weight)
            return new, total * old_weight + part_total * weight, out

        seen = _seen(me, source, length, window)
        best, total, out = jax.lax.cond(seen, attend, lambda *c: c, best, total, out)
        return (_pass_on(block, axis_name), best, total, out), None

    rows = (batch, heads, length)
    start = (
        (key, value, segments),
        jnp.full(rows, MASKED, jnp.float32),
        jnp.zeros(rows, jnp.float32),
        jnp.zeros((batch, length, heads, width), jnp.float32),
    )
    (_, best, total, out), _ = jax.lax.scan(step, start, jnp.arange(size))
    # The name by which remat policies keep what the backward pass wants.
    out = checkpoint_name((out / _as_rows(total)).astype(query.dtype), CONTEXT)
    log_total = checkpoint_name(best + jnp.log(total), CONTEXT)
    return out, (query, key, value, segments, out, log_total)


def _ring_backward(axis_name, window, residuals, grad):
    query, key, value, segments, out, log_total = residuals
    size, me = jax.lax.axis_size(axis_name), jax.lax.axis_index(axis_name)
    length = query.shape[1]
    # sum_s p_s (dp_s) of the softmax's gradient, [B, H, T]
    inner = jnp.einsum("bthw,bthw->bht", grad, out, preferred_element_type=jnp.float32)

    def step(carry, turn):
        block, grad_key, grad_value, grad_query = carry
        source = (me - turn) % size

        def back(grad_query, grad_key, grad_value):
            dq, dk, dv = _block_gradient(
                query, segments, block, _offset(me, source, length), window, log_total, inner, grad
            )
            return grad_query + dq, grad_key + dk, grad_value + dv

        seen = _seen(me, source, length, window)
        grad_query, grad_key, grad_value = jax.lax.cond(
            seen, back, lambda *c: c, grad_query, grad_key, grad_value
        )
        # After `size` hops a block's gradient is back where the block lives.
        block, grad_key, grad_value = _pass_on((block, grad_key, grad_value), axis_name)
        return (block, grad_key, grad_value, grad_query), None

    start = (
        (key, value, segments),
        *(jnp.zeros(x.shape, jnp.float32) for x in (key, value, query)),
    )
    (_, grad_key, grad_value, grad_query), _ = jax.lax.scan(step, start, jnp.arange(size))
    grads = (grad_query.astype(query.dtype), grad_key.astype(key.dtype))
    return *grads, grad_value.astype(value.dtype), None


_ring.defvjp(_ring_forward, _ring_backward)


def _pass_on(tree, axis_name):
    size = jax.lax.axis_size(axis_name)
    return jax.lax.ppermute(tree, axis_name, [(i, (i + 1) % size) for i in range(size)])


def _offset(me, source, length):
    # Global position of this chip's first query, seen from the block's first key.
    return (me - source) * length


def _seen(me, source, length, window):
    # Whether any query here sees any key of the block.
    seen = source <= me
    if window is not None:
        seen &= (me - source) * length - (length - 1) < window
    return seen


def _as_rows(x):
    return jnp.swapaxes(x, 1, 2)[..., None]  # [B, H, T] to [B, T, H, 1]


def _chunked(*arrays):
    # Where each chunk of the queries starts, and the chunks: [B, T, ...] to [C, B, T / C, ...].
    length = arrays[0].shape[1]
    chunk = QUERY_CHUNK if length % QUERY_CHUNK == 0 else length
    starts = jnp.arange(0, length, chunk)
    parts = [jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0) for x in arrays]
    return starts, parts


def _scores(query, query_segments, block, offset, window):
    # query [B, T, H, W] to masked scores [B, K, G, T, S] float32.
    key, _, segments = block
    batch, length = query.shape[:2]
    width = query.shape[3]
    grouped = query.reshape(batch, length, key.shape[2], -1, width)
    scores = jnp.einsum("btkgw,bskw->bkgts", grouped, key, preferred_element_type=jnp.float32)
    distance = offset + jnp.arange(length)[:, None] - jnp.arange(key.shape[1])
    mask = distance >= 0
    if window is not None:
        mask &= distance < window
    mask = mask & (query_segments[:, :, None] == segments[:, None, :])
    return jnp.where(mask[:, None, None], scores * width**-0.5, MASKED), grouped


def _block(query, query_segments, block, offset, window):
    # One block's part of the softmax: its maximum and sum [B, H, T], its values [B, T, H, W].
    value = block[1]

    def run(_, xs):
        start, q, s = xs
        scores, _ = _scores(q, s, block, offset + start, window)
        best = jnp.max(scores, axis=-1)
        powers = jnp.exp(scores - best[..., None])
        # What is masked everywhere has best = MASKED and powers 1: its weight is 0 beside any
        # block that holds a visible key, and every query sees itself.
        out = jnp.einsum(
            "bkgts,bskw->btkgw",
            powers.astype(value.dtype),
            value,
            preferred_element_type=jnp.float32,
        )
        return None, (best, jnp.sum(powers, axis=-1), out)

    starts, parts = _chunked(query, query_segments)
    _, (best, total, out) = jax.lax.scan(run, None, (starts, *parts))
    batch, length, heads = query.shape[:3]

    def rows(x):  # [C, B, K, G, t] to [B, H, T]
        return jnp.moveaxis(x, 0, 3).reshape(batch, heads, length)

    return rows(best), rows(total), jnp.moveaxis(out, 0, 1).reshape(query.shape)


def _block_gradient(query, query_segments, block, offset, window, log_total, inner, grad):
    # float32 gradients of query [B, T, H, W], key and value [B, S, K, W] through one block.
    key, value, _ = block
    kv_heads = key.shape[2]

    def run(carry, xs):
        start, q, s, normal, dot, g = xs
        scores, grouped = _scores(q, s, block, offset + start, window)

        def groups(x):  # [B, t, H] to [B, K, G, t, 1]
            x = jnp.moveaxis(x, 1, 2)
            return x.reshape(x.shape[0], kv_heads, -1, x.shape[2])[..., None]

        probs = jnp.exp(scores - groups(normal))
        g = g.reshape(grouped.shape)
        wide = {"preferred_element_type": jnp.float32}
        grad_value = jnp.einsum("bkgts,btkgw->bskw", probs.astype(g.dtype), g, **wide)
        grad_probs = jnp.einsum("btkgw,bskw->bkgts", g, value, **wide)
        grad_scores = probs * (grad_probs - groups(dot)) * q.shape[-1] ** -0.5
        grad_scores = grad_scores.astype(q.dtype)
        grad_query = jnp.einsum("bkgts,bskw->btkgw", grad_scores, key, **wide)
        grad_key = jnp.einsum("bkgts,btkgw->bskw", grad_scores, grouped, **wide)
        return (carry[0] + grad_key, carry[1] + grad_value), grad_query

    per_query = (query, query_segments, *(jnp.swapaxes(x, 1, 2) for x in (log_total, inner)), grad)
    starts, parts = _chunked(*per_query)
    zeros = tuple(jnp.zeros(x.shape, jnp.float32) for x in (key, value))
    (grad_key, grad_value), grad_query = jax.lax.scan(run, zeros, (starts, *parts))
    return jnp.moveaxis(grad_query, 0, 1).reshape(query.shape), grad_key, grad_value
