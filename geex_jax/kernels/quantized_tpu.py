"""Matmuls with stored weights on TPUs: which of XLA and Pallas computes them, over a mesh.

XLA reads int8 weights once if x has at least two rows; of a single row it makes a product on the
vector units, bound by their speed, so a row is padded to eight. What it makes of int4 weights and
of scales by group moves many times their bytes: those are the Pallas kernel's (its table).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from geex_jax.kernels import quantized_pallas
from geex_jax.kernels.attention import mesh_cut, platform

FEW = 8


@flax.struct.dataclass
class Stacked:
    """A layer's kernel as a stack of all layers' and its index, in place of a slice.

    A slice that a kernel of our own is given must first be made: thrice the bytes.

    Attributes:
      kernel: [L, out, in] or [L, out, in/2].
      index: int32 [].
    """

    kernel: jax.Array
    index: jax.Array

    def slice(self) -> jax.Array:
        """The layer's kernel."""
        return jax.lax.dynamic_index_in_dim(self.kernel, self.index, keepdims=False)


def pallas_wanted(kernel_dtype: Any, scale_dimensions: int) -> bool:
    """Whether the Pallas kernel is the way for weights of this type, its scale [out(, groups)]."""
    return kernel_dtype == jnp.uint8 or scale_dimensions == 2


def padded_rows(x: jax.Array) -> jax.Array:
    """x [..., in] as rows [8, in] on a TPU, if they are fewer and whole on it; else x itself."""
    if platform() != "tpu":  # asked first: elsewhere sizes may be symbols
        return x
    rows = math.prod(x.shape[:-1])
    if rows >= FEW or not rows:
        return x
    cut = mesh_cut()
    if cut.ways(cut.batch) * cut.ways(cut.length) > 1:
        return x
    return jnp.pad(x.reshape(rows, -1), ((0, FEW - rows), (0, 0)))


def unpadded(y: jax.Array, x: jax.Array) -> jax.Array:
    """Of y, made of `padded_rows(x)`, what belongs to x: [..., out]."""
    if y.shape[:-1] == x.shape[:-1]:
        return y
    return y[: math.prod(x.shape[:-1])].reshape(*x.shape[:-1], -1)


def kernel_matmul(
    x: jax.Array, leaves: Mapping[str, Any], activations: str, axes: tuple[str, str]
) -> jax.Array | None:
    """`quantized.quantized_matmul` by the Pallas kernel, or None where that does not suit.

    Args:
      x: [..., in].
      leaves: a kernel, which may be `Stacked`, and its scale.
      activations: "float" or "int8".
      axes: logical axes of [in, out], which say what each device holds of them.
    """
    held = leaves.get("kernel_int4", leaves.get("kernel_int8"))
    kernel, index = (held.kernel, held.index) if isinstance(held, Stacked) else (held, None)
    scale = leaves["kernel_scale"]
    if not pallas_wanted(kernel.dtype, scale.ndim):
        return None
    kernel = kernel if kernel.ndim == 3 else kernel[None]
    index = jnp.zeros((), jnp.int32) if index is None else index
    cut = mesh_cut()
    inner, outer = (tuple(a for a in _mesh_axes(name) if a in cut.free) for name in axes)
    share = _share(x, kernel, scale, cut, inner, outer)
    if share is None or not quantized_pallas.takes(*share, activations):
        return None
    if not cut.free or cut.mesh.size == 1:
        return _run(x, kernel, scale, index, activations=activations)
    run = functools.partial(_run, activations=activations, inner=inner)
    rows = [cut.batch or None, *[None] * (x.ndim - 2)][: x.ndim - 1]
    groups = (inner or None,) if scale.ndim == 2 else ()
    split: Any = jax.shard_map(
        run,
        in_specs=(
            PartitionSpec(*rows, inner or None),
            PartitionSpec(None, outer or None, inner or None),
            PartitionSpec(outer or None, *groups),
            PartitionSpec(),
        ),
        out_specs=PartitionSpec(*rows, outer or None),
        axis_names=cut.free,
        check_vma=False,  # Pallas calls do not say over which axes they vary
    )
    return split(x, kernel, scale, index)


def _mesh_axes(name: str) -> tuple[str, ...]:
    entry = (nn.logical_to_mesh_axes((name,)) or (None,))[0]
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _share(x, kernel, scale, cut, inner, outer) -> tuple[Any, Any, Any] | None:
    # Shapes of one device's x [rows, in], kernel and scale; None if they do not divide.
    ways = [cut.ways(a) for a in (cut.batch, inner, outer)]
    if cut.ways(cut.length) > 1 or x.shape[0] % ways[0] or x.ndim < 2:
        return None
    layers, out, columns = kernel.shape
    groups = scale.shape[1] if scale.ndim == 2 else ways[1]
    if out % ways[2] or columns % ways[1] or groups % ways[1] or x.shape[-1] % ways[1]:
        return None
    shape = jax.ShapeDtypeStruct
    rows = math.prod(x.shape[:-1]) // ways[0]
    sizes = (layers, out // ways[2])
    held = sizes if scale.ndim == 1 else (*sizes, groups // ways[1])
    return (
        shape((rows, x.shape[-1] // ways[1]), x.dtype),
        shape((*sizes, columns // ways[1]), kernel.dtype),
        shape(held, scale.dtype),
    )


def _run(x, kernel, scale, index, *, activations: str, inner: tuple[str, ...] = ()) -> jax.Array:
    # One device's part.
    rows = x.reshape(-1, x.shape[-1])
    interpret = platform() == "cpu"
    y = quantized_pallas.matmul(rows, kernel, scale, index, activations, interpret)
    y = y.reshape(*x.shape[:-1], -1)
    return jax.lax.psum(y, inner) if inner else y
