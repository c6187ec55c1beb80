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
from geex_jax.quantize.rounding import Rounding, quantize_kernel
from geex_jax.quantize.weights import (
    Params,
    Place,
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

    def __call__(
        self,
        params: Params,
        policy: Policy | str | int = 8,
        rounding: Rounding = "clean",
        *,
        bits: int | None = None,
        place: Place | None = None,
        consume: bool = False,
    ) -> Params:
        """As `quantize_params`."""
        return quantize_params(params, policy, rounding, bits=bits, place=place, consume=consume)


sys.modules[__name__].__class__ = _Room
