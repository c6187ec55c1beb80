"""Attention of a few new tokens by a C++ kernel, over the cache where it lies.

Built and found as the others are, see `cpu_native`. Sums are made in another order than XLA's, so
results differ by float32 rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.kernels import cpu_native, plain

MOST_TOKENS = 16  # new tokens of a row; more are a matmul


def takes(query: jax.Array, key: jax.Array, scales: tuple[jax.Array, ...]) -> bool:
    """Whether this is the way: few tokens, in float32, over float32 or int8 with scales."""
    held = jnp.int8 if scales else jnp.float32
    fits = query.dtype == jnp.float32 and key.dtype == held and query.shape[1] <= MOST_TOKENS
    return fits and cpu_native.available()


def decode_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    place: jax.Array,
    slots: jax.Array,
    *scales: jax.Array,
    window: jax.Array | int | None = None,
) -> jax.Array:
    """`decode_attention.decode_attention` over a cache of which nothing is copied.

    Of a row only the slots that its queries see are read, however many a step might read.

    Args:
      query, key, value, slots, scales, window: as there.
      place: int32 [2], the block, and the row of the first query row.
    """
    far = jnp.int32(2**30) if window is None else jnp.asarray(window, jnp.int32)
    name = cpu_native.target("geex_decode_attention")
    shape = jax.ShapeDtypeStruct(query.shape, jnp.float32)
    call: Any = jax.ffi.ffi_call(name, shape, vmap_method="sequential")
    return call(query, key, value, jnp.append(place, far), slots, *scales)


def right() -> bool:
    """Whether the built kernel computes what it should, on small inputs."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    query, key, value = draw(2, 3, 4, 20), draw(2, 3, 9, 40), draw(2, 3, 9, 40)
    slots = jnp.asarray([[0, 3, 8], [5, 6, 7]], jnp.int32)
    found = decode_attention(query, key, value, jnp.asarray([1, 1], jnp.int32), slots)
    keys, values = (x[1, 1:].reshape(2, 9, 2, 20) for x in (key, value))
    mask = plain.attention_mask(slots, jnp.arange(9))
    expected = plain.dot_product_attention(query, keys, values, mask)[0]
    return np.allclose(found, expected, atol=1e-4)
