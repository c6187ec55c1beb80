"""Sampling, prefill and decode: prompts to completions, with float or quantized weights."""

from geex_jax.inference.decode import Decoding, generate_tokens
from geex_jax.inference.generate import Completion, generate, generate_text
from geex_jax.inference.prepare import prepare
from geex_jax.inference.sampling import Sampling, make_sampling, process_logits, sample
from geex_jax.inference.stops import StopScanner

__all__ = [
    "Completion",
    "Decoding",
    "Sampling",
    "StopScanner",
    "generate",
    "generate_text",
    "generate_tokens",
    "make_sampling",
    "prepare",
    "process_logits",
    "sample",
]
