"""Parameters laid out for decoding on the platform at hand.

On a CPU three things cost a decode step more than its weights: a layer sliced from a stack is
copied, an in-major kernel is read across its rows, and a kernel of another type than the compute
type is converted in every step. `prepare` takes all three away, once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from geex_jax.kernels.attention import platform
from geex_jax.models import Transformer, unstack_layers

Params = dict[str, Any]
SMALL = 64 << 20  # bytes


def prepare(model: Transformer, params: Params, least: int = SMALL) -> tuple[Transformer, Params]:
    """The model and parameters to decode with: the same function, laid out for this platform.

    On a CPU layers are unstacked, and each float `kernel` [in, out] becomes `kernel_out` [out, in]
    in the compute type. It costs one copy of the parameters (the originals may be let go) and a
    longer compilation, of one block for each layer. Elsewhere, and for parameters that are spread
    over several devices or smaller than `least`, everything is returned as it came.

    Args:
      model: any decoder.
      params: float or quantized, stacked or not; may already be prepared.
      least: bytes of parameters from which it is worth it: what caches hold is not slow.
    """
    leaves = jax.tree.leaves(params)
    if platform() != "cpu" or sum(x.nbytes for x in leaves) < least:
        return model, params
    if any(isinstance(x, jax.Array) and len(x.devices()) > 1 for x in leaves):
        return model, params
    config = model.config
    if config.scan_layers:
        params = unstack_layers(params)
    config = config.replace(scan_layers=False, remat="none")
    return Transformer(config), _turned(params, jnp.dtype(config.dtype))


def _turned(tree: Params, dtype: Any) -> Params:
    out: Params = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            out[name] = _turned(value, dtype)
        elif name == "kernel":
            out["kernel_out"] = _turn(value, dtype)
        else:
            out[name] = value
    return out


def _turn(kernel: Any, dtype: Any) -> jax.Array:
    return jnp.swapaxes(jnp.asarray(kernel, dtype), -1, -2).copy()
