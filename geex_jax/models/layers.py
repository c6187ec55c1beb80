"""Linear, norms, activations, positions: the small parts of a block."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from geex_jax.kernels import float_dot, int8_matmul, padded_rows, quantized_matmul, unpadded
from geex_jax.models.config import ModelConfig
from geex_jax.models.norm import LayerNorm

Initializer = Callable[..., jax.Array]


def fast_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), which the official FastGELU expression equals algebraically."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "fast_gelu": fast_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _gathered(kernel, dtype, axes, stored):
    del stored
    # The barrier keeps the compiler from gathering the wide type and casting afterwards.
    narrow = jax.lax.optimization_barrier(kernel.astype(dtype))
    return nn.with_logical_constraint(narrow, axes)


_gathered.defvjp(
    lambda kernel, dtype, axes, stored: (_gathered(kernel, dtype, axes, stored), None),
    # No constraint here: a gradient is summed straight into the place of its parameter.
    lambda dtype, axes, stored, _, grad: (grad.astype(stored),),
)


def gathered(kernel: jax.Array, dtype: jnp.dtype, axes: tuple[str | None, ...]) -> jax.Array:
    """A parameter in the compute dtype, whole but for the logical axes that split activations.

    On a mesh that splits parameters this is where one is gathered: once, in the narrow type, for
    all that reads it (each matmul left to itself gathers its own, and the backward pass thrice).

    Args:
      kernel: [..., in, out] in any float type.
      dtype: the compute type.
      axes: logical axis names of the dimensions, such as ("embed", "heads").
    """
    if not nn.get_logical_axis_rules() or jax.sharding.get_abstract_mesh().empty:
        return kernel.astype(dtype)
    return _gathered(kernel, dtype, axes, kernel.dtype)


class Linear(nn.Module):
    """y = x W + b, with a float kernel [in, out] or a quantized one.

    If the parameters hold `kernel_int8` [out, in] (or `kernel_int4` [out, in/2]) and
    `kernel_scale`, it is `kernels.quantized_matmul` that computes x Q^T * scale: the stored
    weights stay 8 (or 4) bits wide. `kernel_out` [out, in] is a float kernel turned for decoding on
    a CPU (`inference.prepare`). `axes` are the logical axes of [in, out].
    """

    features: int
    config: ModelConfig
    use_bias: bool = True
    kernel_init: Initializer = nn.initializers.normal(0.02)
    wide: bool = False
    axes: tuple[str, str] = ("embed", "embed")

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """x [..., in] in any float type; returns [..., features] in the compute dtype.

        A wide linear (the head) adds up, and returns, float32; `config.matmul` spares it.
        """
        dtype = jnp.dtype(self.config.dtype)
        param_dtype = jnp.dtype(self.config.param_dtype)
        x = x.astype(dtype)
        if self.has_variable("params", "kernel_scale"):
            y = self._quantized(x)
        elif self.has_variable("params", "kernel_out"):
            kernel = self.get_variable("params", "kernel_out").astype(dtype)
            y = float_dot(x, kernel, jnp.float32 if self.wide else None)
        else:
            shape = (x.shape[-1], self.features)
            kernel = self.param("kernel", self.kernel_init, shape, param_dtype)
            if self.config.matmul == "int8" and not self.wide:
                y = int8_matmul(x, kernel.astype(dtype))  # gathered when it is int8
            else:
                kernel = gathered(kernel, dtype, self.axes)
                result = jnp.float32 if self.wide else None
                rows = padded_rows(x)
                y = jnp.einsum("...i,io->...o", rows, kernel, preferred_element_type=result)
                y = unpadded(y, x)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), param_dtype)
            y = y + bias.astype(y.dtype)
        return y

    def _quantized(self, x: jax.Array) -> jax.Array:
        names = ("kernel_int8", "kernel_int4", "kernel_scale")
        held = [n for n in names if self.has_variable("params", n)]
        leaves = {n: self.get_variable("params", n) for n in held}
        y = quantized_matmul(x, leaves, activations=self.config.activations, axes=self.axes)
        return y.astype(jnp.float32 if self.wide else x.dtype)


class Bias(nn.Module):
    """What a tied head adds to its logits."""

    features: int
    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [..., features] in float32, and so returned."""
        dtype = jnp.dtype(self.config.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), dtype)
        return x + bias.astype(x.dtype)


def norm(config: ModelConfig, name: str | None = None) -> LayerNorm | nn.RMSNorm:
    """The config's normalization: computed in float32, cast to the compute dtype by its user."""
    dtype = jnp.dtype(config.param_dtype)
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.norm_eps, jnp.float32, dtype, name=name)
    return LayerNorm(config.norm_eps, dtype, name=name)


