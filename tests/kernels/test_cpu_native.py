"""The C++ kernels: built by this machine's compiler, equal to the plain way to the bit."""

from platform import machine

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.kernels import cpu, quantized_matmul
from geex_jax.kernels import cpu_native as native
from geex_jax.kernels.quantized import reference
from geex_jax.quantize import quantize_kernel

RANDOM = np.random.default_rng(0)
pytestmark = pytest.mark.usefixtures("library")


def both(call, monkeypatch):
    """With the kernels and without; each traced anew."""
    out = []
    for setting in ("on", "off"):
        monkeypatch.setenv("GEEX_KERNELS", setting)
        out.append(jax.jit(lambda: call())())
    return out


def leaves_of(width, outputs, bits, group=None):
    kernel = jnp.asarray(RANDOM.standard_normal((width, outputs)), jnp.float32)
    ints, scale = quantize_kernel(kernel, bits, "clean", group)
    return {f"kernel_int{bits}": ints, "kernel_scale": scale}


# Few rows and tiles of many, odd columns, outputs that no vector divides, several blocks and parts;
# rows of zeros, of numbers that are taken for zeros, and of very different size.
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("limbs", [1, 2, 3])
def test_the_same_bits_as_the_plain_way(bits, limbs):
    plain = jax.jit(cpu.plain_matmul, static_argnums=2)
    shapes = [(1, 1024, 2048), (2, 66, 7), (9, 1, 1), (23, 1038, 130), (300, 96, 70)]
    for rows, width, outputs in shapes:
        if width % 2 and bits == 4:
            continue
        leaves = leaves_of(width, outputs, bits)
        x = RANDOM.standard_normal((rows, width)) * np.exp(5 * RANDOM.standard_normal((rows, 1)))
        if rows > 2:
            x[0], x[1] = 0, 1e-39
        x = jnp.asarray(x, jnp.float32)
        y = native.matmul(x, leaves[f"kernel_int{bits}"], leaves["kernel_scale"], limbs)
        np.testing.assert_array_equal(y, plain(x, leaves, limbs))


def test_what_is_not_a_number_stays_visible():
    leaves = leaves_of(64, 16, 8)
    for value in (jnp.nan, jnp.inf, -jnp.inf):
        x = jnp.ones((3, 64)).at[1, 5].set(value)
        for limbs in (1, 3):
            y = native.matmul(x, leaves["kernel_int8"], leaves["kernel_scale"], limbs)
            assert np.isnan(y[1]).all() and np.isfinite(y[::2]).all()


@pytest.mark.parametrize("activations", ["int8", "float"])
def test_one_function_with_and_without(activations, monkeypatch):
    for rows, group in ((3, None), (20, None), (1, 32), (5, 64), (40, 128)):
        leaves = leaves_of(256, 70, 8 if group is None else 4, group)
        x = jnp.asarray(RANDOM.standard_normal((rows, 256)), jnp.float32)
        run = lambda: quantized_matmul(x, leaves, activations=activations)  # noqa: E731, B023
        with_kernels, without = both(run, monkeypatch)
        if group is None:
            np.testing.assert_array_equal(with_kernels, without)
        else:  # the sums of groups are rounded
            np.testing.assert_allclose(with_kernels, without, rtol=1e-5, atol=3e-5)
        assert with_kernels.shape == (rows, 70)


def test_slopes_are_those_of_the_product():
    leaves = leaves_of(64, 16, 4, 32)
    x = jnp.asarray(RANDOM.standard_normal((2, 64)), jnp.float32)
    slope = jax.grad(lambda x, way: way(x, leaves).sum())
    expected = slope(x, reference)
    np.testing.assert_allclose(slope(x, quantized_matmul), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(machine() != "x86_64", reason="compiles for older x86")
@pytest.mark.parametrize("cpu_type", ["haswell", "x86-64"])
def test_cpus_without_vnni(cpu_type, tmp_path, monkeypatch):
    if cpu_type == "haswell" and " avx2 " not in "".join(native._cpuinfo()):
        pytest.skip("no AVX2")
    compiler = tmp_path / "compiler"
    compiler.write_text(f'#!/bin/sh\nexec g++ "$@" -march={cpu_type}\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path))
    native.build(str(compiler))  # compares with the plain way
    for rows in (1, 40):
        leaves = leaves_of(256, 70, 4, 32)
        x = jnp.asarray(RANDOM.standard_normal((rows, 256)), jnp.float32)
        y = native.matmul(x, leaves["kernel_int4"], leaves["kernel_scale"], 3)
        np.testing.assert_allclose(y, reference(x, leaves), rtol=1e-5, atol=3e-5)


def test_in_a_loop_over_a_stack_of_layers(monkeypatch):
    stack = jnp.asarray(RANDOM.integers(-127, 128, (3, 64, 64)), jnp.int8)
    scale = jnp.full((3, 64), 0.01)

    def layer(x, leaves):
        return quantized_matmul(x, {"kernel_int8": leaves[0], "kernel_scale": leaves[1]}), None

    run = lambda: jax.lax.scan(layer, jnp.ones((2, 64)), (stack, scale))[0]  # noqa: E731
    with_kernels, without = both(run, monkeypatch)
    np.testing.assert_allclose(with_kernels, without, rtol=1e-6)


def test_a_mesh_goes_without_them():
    from geex_jax.parallel import make_mesh, use_mesh

    with use_mesh(make_mesh({"data": 2}, jax.devices()[:2])):
        assert not native.available()
    assert native.available()


def test_a_compiler_that_fails_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path))
    assert not native.available()
    with pytest.raises(GeexError, match="no-such-compiler"):
        native.build("/no-such-compiler")
    with pytest.raises(GeexError, match="failed"):
        native.build("/bin/false")
    assert not list(tmp_path.rglob("*.so"))
