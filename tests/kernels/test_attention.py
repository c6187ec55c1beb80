"""Every implementation against the plain one: values and gradients, on ragged segments."""

import functools
import itertools
import sys
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.kernels import attention, choose, splash
from geex_jax.kernels.splash import tiles
from geex_jax.parallel import make_mesh, use_mesh

MODULE = sys.modules["geex_jax.kernels.attention"]


def inputs(length=128, heads=2, kv_heads=2, width=64, rows=2, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(length + heads), 4)
    query = jax.random.normal(keys[0], (rows, length, heads, width), dtype)
    key, value = (jax.random.normal(k, (rows, length, kv_heads, width), dtype) for k in keys[1:3])
    weights = jax.random.normal(keys[3], query.shape, jnp.float32)
    return query, key, value, weights


def ragged(rows, length):
    """Segments of unlike lengths, the last rows of each padding."""
    ids = np.zeros((rows, length), np.int32)
    for row in range(rows):
        cuts = [0, length // 7 + row, length // 2, length - 9 * (row + 1)]
        for number, (start, end) in enumerate(itertools.pairwise(cuts), 1):
            ids[row, start:end] = number
    return jnp.asarray(ids)


@functools.partial(jax.jit, static_argnames=("window", "implementation"))
def value_and_gradients(query, key, value, weights, ids, window, implementation):
    def loss(query, key, value):
        out = attention(query, key, value, ids, window=window, implementation=implementation)
        return jnp.sum(out.astype(jnp.float32) * weights), out

    return jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(query, key, value)


def assert_equal(arguments, ids, window, implementation, tolerance=2e-5):
    (_, want), want_grads = value_and_gradients(*arguments, ids, window, "xla")
    (_, got), got_grads = value_and_gradients(*arguments, ids, window, implementation)
    for a, b in zip((got, *got_grads), (want, *want_grads), strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, atol=tolerance * max(np.abs(b).max(), 1))


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"heads": 4, "kv_heads": 2, "length": 256, "segments": True},
        {"window": 33, "segments": True, "kv_heads": 1},
        {"length": 100, "width": 24, "segments": True},  # padded to 128 x 128
        {"width": 128, "segments": True},
    ],
    ids=str,
)
def test_splash_equals_plain(case):
    case = dict(case)
    segments, window = case.pop("segments", False), case.pop("window", None)
    arguments = inputs(**case)
    ids = ragged(*arguments[0].shape[:2]) if segments else None
    assert_equal(arguments, ids, window, "splash")


@pytest.mark.parametrize("fused", [384, 0])
def test_many_tiles_equal_plain(monkeypatch, fused):
    """Tiles that the mask hides are skipped, others summed up, forward and backward."""
    small = (128, 128, 128)
    monkeypatch.setattr(splash, "TILES", ((None, small),))
    monkeypatch.setattr(splash, "FUSED", fused)
    arguments = inputs(length=384, heads=2, kv_heads=1, rows=2 - (fused > 0))
    assert tiles(384, 128, 4).block_q == 128
    assert_equal(arguments, ragged(len(arguments[0]), 384), 200, "splash")


def test_splash_equals_plain_in_bfloat16():
    arguments = inputs(dtype=jnp.bfloat16)
    assert_equal(arguments, ragged(2, 128), None, "splash", tolerance=0.02)


def test_rows_of_padding_alone_give_numbers():
    arguments = inputs()
    for implementation in ("xla", "splash"):
        (_, out), grads = value_and_gradients(
            *arguments, jnp.zeros((2, 128), jnp.int32), None, implementation
        )
        assert all(np.isfinite(x).all() for x in (out, *grads))


@pytest.mark.parametrize("kv_heads", [2, 1])
def test_on_a_mesh_each_device_runs_its_rows_and_heads(kv_heads):
    arguments = inputs(heads=2, kv_heads=kv_heads, rows=4)
    ids = ragged(4, 128)
    (_, want), want_grads = value_and_gradients(*arguments, ids, None, "xla")
    with use_mesh(make_mesh({"fsdp": 2, "tensor": 2})):
        run = value_and_gradients.lower(*arguments, ids, None, "splash")
        assert "shard_map" in run.as_text() or "manual_computation" in run.as_text()
        (_, got), got_grads = value_and_gradients(*arguments, ids, None, "splash")
        for a, b in zip((got, *got_grads), (want, *want_grads), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(b).max(), 1))
        with pytest.raises(GeexError, match=r"3 rows.* do not divide over mesh axes of 2, 1 and 2"):
            choose("splash", (3, 128, 4, 64), jnp.float32)
        assert choose("auto", (3, 128, 4, 64), jnp.float32) == "xla"


