"""A matmul with stored int8 or int4 weights: one function, whatever computes it.

The plain way, `reference`, says what every other way must equal. Weights are out-major, as the
official layout has them and as the int8 dots of CPUs want them:

- `kernel_int8` int8 [out, in], or `kernel_int4` uint8 [out, in/2], the even column in the high
  nibble.
- `kernel_scale` float [out], or [out, groups] where each group of in/groups columns has its own.

With float activations (weights only) y = (x Q^T) * scale in float32. With int8 activations
("W8A8") each row of x is first rounded to int8 by its own largest magnitude, as it comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from geex_jax.kernels import cpu, quantized_tpu
from geex_jax.kernels.attention import platform
from geex_jax.kernels.int8_matmul import quantize
from geex_jax.kernels.packing import integers


def quantized_matmul(
    x: jax.Array,
    leaves: Mapping[str, Any],
    *,
    activations: str = "float",
    axes: tuple[str, str] = ("embed", "embed"),
) -> jax.Array:
    """x [..., in] times the weights that `leaves` hold, in float32: [..., out].

    Args:
      x: any float type.
      leaves: `kernel_int8` or `kernel_int4`, and `kernel_scale` (see the module). A kernel may be
        a `Stacked` one.
      activations: "float", or "int8" for dynamic scales by row.
      axes: logical axes of [in, out], which a kernel of our own is split by on a mesh.
    """
    where = platform()
    if where == "tpu":
        y = quantized_tpu.kernel_matmul(x, leaves, activations, axes)
        if y is not None:
            return y
    leaves = {
        name: leaf.slice() if isinstance(leaf, quantized_tpu.Stacked) else leaf
        for name, leaf in leaves.items()
    }
    if where == "cpu" and cpu.takes(x, leaves, activations):
        return cpu.quantized_matmul(x, leaves, activations)
    rows = quantized_tpu.padded_rows(x)
    return quantized_tpu.unpadded(reference(rows, leaves, activations=activations), x)


def reference(x: jax.Array, leaves: Mapping[str, Any], *, activations: str = "float") -> jax.Array:
    """`quantized_matmul` in plain `jnp`."""
    kernel = integers(leaves)
    scale = leaves["kernel_scale"].astype(jnp.float32)
    if activations == "int8":
        rows, row_scale = quantize(x, -1)
    else:
        rows, row_scale, kernel = x, None, kernel.astype(x.dtype)
    result = jnp.float32 if row_scale is None else jnp.int32
    if scale.ndim == 1:
        y = jnp.einsum("...i,oi->...o", rows, kernel, preferred_element_type=result)
        y = y.astype(jnp.float32) * scale
    else:
        groups = scale.shape[-1]
        rows = rows.reshape(*rows.shape[:-1], groups, -1)
        kernel = kernel.reshape(kernel.shape[0], groups, -1)
        y = jnp.einsum("...gi,ogi->...go", rows, kernel, preferred_element_type=result)
        y = jnp.einsum("...go,og->...o", y.astype(jnp.float32), scale)
    return y if row_scale is None else y * row_scale
