"""Integers and scales: the official ones exactly, the formula exactly, edges, refusals."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geex_jax.checkpoints import codegeex
from geex_jax.checkpoints.families.codegeex import FAMILY
from geex_jax.errors import GeexError
from geex_jax.kernels import unpack_int4
from geex_jax.models import ModelConfig, Transformer, unstack_layers
from geex_jax.quantize import (
    Quantization,
    dequantize_params,
    is_quantized,
    quantization_of,
    quantize_kernel,
    quantize_params,
)

SMALL = ModelConfig(
    vocab_size=48, context_length=16, d_model=16, num_heads=2, num_layers=3, d_ff=32
)


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "fixtures" / "codegeex"
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    config, params = codegeex.load(folder / "codegeex_tiny.pt", num_heads=heads)
    return shared / "fixtures" / "quant", Transformer(config), params


@pytest.fixture(scope="module")
def small():
    model = Transformer(SMALL)
    return model, jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]


def leaves_at(tree, official):
    """Our linear for an official name, and its index in the stack."""
    where = official.split(".")
    layer = int(where[1]) if where[0] == "layers" else ()
    pattern = official.replace(f"layers.{layer}.", "layers.{i}.")
    rules = {rule.outside: rule.ours[0] for rule in reversed(FAMILY.tensors)}
    path = rules[pattern].split("/")[:-1]
    return functools.reduce(lambda node, key: node[key], path, tree), layer


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_official_rounding_gives_the_official_integers_and_scales(reference, bits, stored):
    folder, _, params = reference
    params = jax.tree.map(lambda x: jnp.asarray(x, stored), params)
    quantized = quantize_params(params, bits, "official")
    expected = np.load(folder / f"weights_int{bits}.npz")
    names = [n.split(":")[1] for n in expected.files if n.endswith("weight")]
    for name in names:
        leaves, index = leaves_at(quantized, name)
        ints = np.asarray(leaves[f"kernel_int{bits}"])[index]
        scale = np.asarray(leaves["kernel_scale"])[index]
        assert scale.dtype == np.float16
        np.testing.assert_array_equal(ints.view(np.int8), expected[f"int{bits}:{name}"])
        np.testing.assert_array_equal(scale, expected[f"int{bits}:{name}_scale"])
    linears = {".".join(n.split(".")[-3:-1]) for n in names}
    assert len(names) == len(linears) * (params["layers"]["mlp"]["up"]["bias"].shape[0] + 1)


@pytest.mark.parametrize("bits", [8, 4])
def test_official_rounding_of_odd_rows(reference, bits):
    data = np.load(reference[0] / "edge_rows.npz")
    kernel = jnp.asarray(data["edge_input"]).T
    ints, scale = quantize_kernel(kernel, bits, "official")
    defined = data[f"edge_int{bits}:comparable"]
    got, expected = np.asarray(ints).view(np.int8), data[f"edge_int{bits}:weight"]
    np.testing.assert_array_equal(got[defined], expected[defined])
    np.testing.assert_array_equal(
        np.asarray(scale)[defined], data[f"edge_int{bits}:weight_scale"][defined]
    )
    # Rows that the official code leaves undefined keep their signs and stay finite.
    plain = np.asarray(unpack_int4(ints) if bits == 4 else ints).astype(np.float32)
    assert np.all(plain * np.asarray(kernel.T, np.float32) >= 0)
    assert np.all(np.asarray(scale) > 0)


@pytest.mark.parametrize("bits", [8, 4])
def test_logits_of_both_dequantizations(reference, bits):
    folder, model, params = reference
    data = np.load(folder / f"logits_int{bits}.npz")
    tokens = jnp.asarray(data["tokens"])
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    quantized = quantize_params(params, bits, "official")
    runs = {
        "logits_fp32_dequant": [quantized, dequantize_params(quantized)],
        "logits_fp16_dequant": [dequantize_params(quantized, "official")],
    }
    for name, trees in runs.items():
        for tree in trees:
            logits = jax.jit(model.apply)({"params": tree}, tokens)
            np.testing.assert_allclose(logits, data[name], atol=1e-4, rtol=0)


# One shape, so that one compiled program serves all examples.
matrices = hnp.arrays(np.float32, (6, 4), elements=st.floats(-1000, 1000, width=32))


@settings(max_examples=60, deadline=None)
@given(matrices, st.sampled_from([8, 4]))
def test_clean_rounding_is_the_formula(kernel, bits):
    ints, scale = quantize_kernel(jnp.asarray(kernel), bits, "clean")
    ints = np.asarray(unpack_int4(ints) if bits == 4 else ints)
    largest = np.float32(2 ** (bits - 1) - 1)
    peak = np.abs(kernel).max(axis=0)
    usual = peak > 1e-30  # below, the scale would underflow
    np.testing.assert_array_equal(np.asarray(scale)[usual], (peak / largest)[usual])
    expected = np.round(kernel.T[usual] / (peak / largest)[usual, None])
    np.testing.assert_array_equal(ints[usual], expected)
    assert np.all(np.asarray(scale)[peak == 0] == 1) and np.all(ints[peak == 0] == 0)
    assert np.abs(ints).max() <= largest
    error = np.abs(ints * np.asarray(scale)[:, None] - kernel.T)
    assert np.all(error <= 0.501 * np.asarray(scale)[:, None] + 1e-30)


@pytest.mark.parametrize("rounding", ["clean", "official"])
def test_rows_of_zeros_and_of_tiny_numbers_are_defined(rounding):
    kernel = jnp.zeros((4, 4)).at[:, 1].set(1e-7).at[0, 2].set(6e-5).at[:, 3].set(-1e-42)
    ints, scale = quantize_kernel(kernel, 8, rounding)
    assert scale[0] == 1 and not np.any(ints[0])
    assert np.all(np.isfinite(np.asarray(scale, np.float32))) and np.all(np.asarray(scale) > 0)
    assert ints[1].min() > 0 and ints[2, 0] in (126, 127)  # 126: the scale is subnormal


def test_only_linears_of_blocks_change_and_the_weights_are_really_small(small):
    _, params = small
    quantized = quantize_params(params)
    flat = {jax.tree_util.keystr(k, simple=True, separator="/"): v
            for k, v in jax.tree_util.tree_leaves_with_path(quantized)}  # fmt: skip
    ints = {k: v for k, v in flat.items() if k.endswith("kernel_int8")}
    assert len(ints) == 2 * 6 and all(v.dtype == jnp.int8 for v in ints.values())
    assert ints["layers/mlp/up/kernel_int8"].shape == (3, 32, 16)
    assert not any(k.endswith("/kernel") for k in flat)
    for path in ("embedding/tokens", "top_query/positions", "layers/mlp/up/bias"):
        assert flat[path].dtype == jnp.float32


def test_an_untied_head_stays_float_and_a_gate_does_not():
    config = SMALL.replace(tied_head=False, gated_mlp=True, top_query_layer=False)
    model = Transformer(config)
    tokens = jnp.arange(8, dtype=jnp.int32)[None]
    params = jax.jit(model.init)(jax.random.key(0), tokens)["params"]
    quantized = quantize_params(params)
    assert quantized["head"]["kernel"] is params["head"]["kernel"]
    assert quantized["layers"]["mlp"]["gate"]["kernel_int8"].dtype == jnp.int8
    run = jax.jit(model.apply)
    logits = run({"params": quantized}, tokens)
    np.testing.assert_allclose(logits, run({"params": params}, tokens), atol=0.02)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("rounding", ["clean", "official"])
def test_pure_under_jit_and_eval_shape_and_unstacked(small, bits, rounding):
    _, params = small
    quantize = functools.partial(quantize_params, bits=bits, rounding=rounding)
    eager = quantize(params)
    jax.tree.map(np.testing.assert_array_equal, eager, jax.jit(quantize)(params))
    shapes = jax.eval_shape(quantize, params)
    jax.tree.map(lambda s, x: np.testing.assert_equal((s.shape, s.dtype), (x.shape, x.dtype)),
                 shapes, eager)  # fmt: skip
    loose = quantize(unstack_layers(params))
    jax.tree.map(np.testing.assert_array_equal, unstack_layers(eager), loose)
    assert quantization_of(shapes) == quantization_of(loose) == Quantization(bits, rounding)


def test_refusals_name_what_is_wrong(small):
    _, params = small
    quantized = quantize_params(params)
    assert is_quantized(quantized) and not is_quantized(params)
    with pytest.raises(GeexError, match="already int8"):
        quantize_params(quantized)
    with pytest.raises(GeexError, match="to 3 bits"):
        quantize_params(params, bits=3)
    with pytest.raises(GeexError, match="did you mean clean"):
        quantize_params(params, rounding="cleen")  # pyright: ignore[reportArgumentType]
    with pytest.raises(GeexError, match="not quantized"):
        dequantize_params(params)
    with pytest.raises(GeexError, match="an odd number"):
        quantize_params({"layers": {"mlp": {"up": {"kernel": jnp.ones((3, 4))}}}}, bits=4)
    with pytest.raises(GeexError, match="layers/mixer holds a kernel"):
        quantize_params({"layers": {"mixer": {"kernel": jnp.ones((4, 4))}}})
    for bad in (np.nan, np.inf, -np.inf):
        broken = jax.tree.map(lambda x: x, params)
        broken["layers"]["attention"]["key"]["kernel"] = (
            params["layers"]["attention"]["key"]["kernel"].at[1, 2, 3].set(bad)
        )
        with pytest.raises(GeexError, match="layers/attention/key/kernel holds a NaN"):
            quantize_params(broken)
    large = {"mlp": {"up": {"kernel": jnp.full((2, 2), 1e5)}}}
    assert quantize_params(large)["mlp"]["up"]["kernel_int8"][0, 0] == 127
    with pytest.raises(GeexError, match="beyond float16"):
        quantize_params(large, rounding="official")