def test_a_split_length_goes_to_the_ring(monkeypatch):
    """With a stand-in for the ring: gathers all, and computes as the plain one does."""

    def ring_attention(query, key, value, segment_ids, axis_name, window=None):
        from geex_jax.kernels.plain import causal_mask, dot_product_attention

        query, key, value, segment_ids = (
            jax.lax.all_gather(x, axis_name, axis=1, tiled=True)
            for x in (query, key, value, segment_ids)
        )
        out = dot_product_attention(
            query, key, value, causal_mask(query.shape[1], segment_ids, window)
        )[0]
        size = out.shape[1] // jax.lax.axis_size(axis_name)
        return jax.lax.dynamic_slice_in_dim(out, jax.lax.axis_index(axis_name) * size, size, 1)

    stand_in = types.ModuleType("ring")
    stand_in.ring_attention = ring_attention
    monkeypatch.setitem(sys.modules, "geex_jax.kernels.ring", stand_in)
    arguments, ids = inputs(rows=2), ragged(2, 128)
    (_, want), want_grads = value_and_gradients(*arguments, ids, 50, "xla")
    mesh = jax.make_mesh((2, 4), ("rows", "places"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    rules = (("batch", "rows"), ("length", "places"), ("heads", "absent"))
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
        assert choose("auto", (2, 128, 2, 64), jnp.float32) == "ring"
        assert choose("splash", (2, 128, 2, 64), jnp.float32) == "ring"
        assert choose("xla", (2, 128, 2, 64), jnp.float32) == "xla"
        (_, got), got_grads = value_and_gradients(*arguments, ids, 50, "auto")
    for a, b in zip((got, *got_grads), (want, *want_grads), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(b).max(), 1))


def test_auto_on_a_cpu_is_the_plain_one():
    assert choose("auto", (2, 2048, 2, 128), jnp.bfloat16) == "xla"


@pytest.mark.parametrize(
    ("shape", "dtype", "want"),
    [
        ((2, 2048, 2, 128), jnp.bfloat16, "splash"),
        ((2, 2048, 2, 64), jnp.float32, "splash"),
        ((2, 2048, 2, 256), jnp.bfloat16, "splash"),
        ((2, 2047, 2, 128), jnp.bfloat16, "xla"),
        ((2, 2048, 2, 96), jnp.bfloat16, "xla"),
        ((2, 2048, 2, 128), jnp.float16, "xla"),
    ],
)
def test_auto_on_a_tpu(monkeypatch, shape, dtype, want):
    monkeypatch.setattr(MODULE, "platform", lambda: "tpu")
    assert choose("auto", shape, dtype) == want


def test_auto_on_a_gpu_is_cudnn_where_it_takes_the_shape(monkeypatch):
    monkeypatch.setattr(MODULE, "platform", lambda: "gpu")
    assert choose("auto", (2, 128, 2, 64), jnp.bfloat16) == "xla"  # no cuDNN here
    monkeypatch.setattr(MODULE, "_cudnn_fits", lambda shape, dtype: True)
    assert choose("auto", (2, 128, 2, 64), jnp.bfloat16) == "cudnn"
    with pytest.raises(GeexError, match="'splash' does not run on gpu"):
        choose("splash", (2, 128, 2, 64), jnp.bfloat16)


def test_impossible_wishes_are_one_clear_line():
    shape = (2, 128, 2, 64)
    with pytest.raises(GeexError, match="'cudnn' does not run on cpu in bfloat16"):
        choose("cudnn", shape, jnp.bfloat16)
    with pytest.raises(GeexError, match="'flash' is not known"):
        choose("flash", shape, jnp.bfloat16)
    with pytest.raises(GeexError, match="'splash' does not run on cpu in float16"):
        choose("splash", shape, jnp.float16)


def test_cudnn_gets_segments_as_a_mask_and_windows_as_its_own(monkeypatch):
    """JAX's own plain implementation in cuDNN's place: the arguments mean what ours mean."""
    arguments, ids = inputs(kv_heads=1), ragged(2, 128)
    real = jax.nn.dot_product_attention
    calls = []

    def on_cpu(*args, implementation, **kwargs):
        calls.append((implementation, kwargs["mask"] is not None, kwargs["local_window_size"]))
        return real(*args, implementation="xla", **kwargs)

    monkeypatch.setattr(jax.nn, "dot_product_attention", on_cpu)
    for segments, window in ((ids, None), (ids, 40), (None, 40)):
        want = attention(*arguments[:3], segments, window=window, implementation="xla")
        got = MODULE._cudnn(*arguments[:3], segments, window)
        np.testing.assert_allclose(got, want, atol=2e-5)
    assert calls == [("cudnn", True, None), ("cudnn", True, None), ("cudnn", False, (39, 0))]


@pytest.mark.parametrize("length", [128, 384, 640, 1024, 1152, 2048, 8192, 16384])
def test_tiles_divide_the_length(length):
    for width, itemsize in ((128, 2), (256, 2), (128, 4)):
        sizes = tiles(length, width, itemsize)
        for name in ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"):
            assert length % getattr(sizes, name) == 0
        assert sizes.block_kv % sizes.block_kv_compute == 0
        assert sizes.block_kv_dkv % sizes.block_kv_dkv_compute == 0
        assert sizes.use_fused_bwd_kernel == (length <= 8192)
        assert sizes.has_backward_blocks
