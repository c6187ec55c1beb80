"""The C++ kernels for floats: matmuls of several rows, attention over the cache where it lies.

Built and found as the others are, see `cpu_native`. Sums are made in another order than XLA's, so
results differ by float32 rounding.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from geex_jax.kernels import cpu_native, plain


def takes_attention(query: jax.Array, key: jax.Array, scales: tuple[jax.Array, ...]) -> bool:
    """Whether `decode_attention` here can be asked: float32, over float32 or int8 with scales."""
    held = jnp.float32 if not scales else jnp.int8
    return query.dtype == jnp.float32 and key.dtype == held and cpu_native.available()


@jax.custom_jvp
def float_matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x kernel^T: float32 [M, in] and [out, in] to [M, out]."""
    shape = jax.ShapeDtypeStruct((x.shape[0], kernel.shape[0]), jnp.float32)
    name = cpu_native.target("geex_float_matmul")
    call: Any = jax.ffi.ffi_call(name, shape, vmap_method="sequential")
    return call(x, kernel)


@float_matmul.defjvp
def _float_matmul_jvp(primals, tangents):
    (x, kernel), (moved, turned) = primals, tangents
    slope = jnp.einsum("mi,oi->mo", moved, kernel) + jnp.einsum("mi,oi->mo", x, turned)
    return float_matmul(x, kernel), slope


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
    """Whether the built kernels compute what they should, on small inputs."""
    random = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape), jnp.float32)

    for rows, width, outputs in ((2, 64, 16), (11, 130, 21), (100, 70, 150)):
        x, kernel = draw(rows, width), draw(outputs, width)
        if not np.allclose(float_matmul(x, kernel), x @ kernel.T, atol=1e-3):
            return False
    query, key, value = draw(2, 3, 4, 20), draw(2, 3, 9, 40), draw(2, 3, 9, 40)
    slots = jnp.asarray([[0, 3, 8], [5, 6, 7]], jnp.int32)
    found = decode_attention(query, key, value, jnp.asarray([1, 1], jnp.int32), slots)
    keys, values = (x[1, 1:].reshape(2, 9, 2, 20) for x in (key, value))
    mask = plain.attention_mask(slots, jnp.arange(9))
    expected = plain.dot_product_attention(query, keys, values, mask)[0]
    return np.allclose(found, expected, atol=1e-4)
