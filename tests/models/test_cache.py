"""The cache: rounded to int8 it is near a float one, and prompts enter it whole or in parts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.models import ModelConfig, Transformer, init_cache
from geex_jax.models.cache import append, read
from geex_jax.models.stack import read_in_place
from geex_jax.quantize import quantize_params
from tests.models.running import apply, init

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "context_length": 32,
    "d_model": 32,
    "num_layers": 2,
    "d_ff": 64,
}
TOP = ModelConfig(**SIZES, num_heads=4)
# Grouped heads, and a window that only the second layer has.
GROUPED = ModelConfig(
    **SIZES, num_heads=4, num_kv_heads=2, top_query_layer=False, position="rotary",
    sliding_window=5, window_from_layer=1,
)  # fmt: skip
TOKENS = jax.random.randint(jax.random.key(1), (2, 12), 0, 64)
LENGTHS = jnp.array([12, 7], jnp.int32)


def parameters(config):
    return init(Transformer(config), TOKENS)


def cached(config, params, parts, fresh=False) -> Any:
    """Logits [B, V] behind each row's last token, and the cache, taken in by parts."""
    cache, start, found = init_cache(config, 2, 16), 0, None
    for size in parts:
        lengths = jnp.clip(LENGTHS - start, 0, size)
        taken: Any = apply(
            Transformer(config), params, TOKENS[:, start : start + size], lengths, cache,
            fresh=fresh, method="prefill",
        )  # fmt: skip
        logits, cache = taken
        keep = (lengths > 0)[:, None]
        found = logits if found is None else jnp.where(keep, logits, found)
        start += size
    return found, cache


@pytest.mark.parametrize("config", [TOP, GROUPED], ids=["top query", "grouped, late window"])
@pytest.mark.parametrize("held", ["model", "int8"])
def test_prompts_enter_whole_or_in_parts_and_give_the_logits_of_a_plain_pass(config, held):
    params = parameters(config)
    plain: Any = apply(Transformer(config), params, TOKENS)
    want = plain[jnp.arange(2), LENGTHS - 1]
    config = config.replace(kv_cache=held)
    tolerance = (0.03 if held == "int8" else 1e-4) * float(jnp.abs(want).max())
    fresh, whole = cached(config, params, [12], fresh=True)
    for parts in ([12], [5, 7]):
        got, cache = cached(config, params, parts)
        np.testing.assert_allclose(got, want, atol=tolerance)
        np.testing.assert_array_equal(cache.length, LENGTHS)
    np.testing.assert_allclose(fresh, want, atol=1e-4 * float(jnp.abs(want).max()))
    assert [x.dtype for x in whole.arrays] == (
        [jnp.int8] * 2 + [jnp.float32] * 2 if held == "int8" else [jnp.float32] * 2
    )
    step: Any = apply(Transformer(config), params, TOKENS[:, :1], kv_cache=whole)
    exact = dataclasses.replace(config, kv_cache="model")
    _, other = cached(exact, params, [12], fresh=True)
    true: Any = apply(Transformer(exact), params, TOKENS[:, :1], kv_cache=other)
    np.testing.assert_allclose(step[0], true[0], atol=tolerance)


def test_each_tokens_head_is_rounded_by_its_own_largest_magnitude():
    config = TOP.replace(kv_cache="int8")
    scale = 10.0 ** jnp.arange(-2, 2)[None, None, :, None]  # a head a thousand times another
    new = jax.random.normal(jax.random.key(2), (2, 3, 4, 8)) * scale
    start = dataclasses.replace(init_cache(config, 2, 16), length=jnp.array([0, 14]))
    cache: Any = append(start, new, 2 * new, 1)
    key, value = read(cache, 1, 2, jnp.float32)
    most = jnp.abs(new).max(-1, keepdims=True)
    for got, want, size in ((key, new, most), (value, 2 * new, 2 * most)):
        got = got.reshape(2, 16, 4, 8)
        assert np.all(np.abs(got[0, :3] - want[0]) <= size[0] / 254 + 1e-6)
        assert np.all(np.abs(got[1, 14:] - want[1, :2]) <= size[1, :2] / 254 + 1e-6)
        assert not np.any(got[0, 3:]) and not np.any(got[1, :14])  # the third ran past the slots
    assert not np.any(read(cache, 0, 2, jnp.float32)[0]) and cache.key_scale.shape == (3, 2, 16, 4)


def test_layers_read_in_place_out_of_the_stack_are_those_of_a_plain_scan(monkeypatch):
    params = quantize_params(parameters(TOP), 4)
    cache = init_cache(TOP, 2, 16)
    run = jax.jit(lambda t, c: Transformer(TOP).apply({"params": params}, t, kv_cache=c))
    want: Any = run(TOKENS[:, :3], cache)
    assert not read_in_place(params["layers"])  # no TPU
    monkeypatch.setattr("geex_jax.models.stack.platform", lambda: "tpu")
    whole = read_in_place(params["layers"])
    assert len(whole) == 6 and all(path[-1] == "kernel_int4" for path in whole)
    run = jax.jit(lambda t, c: Transformer(TOP).apply({"params": params}, t, kv_cache=c))
    got: Any = run(TOKENS[:, :3], cache)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 3])
def test_the_kernel_that_writes_an_int8_cache_is_the_plain_write(tokens, monkeypatch):
    config = TOP.replace(d_model=256, num_heads=2, kv_cache="int8")
    cache = init_cache(config, 4, 128)
    noise = [jax.random.randint(jax.random.key(3), x.shape, -9, 9).astype(x.dtype)
             for x in cache.arrays]  # fmt: skip
    fields = dict(zip(("key", "value", "key_scale", "value_scale"), noise, strict=True))
    # Rows 1 to 3 take part; the last one's tokens run past the end.
    view = dataclasses.replace(cache, **fields, row=jnp.int32(1), length=jnp.array([0, 63, 127]))
    new = jax.random.normal(jax.random.key(4), (3, tokens, 2, 128))
    want = append(view, new, 2 * new, 1)
    monkeypatch.setattr("geex_jax.kernels.append_pallas.wanted", lambda *_: True)
    got = append(view, new, 2 * new, 1)
    for a, b, old in zip(got.arrays, want.arrays, noise, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a[1, 1:, [0, 63, 127]], old[1, 1:, [0, 63, 127]])
