"""LayerNorm whose gradient is written out: what autodiff makes of a two-pass variance reads more.

A block's backward pass then touches about a tenth fewer bytes on a CPU (`geex bench peer-step`),
and the input is kept in its own type instead of as float32 intermediates.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * scale + bias over the last axis, in float32.

    Parameters and result are those of `flax.linen.LayerNorm(use_fast_variance=False)`: the fast
    variance E[x^2] - E[x]^2 loses digits that the reference keeps.
    """

    epsilon: float
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [..., D] in any float type; returns float32 [..., D]."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        out: Any = layer_norm(x, scale, bias, self.epsilon)
        return out


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """X [..., D], scale and bias [D]; returns float32 [..., D]."""
    return _forward(x, scale, bias, epsilon)[0]


def _forward(x, scale, bias, epsilon):
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    inverse = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    out = centred * (inverse * scale.astype(jnp.float32)) + bias.astype(jnp.float32)
    return out, (x, mean, inverse, scale, bias)


def _backward(epsilon, kept, grad):
    x, mean, inverse, scale, bias = kept
    normal = (x.astype(jnp.float32) - mean) * inverse
    scaled = grad * scale.astype(jnp.float32)
    along = jnp.mean(scaled * normal, axis=-1, keepdims=True)
    grad_x = inverse * (scaled - jnp.mean(scaled, axis=-1, keepdims=True) - normal * along)
    rows = tuple(range(x.ndim - 1))
    grad_scale = jnp.sum(grad * normal, axis=rows)
    grad_bias = jnp.sum(grad, axis=rows)
    return grad_x.astype(x.dtype), grad_scale.astype(scale.dtype), grad_bias.astype(bias.dtype)


layer_norm.defvjp(_forward, _backward)