def dropout(module: nn.Module, config: ModelConfig) -> Callable[[jax.Array], jax.Array]:
    """Dropout at the config's rate if the caller gave a "dropout" rng, else the identity.

    To be called inside a compact method of `module`, whose child it becomes.
    """
    if config.dropout and module.has_rng("dropout"):
        return nn.Dropout(config.dropout, deterministic=False)
    return lambda x: x


class MLP(nn.Module):
    """down(act(up x)), or down(act(gate x) * up x) when gated."""

    config: ModelConfig
    down_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X [B, T, D] to [B, T, D]."""
        config = self.config
        act = ACTIVATIONS[config.activation]
        bias = config.mlp_bias
        wide, narrow = ("embed", "mlp"), ("mlp", "embed")
        up = checkpoint_name(Linear(config.d_ff, config, bias, axes=wide, name="up")(x), "up")
        if config.gated_mlp:
            gate = Linear(config.d_ff, config, bias, axes=wide, name="gate")(x)
            hidden = act(checkpoint_name(gate, "gate")) * up
        else:
            hidden = act(up)
        hidden = nn.with_logical_constraint(hidden, ("batch", "length", "mlp"))
        down = Linear(config.d_model, config, bias, self.down_init, axes=narrow, name="down")
        return checkpoint_name(down(hidden), "down")


def rotary_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position, float32 [rotated/2], scaled as the config says.

    The order of the float32 operations is that of transformers: far from the start, the last bit
    of a frequency is a visible part of the angle.
    """
    exponent = np.arange(0, config.rotated, 2, dtype=np.float32) / np.float32(config.rotated)
    wavelength = np.power(config.rotary_theta, exponent.astype(np.float64)).astype(np.float32)
    frequency = np.float32(1) / wavelength
    factor = np.float32(config.rotary_factor)
    if factor == 1:
        return frequency
    if config.rotary_scaling == "linear":
        return frequency / factor
    slow, fast = config.rotary_bounds
    context = config.rotary_original_context
    assert context is not None
    if config.rotary_scaling == "llama3":
        turns = np.float32(context) / (np.float32(2 * math.pi) / frequency)
        kept = np.clip((turns - np.float32(slow)) / np.float32(fast - slow), 0, 1)
        return (1 - kept) * frequency / factor + kept * frequency
    first, last = _yarn_ramp(config, context)
    steps = np.arange(config.rotated // 2, dtype=np.float32)
    kept = 1 - np.clip((steps - np.float32(first)) / np.float32(last - first), 0, 1)
    return np.float32(1) / (factor * wavelength) * (1 - kept) + frequency * kept


def _yarn_ramp(config: ModelConfig, context: int) -> tuple[float, float]:
    # The pairs between which yarn goes over from keeping frequencies to scaling them.
    slow, fast = (
        config.rotated
        * math.log(context / (turns * 2 * math.pi))
        / (2 * math.log(config.rotary_theta))
        for turns in config.rotary_bounds
    )
    first, last = (math.floor(fast), math.ceil(slow)) if config.rotary_truncate else (fast, slow)
    first, last = max(first, 0), min(last, config.rotated - 1)
    return first, last + 0.001 if first == last else last


def rotary_tables(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [B, T, rotated/2] in float32 for positions int32 [B, T]."""
    angle = positions[..., None].astype(jnp.float32) * rotary_frequencies(config)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    if config.rotary_attention_factor != 1:
        cos, sin = (t * config.rotary_attention_factor for t in (cos, sin))
    return cos, sin


def rotate(config: ModelConfig, x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the first `rotated` elements of each head of x [B, T, heads, head_width].

    "interleaved" pairs elements (0, 1), (2, 3), ...; "half" pairs i with i + rotated/2.
    """
    cos, sin = (t[:, :, None, :] for t in tables)
    turned, rest = jnp.split(x, [config.rotated], axis=-1)
    turned = turned.astype(jnp.float32)
    if config.rotary_style == "interleaved":
        a, b = turned[..., 0::2], turned[..., 1::2]
        pair = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
    else:
        a, b = jnp.split(turned, 2, axis=-1)
        pair = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return jnp.concatenate([pair.astype(x.dtype), rest], axis=-1)


def sinusoid(positions: jax.Array, width: int) -> jax.Array:
    """Position vectors [B, T, width] as [sin | cos] halves, exponent step log(10000)/(width/2-1).

    Source: XGLM (InCoder), which computes them and stores none.
    """
    half = width // 2
    step = np.float32(math.log(10000.0) / (half - 1))
    frequency = np.exp(np.arange(half, dtype=np.float32) * -step)
    angle = positions[..., None].astype(jnp.float32) * frequency
    table = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
    return jnp.pad(table, ((0, 0), (0, 0), (0, width - 2 * half)))
