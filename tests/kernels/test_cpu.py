"""Matmuls of CPUs: exact integers, exact activations by limbs, gradients, what compiles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.kernels import cpu, float_dot, lookup, quantized_matmul
from geex_jax.kernels.quantized import reference
from geex_jax.quantize import quantize_kernel

pytestmark = pytest.mark.optimized

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module", autouse=True)
def plain():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEEX_KERNELS", "off")
        yield


def weights(width, outputs, bits):
    kernel = jnp.asarray(RANDOM.standard_normal((width, outputs)), jnp.float32)
    ints, scale = quantize_kernel(kernel, bits, "clean")
    return {f"kernel_int{bits}": ints, "kernel_scale": scale}


@pytest.mark.parametrize("count", [2, 3])
def test_limbs_are_the_number(count):
    x = (
        RANDOM.standard_normal((5, 300)).astype(np.float32)
        * 10.0 ** RANDOM.integers(-20, 20, 5)[:, None]
    )
    x[1] = 0
    digits, scale = cpu.limbs(jnp.asarray(x, jnp.float32), count)
    assert digits.shape == (count, 5, 300) and digits.dtype == jnp.int8
    powers = 256.0 ** np.arange(count - 1, -1, -1)
    again = np.einsum("l,lmi->mi", powers, np.asarray(digits, np.float64)) * np.asarray(scale)
    # Half a step of the grid, and the rounding of float32 itself.
    bound = 0.5 * np.asarray(scale) + np.abs(x) * 2.0**-22
    assert np.all(np.abs(again - x.astype(np.float32)) <= bound)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 40)])
def test_results_of_both_kinds_of_activations(bits, shape):
    leaves = weights(96, 40, bits)
    x = jnp.asarray(RANDOM.standard_normal((*shape, 96)), jnp.float32)
    x = x.at[0, 1:2].set(0)
    got = quantized_matmul(x, leaves, activations="int8")
    np.testing.assert_array_equal(got, reference(x, leaves, activations="int8"))
    exact = quantized_matmul(x, leaves)
    assert exact.shape == (*shape, 40)
    wide = np.asarray(reference(jnp.eye(96), leaves), np.float64)  # [in, out]
    expected = np.asarray(x, np.float64) @ wide
    np.testing.assert_allclose(exact, expected, atol=1e-6 * np.abs(expected).max())
    rough = np.abs(np.asarray(got) - expected).max()
    assert rough > 100 * np.abs(np.asarray(exact) - expected).max()  # it is W8A8 that rounds


def test_limbs_of_16_bits_are_finer_than_their_results():
    leaves = weights(256, 64, 8)
    x = jnp.asarray(RANDOM.standard_normal((2, 256)), jnp.bfloat16)
    expected = reference(x.astype(jnp.float32), leaves)
    error = jnp.abs(quantized_matmul(x, leaves) - expected).max()
    assert 0 < error < 2.0**-13 * jnp.abs(expected).max()  # bfloat16 keeps 2^-9


def test_a_row_that_is_no_number_stays_none_and_leaves_others_alone():
    leaves = weights(32, 8, 8)
    x = jnp.ones((3, 32)).at[1, 4].set(jnp.nan)
    got = quantized_matmul(x, leaves)
    assert jnp.all(jnp.isnan(got[1])) and jnp.array_equal(got[0], got[2])
    assert not jnp.any(jnp.isnan(got[0]))


def test_the_gradient_is_that_of_the_product():
    leaves = weights(32, 8, 8)
    x = jnp.asarray(RANDOM.standard_normal((2, 32)), jnp.float32)
    loss = lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(f(x, leaves))))(x)  # noqa: E731
    np.testing.assert_allclose(loss(quantized_matmul), loss(reference), atol=1e-4)


def test_a_decode_loop_multiplies_integers_and_holds_no_wide_copy():
    leaves = weights(128, 128, 8)

    def loop(x, leaves):
        body = lambda _, x: quantized_matmul(x, leaves) * 0.01  # noqa: E731
        return jax.lax.fori_loop(0, 9, body, x)

    text = jax.jit(loop).lower(jnp.ones((1, 128)), leaves).compile().as_text()
    assert "s8[128,128]" in text
    assert "f32[128,128]" not in text and "s32[128,128]" not in text


def test_lookup_and_dot_of_16_bits():
    table = jnp.asarray(RANDOM.standard_normal((50, 16)), jnp.bfloat16)
    ids = jnp.asarray([[3, 0, 3]])
    np.testing.assert_array_equal(lookup(table, ids), table[ids])
    text = jax.jit(lookup).lower(table, ids).compile().as_text()
    assert "f32[50,16]" not in text
    grad = jax.grad(lambda t: lookup(t, ids).astype(jnp.float32).sum())(table)
    np.testing.assert_array_equal(grad[3], 2)
    assert float(jnp.abs(grad).sum()) == 3 * 16
    x = table[:1]
    expected = x.astype(jnp.float32) @ table.astype(jnp.float32).T
    got = float_dot(x, table, jnp.float32)
    assert got.shape == (1, 50)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7, 40])
def test_few_rows_of_floats_are_the_second_operand(rows):
    kernel, x = (jnp.asarray(RANDOM.standard_normal((n, 24)), jnp.float32) for n in (10, rows))
    run = jax.jit(float_dot)
    np.testing.assert_allclose(run(x, kernel), x @ kernel.T, atol=1e-5)
    loss = jax.grad(lambda x, kernel: jnp.sum(run(x, kernel) ** 2), (0, 1))
    want = jax.grad(lambda x, kernel: jnp.sum((x @ kernel.T) ** 2), (0, 1))
    for a, b in zip(loss(x, kernel), want(x, kernel), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    turned = f"f32[10,{rows}]" in run.lower(x, kernel).compile().as_text()
    assert turned == (1 < rows <= cpu.FEW_ROWS)
