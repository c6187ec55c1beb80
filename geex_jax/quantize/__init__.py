"""Float weights to int8 or int4, and the error that costs."""

import sys
import types

from geex_jax.quantize.evaluate import Comparison, compare
from geex_jax.quantize.report import (
    layer_errors,
    make_report,
    render,
    size_in_bytes,
    write_report,
)
from geex_jax.quantize.weights import (
    Params,
    Quantization,
    Rounding,
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


class _Room(types.ModuleType):
    """`geex.quantize` is this room and, called, its main function."""

    def __call__(self, params: Params, bits: int = 8, rounding: Rounding = "clean") -> Params:
        """As `quantize_params`."""
        return quantize_params(params, bits, rounding)


sys.modules[__name__].__class__ = _Room
