"""Matmuls with stored weights: the Pallas kernel equals the plain function, whatever the format."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.kernels import Stacked, quantized_pallas
from geex_jax.kernels.quantized import reference
from geex_jax.kernels.quantized_tpu import kernel_matmul
from geex_jax.parallel import make_mesh, use_mesh


def leaves(kind, out, columns, groups, layers=3):
    keys = jax.random.split(jax.random.key(out + columns), 2)
    if kind == "int4":
        kernel = jax.random.bits(keys[0], (layers, out, columns // 2), jnp.uint8)
    else:
        kernel = jax.random.randint(keys[0], (layers, out, columns), -127, 128, jnp.int8)
    shape = (layers, out, groups) if groups else (layers, out)
    return {f"kernel_{kind}": kernel, "kernel_scale": jax.random.uniform(keys[1], shape) + 0.1}


@pytest.mark.parametrize(
    ("kind", "activations", "rows", "out", "columns", "groups"),
    [
        ("int8", "float", 1, 256, 384, 0),
        ("int8", "float", 5, 128, 10240, 0),  # several tiles along the sum
        ("int8", "float", 3, 256, 1024, 8),
        ("int8", "int8", 7, 384, 256, 0),
        ("int4", "float", 1, 256, 512, 0),
        ("int4", "float", 17, 128, 1024, 32),  # groups of 32
        ("int4", "float", 2, 256, 4096, 32),  # groups of 128
        ("int4", "float", 2, 128, 768, 12),  # a tile holds all groups of 64
    ],
)
def test_the_kernel_equals_the_plain_function(kind, activations, rows, out, columns, groups):
    stack = leaves(kind, out, columns, groups)
    x = jax.random.normal(jax.random.key(1), (rows, columns))
    kernel, scale = stack[f"kernel_{kind}"], stack["kernel_scale"]
    assert quantized_pallas.takes(x, kernel, scale, activations)
    for layer in (0, 2):
        one = jax.tree.map(lambda leaf, layer=layer: leaf[layer], stack)
        want = reference(x, one, activations=activations)
        got = quantized_pallas.matmul(
            x, kernel, scale[layer], layer, activations=activations, interpret=True
        )
        np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    one_layer = quantized_pallas.matmul(
        x, kernel[1], scale[1], activations=activations, interpret=True
    )
    assert one_layer.shape == (rows, out) and not np.allclose(one_layer, got)


@pytest.mark.parametrize(
    ("kind", "activations", "rows", "out", "columns", "groups"),
    [
        ("int8", "float", 1, 100, 384, 0),  # outputs that no tile divides
        ("int4", "float", 1, 128, 384, 0),  # 192 bytes a row
        ("int8", "float", 600, 128, 256, 0),  # many rows
        ("int4", "float", 300, 128, 1024, 32),
        ("int4", "int8", 1, 128, 256, 0),
    ],
)
def test_other_shapes_are_left_to_the_plain_function(kind, activations, rows, out, columns, groups):
    stack = leaves(kind, out, columns, groups)
    x = jnp.ones((rows, columns))
    kernel, scale = stack[f"kernel_{kind}"], stack["kernel_scale"]
    assert not quantized_pallas.takes(x, kernel, scale, activations)


@pytest.mark.parametrize(
    ("kind", "groups", "axes"), [("int4", 0, ("embed", "mlp")), ("int8", 16, ("mlp", "embed"))]
)
def test_on_a_mesh_each_device_reads_its_own_part(kind, groups, axes):
    stack = leaves(kind, 256, 1024, groups)
    name, scale = f"kernel_{kind}", stack["kernel_scale"][2]
    held = {name: Stacked(stack[name], jnp.int32(2)), "kernel_scale": scale}
    x = jax.random.normal(jax.random.key(1), (2, 1, 1024))
    want = reference(x, {name: stack[name][2], "kernel_scale": scale})
    with use_mesh(make_mesh({"data": 2, "tensor": 2}, jax.devices()[:4])):
        run = jax.jit(lambda x, held: kernel_matmul(x, held, "float", axes))
        lowered: Any = run.lower(x, held)
        got = lowered.compile()(x, held)
    assert ("all_reduce" in lowered.as_text()) == (axes[0] == "mlp")
    np.testing.assert_allclose(got, want, atol=2e-5 * np.abs(want).max())
    assert kernel_matmul(x, {"kernel_int8": jnp.ones((256, 1024), jnp.int8),
                             "kernel_scale": jnp.ones(256)}, "float", axes) is None  # fmt: skip
