"""Sampling, prefill and decode: prompts to completions, with float or quantized weights."""

from geex_jax.inference.beam import Beam, beam_search
from geex_jax.inference.complete import complete, complete_beams
from geex_jax.inference.decode import Decoding, generate_tokens
from geex_jax.inference.engine import Engine
from geex_jax.inference.generate import Completion, generate, generate_text
from geex_jax.inference.infill import Infill, infill
from geex_jax.inference.prepare import prepare
from geex_jax.inference.requests import (
    Overloaded,
    Piece,
    Request,
    Sample,
    SamplingParams,
    Stopped,
    Ticket,
    TokenLogprob,
)
from geex_jax.inference.sampling import Sampling, make_sampling, process_logits, sample
from geex_jax.inference.settings import EngineConfig
from geex_jax.inference.stops import StopScanner

__all__ = [
    "Beam",
    "Completion",
    "Decoding",
    "Engine",
    "EngineConfig",
    "Infill",
    "Overloaded",
    "Piece",
    "Request",
    "Sample",
    "Sampling",
    "SamplingParams",
    "StopScanner",
    "Stopped",
    "Ticket",
    "TokenLogprob",
    "beam_search",
    "complete",
    "complete_beams",
    "generate",
    "generate_text",
    "generate_tokens",
    "infill",
    "make_sampling",
    "prepare",
    "process_logits",
    "sample",
]
