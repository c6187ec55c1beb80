"""Cross-entropy in chunks: a [batch, length, vocabulary] array never exists.

The forward pass of the differentiated loss also makes the gradients of the head, chunk by chunk,
so logits are computed once (three matmuls, where rematerialization would take four).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from geex_jax.models import Transformer
from geex_jax.parallel import current_ways
from geex_jax.quantize.rounding import dequantize_kernel, dequantize_table

Batch = dict[str, Any]


def cross_entropy(
    hidden: jax.Array,
    table: jax.Array,
    bias: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    chunk: int = 512,
) -> tuple[jax.Array, jax.Array]:
    """Weighted sum of -log p(target) and its terms.

    Args:
      hidden: [B, S, D], the head's input.
      table: [V, D], the head's kernel or the tied embedding.
      bias: [V].
      targets: int32 [B, S].
      weights: float32 [B, S]; 0 leaves a position out.
      chunk: positions of a row whose logits exist at a time.

    Returns:
      sum(weights * nll), differentiable in hidden, table and bias, and nll float32 [B, S],
      which is not.
    """
    out: Any = _cross_entropy(chunk, hidden, table, bias, targets, weights)
    total, nll = out
    return total, jax.lax.stop_gradient(nll)


def _chunks(chunk: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    # [B, S, ...] to [S / chunk, B, chunk, ...]; the padding has weight 0.
    length = arrays[0].shape[1]
    chunk = min(chunk, length)
    pad = -length % chunk
    out = []
    for x in arrays:
        x = jnp.pad(x, ((0, 0), (0, pad)) + ((0, 0),) * (x.ndim - 2))
        x = x.reshape(x.shape[0], -1, chunk, *x.shape[2:])
        out.append(jnp.moveaxis(x, 1, 0))
    return tuple(out)


def _unchunk(x: jax.Array, length: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])[:, :length]


def _nll(hidden, table, bias, targets):
    logits = jnp.einsum("bsd,vd->bsv", hidden, table, preferred_element_type=jnp.float32)
    logits = logits + bias.astype(jnp.float32)
    top = jnp.max(logits, axis=-1)
    powers = jnp.exp(logits - top[..., None])  # the gradient uses them again: one exp per logit
    total = jnp.sum(powers, axis=-1)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return top + jnp.log(total) - picked, powers, total


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross_entropy(chunk, hidden, table, bias, targets, weights):
    def body(total, xs):
        h, t, w = xs
        nll, _, _ = _nll(h, table, bias, t)
        return total + jnp.sum(nll * w), nll

    zero = jnp.zeros((), jnp.float32)
    total, nll = jax.lax.scan(body, zero, _chunks(chunk, hidden, targets, weights))
    return total, _unchunk(nll, hidden.shape[1])


def _forward(chunk, hidden, table, bias, targets, weights):
    total, nll, grad_h, grad_table, grad_bias = _spread(
        chunk, hidden, table, bias, targets, weights
    )
    return (total, nll), (grad_h, grad_table, grad_bias)


def _spread(chunk, *arrays):
    # `_sweep` on every shard of the positions. Left to the compiler, the head's gradient would be
    # summed over the mesh once per chunk, in float32, and a split row would be gathered.
    rows, length = current_ways("batch"), current_ways("length")
    sizes = jax.sharding.get_abstract_mesh().shape
    hidden, table = arrays[:2]
    even = hidden.shape[0] % math.prod(sizes[a] for a in rows) == 0
    even &= hidden.shape[1] % math.prod(sizes[a] for a in length) == 0
    if not (rows + length and even):
        return _sweep(chunk, *arrays)
    scatter = [a for a in rows if a == "fsdp" and table.shape[1] % sizes[a] == 0]
    place = PartitionSpec(rows or None, length or None)

    def shard(*arrays):
        total, nll, grad_h, grad_table, grad_bias = _sweep(chunk, *arrays)
        for axis in scatter:
            grad_table = jax.lax.psum_scatter(grad_table, axis, scatter_dimension=1, tiled=True)
        rest = tuple(a for a in rows + length if a not in scatter)
        total, grad_bias = jax.lax.psum((total, grad_bias), rows + length)
        return total, nll, grad_h, jax.lax.psum(grad_table, rest) if rest else grad_table, grad_bias

    one = PartitionSpec()
    columns = PartitionSpec(None, *scatter)
    return jax.shard_map(
        shard,
        in_specs=(place, one, one, place, place),
        out_specs=(one, place, place, columns, one),
        axis_names=set(rows + length),
        check_vma=False,
    )(*arrays)


def _sweep(chunk, hidden, table, bias, targets, weights):
    vocabulary = jnp.arange(table.shape[0], dtype=targets.dtype)

    def body(carry, xs):
        total, grad_table, grad_bias = carry
        h, t, w = xs
        nll, powers, norm = _nll(h, table, bias, t)
        hit = vocabulary == t[..., None]
        delta = powers * (w / norm)[..., None] - jnp.where(hit, w[..., None], 0.0)
        narrow = delta.astype(h.dtype)
        grad_h = jnp.einsum("bsv,vd->bsd", narrow, table)
        # [D, V]: the other way round a CPU transposes delta, by far the largest array here.
        grad_table += jnp.einsum("bsd,bsv->dv", h, narrow, preferred_element_type=jnp.float32)
        grad_bias += jnp.sum(delta, axis=(0, 1))
        return (total + jnp.sum(nll * w), grad_table, grad_bias), (nll, grad_h)

    start = (
        jnp.zeros((), jnp.float32),
        jnp.zeros(table.shape[::-1], jnp.float32),
        jnp.zeros(bias.shape, jnp.float32),
    )
    (total, grad_table, grad_bias), (nll, grad_h) = jax.lax.scan(
        body, start, _chunks(chunk, hidden, targets, weights)
    )
    length = hidden.shape[1]
    return (
        total,
        _unchunk(nll, length),
        _unchunk(grad_h, length),
        grad_table.T.astype(table.dtype),
        grad_bias.astype(bias.dtype),
    )


def _backward(chunk, grads, cotangents):
    scale, _ = cotangents  # nll's is zero: the caller stops its gradient
    grad_h, grad_table, grad_bias = (g * scale.astype(g.dtype) for g in grads)
    return grad_h, grad_table, grad_bias, None, None


_cross_entropy.defvjp(_forward, _backward)


def _head_table(params: Any, tied: bool) -> jax.Array:
    # [V, D]; a quantized one as the floats that it stands for.
    held = params["embedding"] if tied else params["head"]
    if "tokens_scale" in held:
        return dequantize_table(held)
    if "kernel_scale" in held:
        return dequantize_kernel(held).T
    return held["tokens"] if tied else held["kernel"].T


def loss_fn(
    params: dict[str, Any],
    batch: Batch,
    model: Transformer,
    *,
    weights: Any = None,
    dropout_key: jax.Array | None = None,
    chunk: int = 512,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean -log p of the next token, in nats, over the positions that count.

    Args:
      params: the parameter tree.
      batch: int32 `tokens`, `targets`, `positions`, `segment_ids` and float32 `loss_mask`, all
        [B, S]; see `geex_jax.data`.
      model: the decoder.
      weights: float32 [B, S] in place of loss_mask / sum(loss_mask).
      dropout_key: turns dropout on.
      chunk: positions whose logits exist at a time.

    Returns:
      The loss, float32 [], and `{"nll": [B, S], "tokens": []}`: per-position loss and the number
      of positions that count.
    """
    hidden = model.apply(
        {"params": params},
        batch["tokens"],
        batch["positions"],
        batch["segment_ids"],
        method="hidden",
        rngs={} if dropout_key is None else {"dropout": dropout_key},
    )
    assert isinstance(hidden, jax.Array)
    config = model.config
    table = _head_table(params, config.tied_head)
    # A tied head may have a bias too.
    bias = params.get("head", {}).get("bias", jnp.zeros((config.vocab_size,), jnp.float32))
    count = jnp.sum(batch["loss_mask"])
    if weights is None:
        weights = batch["loss_mask"] / jnp.maximum(count, 1.0)
    loss, nll = cross_entropy(
        hidden, table.astype(config.dtype), bias, batch["targets"], weights, chunk
    )
    return loss, {"nll": nll, "tokens": count}
