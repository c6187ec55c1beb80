"""GPTQ (2210.17323): integers that change what a linear gives on real inputs least.

Rounding to nearest minimizes the error of weights; what counts is the error of outputs,
trace(E H E^T) with E the error of the weights [out, in] and H = X^T X of the inputs X [tokens,
in]. Column after column is rounded, and what a column loses is made good by the ones to come, by
the inverse of H. Columns that weigh most (the largest diagonal of H) come first ("act-order");
scales are chosen before, so that groups lie as they would without.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from geex_jax.errors import GeexError
from geex_jax.quantize.rounding import in_groups, scale_of

BLOCK = 128  # columns between two updates of all that follow
DAMPING = (0.01, 0.1, 1.0)  # of the mean diagonal; the first that keeps H invertible in float32
SHRINKS = tuple(1 - 0.03 * i for i in range(20))  # of the largest weight, as a scale's reach
_EXACT = jax.lax.Precision.HIGHEST  # a TPU's default would round what is inverted to bfloat16


def quantize_by_inputs(
    weight: jax.Array, hessian: jax.Array, bits: int, group: int | None = None
) -> tuple[jax.Array, jax.Array]:
    """Integers and scales of one matrix by the inputs that it will meet.

    Args:
      weight: float32 [out, in].
      hessian: float32 [in, in], X^T X.
      bits: 8 or 4.
      group: inputs that share a scale.

    Returns:
      int8 [out, in] and scales float32 [out], or [out, groups].

    Raises:
      GeexError: the inputs hold a NaN or an infinity.
    """
    scale = search_scale(weight, jnp.diag(hessian), bits, group)
    return gptq(weight, hessian, scale, bits), scale


@functools.partial(jax.jit, static_argnames=("bits", "group"))
def search_scale(
    weight: jax.Array, diagonal: jax.Array, bits: int, group: int | None = None
) -> jax.Array:
    """Scales [out] or [out, groups] that clip the largest weights where that costs less.

    Of max|W| / largest integer, shrunk by up to 57 %, each row (and group) takes the one with the
    least sum of squared errors, weighed by the diagonal [in] of H.
    """
    parts = in_groups(weight, group)
    weigh = jnp.broadcast_to(in_groups(diagonal[None], group), parts.shape)
    largest = 2 ** (bits - 1) - 1
    full = scale_of(parts, bits)

    def loss(shrink: jax.Array) -> jax.Array:
        scale = (full * shrink)[..., None]
        rounded = jnp.clip(jnp.round(parts / scale), -largest, largest) * scale
        return jnp.sum(weigh * (parts - rounded) ** 2, axis=-1)

    def better(carry, shrink):
        best, least = carry
        found = loss(shrink)
        return (jnp.where(found < least, shrink, best), jnp.minimum(found, least)), None

    start = jnp.ones_like(full), loss(jnp.float32(1))
    (best, _), _ = jax.lax.scan(better, start, jnp.array(SHRINKS[1:], jnp.float32))
    return full * best


def gptq(weight: jax.Array, hessian: jax.Array, scale: jax.Array, bits: int) -> jax.Array:
    """Integers int8 [out, in] for given scales; with H a multiple of 1, those of rounding.

    Args:
      weight: float32 [out, in].
      hessian: float32 [in, in]. An input that was never active is rounded to nearest.
      scale: float32 [out] or [out, groups].
      bits: 8 or 4.

    Raises:
      GeexError: the Hessian holds a NaN or an infinity.
    """
    order = jnp.argsort(-jnp.diag(hessian), stable=True)
    for damping in DAMPING:
        factor = _factor(hessian, order, damping)
        if jnp.all(jnp.isfinite(factor)):
            return _sweep(weight, factor, scale, order, bits)
    raise GeexError(
        "the inputs of a linear hold a NaN or an infinity", "calibrate another checkpoint"
    )


@jax.jit
def _factor(hessian: jax.Array, order: jax.Array, damping: jax.Array) -> jax.Array:
    """Upper triangular U [in, in] with U^T U the inverse of the damped H in the order given."""
    diagonal = jnp.diag(hessian)
    mean = jnp.mean(diagonal)
    add = damping * mean + jnp.where(diagonal <= 0, jnp.where(mean > 0, mean, 1.0), 0.0)
    damped = (hessian + jnp.diag(add))[order][:, order]
    # Reversed, Cholesky's lower factor becomes an upper one R with R R^T = H; U is its inverse.
    factor = jnp.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    one = jnp.eye(len(hessian), dtype=jnp.float32)
    return jax.scipy.linalg.solve_triangular(factor, one, lower=False)


@functools.partial(jax.jit, static_argnames=("bits",))
def _sweep(
    weight: jax.Array, factor: jax.Array, scale: jax.Array, order: jax.Array, bits: int
) -> jax.Array:
    out, inputs = weight.shape
    scales = scale.reshape(out, -1).T  # [groups, out]
    largest = 2 ** (bits - 1) - 1
    pad = -inputs % BLOCK
    group_of = jnp.pad(order * scales.shape[0] // inputs, (0, pad))
    # Inputs first: a column of the weights is then a row, and lies together.
    rest = jnp.pad(weight.T[order], ((0, pad), (0, 0)))
    factor = jnp.pad(factor, ((0, pad), (0, pad)))
    factor = factor + jnp.diag(jnp.pad(jnp.zeros(inputs), (0, pad), constant_values=1.0))
    steps = jnp.arange(BLOCK)

    def block(number: jax.Array, carry: tuple[jax.Array, jax.Array]):
        rest, ints = carry
        start = number * BLOCK
        part = jax.lax.dynamic_slice_in_dim(rest, start, BLOCK)
        inner = jax.lax.dynamic_slice(factor, (start, start), (BLOCK, BLOCK))
        groups = jax.lax.dynamic_slice_in_dim(group_of, start, BLOCK)

        def column(i: jax.Array, carry: tuple[jax.Array, jax.Array, jax.Array]):
            part, rounded, errors = carry
            by = scales[groups[i]]
            ints = jnp.clip(jnp.round(part[i] / by), -largest, largest)
            error = (part[i] - ints * by) / inner[i, i]
            later = jnp.where(steps > i, inner[i], 0.0)
            part = part - later[:, None] * error
            return part, rounded.at[i].set(ints), errors.at[i].set(error)

        zeros = jnp.zeros_like(part)
        _, rounded, errors = jax.lax.fori_loop(0, BLOCK, column, (part, zeros, zeros))
        rows = jax.lax.dynamic_slice_in_dim(factor, start, BLOCK)
        rows = jnp.where(jnp.arange(rows.shape[1]) >= start + BLOCK, rows, 0.0)
        rest = rest - jnp.einsum("bi,bo->io", rows, errors, precision=_EXACT)
        return rest, jax.lax.dynamic_update_slice_in_dim(ints, rounded, start, 0)

    blocks = rest.shape[0] // BLOCK
    _, ints = jax.lax.fori_loop(0, blocks, block, (rest, jnp.zeros_like(rest)))
    back = jnp.argsort(order)
    return ints[back].T.astype(jnp.int8)


def objective(weight: jax.Array, quantized: jax.Array, hessian: jax.Array) -> float:
    """trace(E H E^T) of E = weight - quantized, both float32 [out, in]."""
    error = weight - quantized
    return float(jnp.einsum("oi,ij,oj->", error, hessian, error, precision=_EXACT))
