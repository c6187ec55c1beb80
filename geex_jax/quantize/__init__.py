"""Float weights to int8 or int4, and the error that costs."""

from geex_jax.quantize.evaluate import Comparison, compare
from geex_jax.quantize.report import (
    layer_errors,
    make_report,
    render,
    size_in_bytes,
    write_report,
)
from geex_jax.quantize.weights import (
    Quantization,
    dequantize_params,
    is_quantized,
    quantization_of,
    quantize_kernel,
    quantize_params,
)

__all__ = [
    "Comparison",
    "Quantization",
    "compare",
    "dequantize_params",
    "is_quantized",
    "layer_errors",
    "make_report",
    "quantization_of",
    "quantize_kernel",
    "quantize_params",
    "render",
    "size_in_bytes",
    "write_report",
]
