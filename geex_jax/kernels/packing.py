"""How stored integers lie: two int4 in a byte, the even column in the high nibble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def unpack_int4(packed: jax.Array) -> jax.Array:
    """uint8 [..., out, in/2] to int8 [..., out, in]; the even column is the high nibble."""
    signed = packed.astype(jnp.int8)
    high = jnp.right_shift(signed, 4)  # arithmetic: keeps the sign
    low = jnp.right_shift(jnp.left_shift(signed, 4), 4)
    return jnp.stack([high, low], axis=-1).reshape(*packed.shape[:-1], -1)


def integers(leaves: Mapping[str, Any]) -> jax.Array:
    """int8 [..., out, in] of a quantized kernel's leaves, `kernel_int8` or `kernel_int4`."""
    packed = leaves.get("kernel_int4")
    return leaves["kernel_int8"] if packed is None else unpack_int4(packed)
