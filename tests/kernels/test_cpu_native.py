"""The C++ kernels: built by this machine's compiler, equal to the plain way to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.kernels import cpu_native as native
from geex_jax.kernels import quantized_matmul
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


# Rows of all tile sizes, odd columns, outputs that no group divides, several parts.
@pytest.mark.parametrize("shape", [(1, 1024, 2048), (2, 65, 7), (3, 100, 9), (23, 1037, 130)])
@pytest.mark.parametrize("activations", ["int8", "float"])
def test_the_same_bits_as_the_plain_way(shape, activations, monkeypatch):
    rows, width, outputs = shape
    kernel = jnp.asarray(RANDOM.standard_normal((width, outputs)), jnp.float32)
    ints, scale = quantize_kernel(kernel, 8, "clean")
    x = jnp.asarray(RANDOM.standard_normal((rows, width)), jnp.float32)
    if activations == "float" and rows > 20:
        rows, x = 20, x[:20]  # above, the plain way widens the weights
    leaves = {"kernel_int8": ints, "kernel_scale": scale}
    run = lambda: quantized_matmul(x, leaves, activations=activations)  # noqa: E731
    with_kernels, without = both(run, monkeypatch)
    np.testing.assert_array_equal(with_kernels, without)
    assert with_kernels.shape == (rows, outputs)


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
