"""Kernels, each beside the plain `jnp` function that it must equal."""

from geex_jax.kernels.attention import attention, choose, portable
from geex_jax.kernels.cpu import float_dot, lookup
from geex_jax.kernels.decode_attention import decode_attention
from geex_jax.kernels.int8_matmul import int8_matmul, quantize
from geex_jax.kernels.packing import integers, unpack_int4
from geex_jax.kernels.plain import attention_mask, dot_product_attention
from geex_jax.kernels.quantized import quantized_matmul
from geex_jax.kernels.quantized_tpu import Stacked, padded_rows, pallas_wanted, unpadded

__all__ = [
    "Stacked",
    "attention",
    "attention_mask",
    "choose",
    "decode_attention",
    "dot_product_attention",
    "float_dot",
    "int8_matmul",
    "integers",
    "lookup",
    "padded_rows",
    "pallas_wanted",
    "portable",
    "quantize",
    "quantized_matmul",
    "unpack_int4",
    "unpadded",
]
