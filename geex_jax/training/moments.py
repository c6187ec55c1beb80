"""Adam whose moments are stored in 16 or 8 bits: 4 or 2 bytes a parameter in place of 8.

optax offers `mu_dtype` alone (2.8): the first moment in bf16, the second in float32. Here a step
reads both moments into float32, does what `optax.scale_by_adam` does, and stores them again.

- Rounding is stochastic, without bias in the value: a moment changes by 1 - b of itself a step,
  which is less than half a unit of its last place, so that rounding to nearest would freeze it.
  Its random numbers are a function of the step count and the place: a resumed run repeats them.
- "bfloat16": both moments as they are, in bfloat16.
- "int8": matrices as 8-bit codes and scales. A code is relative to min(row's, column's largest
  magnitude): rank-1 normalization (arXiv 2309.01507, 4.2). Blocks along the last axis (8-bit Adam,
  2110.02861) would need sizes that every mesh divides; a row's and a column's scale lie where
  their row and column do, and are found by small maxima over the mesh. Codes are powers of the
  magnitude (m: 2, signed; v: 4), fine near 0 like bitsandbytes' dynamic ones: v spans ten orders
  of magnitude. A v above 0 never rounds to 0, so that no step divides by nothing. Norms and biases
  stay float32.

Leaves keep the parameter's path at the end of theirs, and its number of dimensions (a scale has
size 1 along the axis it is the maximum of), so the rules of `parallel` place them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

CODED = ("kernel", "tokens", "positions")


class Codes(NamedTuple):
    """One moment of all parameters.

    Attributes:
      code: int8 (m) or uint8 (v) where a matrix is coded, else float32, in the parameter's shape.
      row, column: float32 [..., in, 1] and [..., 1, out] where coded, else None.
    """

    code: Any
    row: Any
    column: Any


class CodedAdamState(NamedTuple):
    """Count int32 [] and both moments: trees of bfloat16, or `Codes`."""

    count: jax.Array
    mu: Any
    nu: Any


def scale_by_coded_adam(
    b1: float, b2: float, eps: float, moments: str
) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with moments in "bfloat16" or "int8"."""

    def init(params: Any) -> CodedAdamState:
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), params)
        key = jax.random.key(0)
        return CodedAdamState(
            jnp.zeros((), jnp.int32), *(_store(zeros, moments, key, n) for n in (0, 1))
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, CodedAdamState]:
        del params
        grads = updates
        mu, nu = (_load(x, grads, signed) for x, signed in ((state.mu, True), (state.nu, False)))
        mu = jax.tree.map(lambda g, m: b1 * m + (1 - b1) * g.astype(jnp.float32), grads, mu)
        nu = jax.tree.map(
            lambda g, v: b2 * v + (1 - b2) * jnp.square(g.astype(jnp.float32)), grads, nu
        )
        count = jnp.asarray(optax.safe_increment(state.count))
        left = (1 - b1**count, 1 - b2**count)
        scaled = jax.tree.map(
            lambda m, v, g: ((m / left[0]) / (jnp.sqrt(v / left[1]) + eps)).astype(g.dtype),
            mu,
            nu,
            grads,
        )
        key = jax.random.fold_in(jax.random.key(0), count)
        mu, nu = (_store(x, moments, key, n) for n, x in enumerate((mu, nu)))
        return scaled, CodedAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _store(tree: Any, moments: str, key: jax.Array, number: int) -> Any:
    # number: 0 for the first moment, which is signed, 1 for the second.
    leaves, shape = jax.tree_util.tree_flatten_with_path(tree)
    keys = [jax.random.fold_in(key, 2 * i + number) for i in range(len(leaves))]
    if moments == "bfloat16":
        return shape.unflatten([_rounded(x, k) for (_, x), k in zip(leaves, keys, strict=True)])
    stored = [
        encode(x, k, signed=number == 0)
        if path[-1].key in CODED and x.ndim >= 2
        else (x, None, None)
        for (path, x), k in zip(leaves, keys, strict=True)
    ]
    return Codes(*(shape.unflatten(parts) for parts in zip(*stored, strict=True)))


def _load(stored: Any, like: Any, signed: bool) -> Any:
    if not isinstance(stored, Codes):
        return jax.tree.map(lambda x: x.astype(jnp.float32), stored)
    shape = jax.tree.structure(like)
    parts = [shape.flatten_up_to(tree) for tree in stored]
    return shape.unflatten(
        [c if r is None else decode(c, r, k, signed) for c, r, k in zip(*parts, strict=True)]
    )


def _rounded(x: jax.Array, key: jax.Array) -> jax.Array:
    # float32 to bfloat16: random low bits are added, then cut off. Magnitudes are those of
    # gradients, far below where a carry would make an infinity.
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + noise
    high = jax.lax.shift_right_logical(bits, jnp.uint32(16)).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(high, jnp.bfloat16)


def _levels(signed: bool) -> tuple[int, int]:
    # The largest code, and the power of the code that gives the magnitude.
    return (127, 2) if signed else (255, 4)


def encode(x: jax.Array, key: jax.Array, signed: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A matrix [..., in, out] as codes, row scales [..., in, 1] and column scales [..., 1, out].

    Args:
      x: float32; not negative unless `signed`.
      key: of the rounding.
      signed: int8 codes with a sign, squared; else uint8 codes to the fourth power.
    """
    most, power = _levels(signed)
    size = jnp.abs(x)
    row, column = jnp.max(size, axis=-1, keepdims=True), jnp.max(size, axis=-2, keepdims=True)
    scale = jnp.minimum(row, column)
    share = jnp.where(scale > 0, size / jnp.where(scale > 0, scale, 1), 0)
    root = jnp.sqrt(share) if power == 2 else jnp.sqrt(jnp.sqrt(share))
    low = jnp.clip(jnp.floor(most * root), 0, most - 1)
    ends = [(end / most) ** power for end in (low, low + 1)]
    chance = (share - ends[0]) / (ends[1] - ends[0])
    code = low + (jax.random.uniform(key, x.shape) < chance)
    if signed:
        return (jnp.sign(x) * code).astype(jnp.int8), row, column
    return jnp.where(size > 0, jnp.maximum(code, 1), 0).astype(jnp.uint8), row, column


def decode(code: jax.Array, row: jax.Array, column: jax.Array, signed: bool) -> jax.Array:
    """The inverse of `encode`, float32."""
    most, power = _levels(signed)
    number = code.astype(jnp.float32)
    size = (jnp.abs(number) / most) ** power * jnp.minimum(row, column)
    return jnp.sign(number) * size
