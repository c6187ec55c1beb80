"""Kernels, each beside the plain `jnp` function that it must equal."""

from geex_jax.kernels.attention import attention, choose, portable
from geex_jax.kernels.decode_attention import decode_attention
from geex_jax.kernels.int8_matmul import int8_matmul, quantize
from geex_jax.kernels.plain import attention_mask, dot_product_attention
from geex_jax.kernels.quantized import quantized_matmul, unpack_int4

__all__ = [
    "attention",
    "attention_mask",
    "choose",
    "decode_attention",
    "dot_product_attention",
    "int8_matmul",
    "portable",
    "quantize",
    "quantized_matmul",
    "unpack_int4",
]
