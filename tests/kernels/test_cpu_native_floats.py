"""The C++ kernels for floats are the plain ways but for the order of sums."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.kernels import cpu_native_floats as native
from geex_jax.kernels import float_dot, quantize
from geex_jax.kernels.decode_attention import decode_attention, reference

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("library")


def draw(*shape):
    return jnp.asarray(RANDOM.standard_normal(shape), jnp.float32)


# One tile and all its remainders, odd columns, blocks of rows, several parts.
@pytest.mark.parametrize(
    "shape", [(2, 16, 4), (3, 7, 5), (6, 33, 21), (11, 768, 130), (100, 65, 9), (203, 130, 70)]
)
def test_rows_by_weights(shape):
    rows, width, outputs = shape
    x, kernel = draw(rows, width), draw(outputs, width)
    np.testing.assert_allclose(jax.jit(native.float_matmul)(x, kernel), x @ kernel.T, atol=2e-4)


def test_the_way_of_a_model_takes_it_and_has_a_slope():
    x, kernel = draw(2, 3, 40), draw(30, 40)
    run = jax.jit(lambda x, kernel: jnp.sum(float_dot(x, kernel) ** 2))
    assert "geex_float_matmul" in run.lower(x, kernel).as_text()
    got = jax.grad(run, (0, 1))(x, kernel)
    want = jax.grad(lambda x, kernel: jnp.sum((x @ kernel.T) ** 2), (0, 1))(x, kernel)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    # One row is XLA's, and so are other types.
    for x in (draw(1, 40), draw(3, 40).astype(jnp.bfloat16)):
        text = jax.jit(float_dot).lower(x, kernel.astype(x.dtype)).as_text()
        assert "geex_float_matmul" not in text


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "width", "length", "window"),
    [(4, 4, 16, 1, None), (6, 2, 20, 5, None), (2, 1, 48, 3, 4)],
)
def test_attention_where_the_cache_lies(kind, heads, kv_heads, width, length, window):
    blocks, held, slots, batch = 3, 4, 12, 2
    key, value = (draw(blocks, held, slots, kv_heads * width) for _ in "kv")
    scales = ()
    if kind == "int8":
        split = (blocks, held, slots, kv_heads, width)
        (key, a), (value, b) = (quantize(x.reshape(split), -1) for x in (key, value))
        key, value = (x.reshape(blocks, held, slots, -1) for x in (key, value))
        scales = (a[..., 0], b[..., 0])
    query = draw(batch, length, heads, width)
    place = jnp.asarray([[4], [slots - length]]) + jnp.arange(length)
    row, reach = jnp.int32(1), slots

    @jax.jit
    def run(block):
        named = dict(zip(("key_scale", "value_scale"), scales, strict=False))
        return decode_attention(
            query, key, value, block, place, window=window, row=row, reach=reach, **named
        )

    assert "geex_decode_attention" in run.lower(jnp.int32(2)).as_text()
    part = [x[2:, 1:3] for x in (key, value)]
    want = reference(query, *part, 0, place, *(x[2:, 1:3] for x in scales), window=window)
    np.testing.assert_allclose(run(jnp.int32(2)), want, atol=1e-5)


def test_a_query_past_the_end_sees_all_slots_and_one_before_it_nothing():
    query, cache = draw(2, 1, 2, 16), draw(1, 2, 8, 32)
    found = native.decode_attention(
        query, cache, cache, jnp.zeros(2, jnp.int32), jnp.asarray([[20], [-1]], jnp.int32)
    )
    whole = reference(query, cache, cache, 0, jnp.asarray([[7], [7]]))
    np.testing.assert_allclose(found[0], whole[0], atol=1e-5)
    assert not np.any(found[1])
