"""The scan over layers where a kernel of our own reads weights out of the stack of all layers.

`nn.scan` slices every parameter by layer. XLA fuses a slice into its own matmuls; for a Pallas
kernel it would make it first, by a copy. Such weights stay whole here and go in with an index.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from geex_jax.kernels import Stacked, pallas_wanted
from geex_jax.kernels.attention import platform
from geex_jax.models.attention import Context
from geex_jax.models.blocks import Block
from geex_jax.models.cache import KVCache
from geex_jax.models.config import ModelConfig

Carry = tuple[jax.Array, KVCache | None, jax.Array]


def read_in_place(stack: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Paths of the stacked kernels [L, out, in] that a Pallas kernel may read; {} off TPUs."""
    if platform() != "tpu":
        return set()
    leaves: dict[Any, Any] = flatten_dict(stack)
    return {
        path
        for path, leaf in leaves.items()
        if path[-1] in ("kernel_int8", "kernel_int4")
        and pallas_wanted(leaf.dtype, leaves[(*path[:-1], "kernel_scale")].ndim - 1)
    }


def scan_in_place(
    config: ModelConfig,
    stack: Mapping[str, Any],
    whole: set[tuple[str, ...]],
    carry: Carry,
    context: Context,
) -> Carry:
    """Runs all blocks over the carry of `blocks.Block`.

    Args:
      config: of the model.
      stack: the parameters `layers`, each [L, ...].
      whole: paths of those that are not sliced.
      carry: x [B, T, D], the cache, and the index of the first block.
      context: what the blocks share.
    """
    leaves: dict[Any, Any] = flatten_dict(stack)
    sliced = {path: leaf for path, leaf in leaves.items() if path not in whole}
    block = Block(config, parent=None)

    def step(carry: Carry, sliced: Any) -> tuple[Carry, None]:
        held = {path: Stacked(leaves[path], carry[2]) for path in whole}
        params = unflatten_dict({**sliced, **held})
        passed: Any = block.apply({"params": params}, carry, context)
        return passed[0], None

    return jax.lax.scan(step, carry, sliced)[0]
