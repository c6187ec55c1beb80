"""Ring attention equals the plain one, forward and backward, on ragged segments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from geex_jax.kernels import attention_mask, dot_product_attention, ring
from geex_jax.parallel import make_mesh

SEGMENTS = np.array([[1] * 5 + [2] * 20 + [3] * 3 + [0] * 4, [1] * 32], np.int32)


def arrays(heads, kv_heads, width=8, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 4)
    batch, length = SEGMENTS.shape
    shapes = [(batch, length, n, width) for n in (heads, kv_heads, kv_heads, heads)]
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def plain(query, key, value, window, segments):
    steps = jnp.arange(query.shape[1])
    mask = attention_mask(steps[None], steps, segments, window)
    return dot_product_attention(query, key, value, mask)[0]


def around(ways, window, segments=True):
    mesh = make_mesh({"sequence": ways})
    spec = P(None, "sequence")
    if not segments:
        run = functools.partial(
            ring.ring_attention, segment_ids=None, axis_name="sequence", window=window
        )
        return jax.shard_map(run, mesh=mesh, in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    run = functools.partial(ring.ring_attention, axis_name="sequence", window=window)
    return jax.shard_map(run, mesh=mesh, in_specs=(spec,) * 4, out_specs=spec, check_vma=False)


@pytest.mark.parametrize(
    ("ways", "kv_heads", "window"), [(4, 4, None), (2, 2, None), (8, 1, 5), (4, 2, 12)]
)
def test_values_and_gradients(ways, kv_heads, window, monkeypatch):
    monkeypatch.setattr(ring, "QUERY_CHUNK", 4)
    query, key, value, cotangent = arrays(4, kv_heads)
    run = around(ways, window)

    def mine(*xs):
        return jnp.sum(run(*xs, SEGMENTS) * cotangent)

    def reference(*xs):
        return jnp.sum(plain(*xs, window, SEGMENTS) * cotangent)

    got = jax.jit(jax.value_and_grad(mine, (0, 1, 2)))(query, key, value)
    want = jax.jit(jax.value_and_grad(reference, (0, 1, 2)))(query, key, value)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5), got, want)


def test_without_segments_a_row_is_one():
    query, key, value, _ = arrays(4, 2)
    got = jax.jit(around(4, None, segments=False))(query, key, value)
    np.testing.assert_allclose(got, plain(query, key, value, None, None), atol=1e-5)


def test_bfloat16_stays_near_float32():
    query, key, value, _ = arrays(2, 2, dtype=jnp.bfloat16)
    got = jax.jit(around(4, None))(query, key, value, SEGMENTS)
    wide = [x.astype(jnp.float32) for x in (query, key, value)]
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), plain(*wide, None, SEGMENTS), atol=0.03)


def test_no_chip_holds_a_whole_row_of_keys():
    # What is gathered has the row's length; what travels has one part's.
    query, key, value, cotangent = arrays(4, 4)
    run = around(4, None)
    step = jax.jit(jax.grad(lambda *xs: jnp.sum(run(*xs, SEGMENTS) * cotangent), (0, 1, 2)))
    text = step.lower(query, key, value).compile().as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text
