"""Decode attention over a flat cache: every way equals the plain one, on ragged rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.kernels import decode_attention, decode_pallas, quantize
from geex_jax.kernels.decode_attention import block_diagonal, reference

SHAPES = {  # batch, new tokens, heads, key heads, width, slots
    "one token": (3, 1, 4, 4, 128, 384),
    "grouped, several tokens": (2, 3, 6, 2, 128, 256),
    "narrow heads": (2, 2, 4, 2, 16, 24),
}


@functools.cache
def inputs(name, held):
    batch, length, heads, kv_heads, width, slots = SHAPES[name]
    keys = jax.random.split(jax.random.key(len(name)), 4)
    query = jax.random.normal(keys[0], (batch, length, heads, width))
    cache = [jax.random.normal(k, (2, batch, slots, kv_heads, width)) for k in keys[1:3]]
    scales = {}
    if held == "int8":
        rounded = [quantize(x, -1) for x in cache]
        cache = [x for x, _ in rounded]
        scales = {"key_scale": rounded[0][1][..., 0], "value_scale": rounded[1][1][..., 0]}
    # The first row has just begun, the last is full.
    start = jnp.linspace(0, slots - length, batch).astype(jnp.int32)
    positions = start[:, None] + jnp.arange(length)
    return query, *(x.reshape(2, batch, slots, -1) for x in cache), jnp.int32(1), positions, scales


@pytest.mark.parametrize("held", ["float", "int8"])
@pytest.mark.parametrize("window", [None, 7, 150])
@pytest.mark.parametrize("name", list(SHAPES))
def test_every_way_equals_the_plain_one(name, held, window):
    *arrays, scales = inputs(name, held)
    want = reference(*arrays, **scales, window=window)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
    close(block_diagonal(*arrays, **scales, window=window), want)
    close(decode_attention(*arrays, **scales, window=window), want)
    taken = decode_pallas.takes(arrays[0], arrays[1])
    assert taken == (name != "narrow heads")
    if taken:
        got = decode_pallas.decode_attention(*arrays, **scales, window=window, interpret=True)
        close(got, want)


def test_plain_is_attention_over_the_slots_that_a_query_sees():
    query, key, value, block, slots, scales = inputs("grouped, several tokens", "int8")
    got = reference(query, key, value, block, slots, **scales, window=7)
    split = lambda x: np.asarray(x[1], np.float64).reshape(2, 256, 2, 128)  # noqa: E731
    keys = split(key) * np.asarray(scales["key_scale"][1], np.float64)[..., None]
    values = split(value) * np.asarray(scales["value_scale"][1], np.float64)[..., None]
    for b, t, h in ((0, 0, 0), (0, 2, 5), (1, 1, 2)):
        end = int(slots[b, t])
        seen = slice(max(0, end - 6), end + 1)
        scores = keys[b, seen, h // 3] @ np.asarray(query[b, t, h], np.float64) / 128**0.5
        probs = np.exp(scores - scores.max())
        want = probs @ values[b, seen, h // 3] / probs.sum()
        np.testing.assert_allclose(got[b, t, h], want, atol=1e-5)


def test_tiles_that_no_query_of_a_row_sees_are_not_read():
    *arrays, scales = inputs("one token", "float")
    assert decode_pallas.tile(384, 512, 4) == 128
    spoilt = [jnp.where(jnp.arange(384)[:, None] >= 128, jnp.nan, x) for x in arrays[1:3]]
    got = decode_pallas.decode_attention(arrays[0], *spoilt, *arrays[3:], **scales, interpret=True)
    assert not np.isnan(got[0]).any() and np.isnan(got[1]).all()
