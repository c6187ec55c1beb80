"""Float weights to int8 or int4, and the error that costs."""

import sys
import types

from geex_jax.quantize.evaluate import Comparison, compare
from geex_jax.quantize.policy import FORMATS, NAMED, Policy, parse
from geex_jax.quantize.report import (
    layer_errors,
    make_report,
    render,
    size_in_bytes,
    write_report,
)
from geex_jax.quantize.rounding import quantize_kernel
from geex_jax.quantize.weights import (
    Quantization,
    check_policy,
    dequantize_params,
    formats_of,
    is_quantized,
    quantization_of,
    quantize_params,
)

__all__ = [
    "FORMATS",
    "NAMED",
    "Comparison",
    "Policy",
    "Quantization",
    "check_policy",
    "compare",
    "dequantize_params",
    "formats_of",
    "is_quantized",
    "layer_errors",
    "make_report",
    "parse",
    "quantization_of",
    "quantize_kernel",
    "quantize_params",
    "render",
    "size_in_bytes",
    "write_report",
]


class _Room(types.ModuleType):
    """`geex.quantize` is this room and, called, its main function."""

    __call__ = staticmethod(quantize_params)


sys.modules[__name__].__class__ = _Room
