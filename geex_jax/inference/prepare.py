"""Parameters laid out for decoding on the platform at hand.

On a CPU three things cost a decode step more than its weights: a layer sliced from a stack is
copied, an in-major kernel is read across its rows, and a kernel of another type than the compute
type is converted in every step. `prepare` takes all three away, once.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from geex_jax.kernels.attention import platform
from geex_jax.models import Transformer
from geex_jax.parallel import by_path, tree_of

Params = dict[str, Any]
SMALL = 64 << 20  # bytes
STACK, KERNEL = "layers/", "/kernel"


def prepare(
    model: Transformer, params: Params, least: int = SMALL, *, consume: bool = False
) -> tuple[Transformer, Params]:
    """The model and parameters to decode with: the same function, laid out for this platform.

    On a CPU layers are unstacked, and each float `kernel` [in, out] becomes `kernel_out` [out, in]
    in the compute type. It costs a longer compilation, of one block for each layer, and one copy
    of what changes: for as long as the caller keeps the originals, or, with `consume`, of the
    largest leaf only. Elsewhere, and for parameters that are laid out so already, spread over
    several devices, or smaller than `least`, everything is returned as it came.

    Args:
      model: any decoder.
      params: float or quantized, stacked or not; may already be prepared.
      least: bytes of parameters from which it is worth it: what caches hold is not slow.
      consume: empties the caller's dict where a new tree is made, so that each original goes as
        soon as its copies are there; leaves that somebody else holds stay alive.
    """
    if platform() != "cpu" or not _worth_it(params, least):
        return model, params
    config = model.config
    leaves = by_path(params)
    done = not config.scan_layers and config.remat == "none"
    if done and not any(path.endswith(KERNEL) for path in leaves):
        return model, params
    if consume:
        params.clear()  # and not what is inside, which another tree may share
    new = _laid_out(leaves, config.scan_layers, jnp.dtype(config.dtype))
    return Transformer(config.replace(scan_layers=False, remat="none")), tree_of(new)


def _worth_it(params: Params, least: int) -> bool:
    leaves = jax.tree.leaves(params)
    if sum(x.nbytes for x in leaves) < least:
        return False
    return not any(isinstance(x, jax.Array) and len(x.devices()) > 1 for x in leaves)


def _laid_out(leaves: dict[str, Any], stacked: bool, dtype: Any) -> dict[str, Any]:
    """The new leaves by path; takes the old ones out of `leaves`, one after the other."""
    new: dict[str, Any] = {}
    for path in list(leaves):
        new |= _copies(path, leaves.pop(path), stacked, dtype)
    return new


def _copies(path: str, leaf: Any, stacked: bool, dtype: Any) -> dict[str, Any]:
    """What one leaf becomes: itself, another, or one for each layer; waits for the copies."""
    turned = path.endswith(KERNEL)
    name = f"{path}_out" if turned else path
    if stacked and path.startswith(STACK):
        rest = name.removeprefix(STACK)
        made = {
            f"layers_{i}/{rest}": _layer(leaf, i, dtype if turned else leaf.dtype, turned)
            for i in range(leaf.shape[0])
        }
    elif turned:
        made = {name: _turn(leaf, dtype)}
    else:
        return {name: leaf}
    # Left to run ahead, all copies would be there before the first original is gone.
    return jax.block_until_ready(made)


@functools.partial(jax.jit, static_argnames=("dtype", "turned"))
def _layer(stack: jax.Array, i: int, dtype: Any, turned: bool) -> jax.Array:
    """Layer i of a stacked leaf, in a program of its own: without a copy in between."""
    layer = jax.lax.dynamic_index_in_dim(stack, i, keepdims=False)
    return _turned(layer, dtype) if turned else layer


@functools.partial(jax.jit, static_argnames="dtype")
def _turn(kernel: jax.Array, dtype: Any) -> jax.Array:
    return _turned(kernel, dtype)


def _turned(kernel: jax.Array, dtype: Any) -> jax.Array:
    return jnp.swapaxes(kernel.astype(dtype), -1, -2)
