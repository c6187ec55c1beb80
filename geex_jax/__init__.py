"""Multilingual code models in JAX: CodeGeeX and its rivals, trained, quantized, used.

    import geex_jax as geex

    model, params, tokenizer = geex.load("runs/a")
    print(geex.generate(model, params, tokenizer, "def add(a, b):", language="python")[0].text)
    int8 = geex.quantize(params, bits=8)

Names below are imported when first used, so that `import geex_jax` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from geex_jax.errors import GeexError
from geex_jax.version import __version__

if TYPE_CHECKING:
    from geex_jax.checkpoints import convert, export
    from geex_jax.checkpoints import load_model as load
    from geex_jax.checkpoints import save_model as save
    from geex_jax.inference import generate
    from geex_jax.models import ModelConfig, Transformer, init_cache, preset
    from geex_jax.quantize import dequantize_params as dequantize
    from geex_jax.quantize import quantize_params as quantize
    from geex_jax.tokenizers import load as load_tokenizer
    from geex_jax.training import (
        OptimizerConfig,
        StepConfig,
        TrainState,
        init_state,
        loss_fn,
        make_optimizer,
        train_step,
    )

# public name -> (module, name there; "" for the module itself, which is callable)
_PUBLIC = {
    "ModelConfig": ("geex_jax.models", "ModelConfig"),
    "OptimizerConfig": ("geex_jax.training", "OptimizerConfig"),
    "StepConfig": ("geex_jax.training", "StepConfig"),
    "TrainState": ("geex_jax.training", "TrainState"),
    "Transformer": ("geex_jax.models", "Transformer"),
    "convert": ("geex_jax.checkpoints", "convert"),
    "dequantize": ("geex_jax.quantize", "dequantize_params"),
    "export": ("geex_jax.checkpoints", "export"),
    "generate": ("geex_jax.inference", "generate"),
    "init_cache": ("geex_jax.models", "init_cache"),
    "init_state": ("geex_jax.training", "init_state"),
    "load": ("geex_jax.checkpoints", "load_model"),
    "load_tokenizer": ("geex_jax.tokenizers", "load"),
    "loss_fn": ("geex_jax.training", "loss_fn"),
    "make_optimizer": ("geex_jax.training", "make_optimizer"),
    "preset": ("geex_jax.models", "preset"),
    "quantize": ("geex_jax.quantize", ""),
    "save": ("geex_jax.checkpoints", "save_model"),
    "train_step": ("geex_jax.training", "train_step"),
}

__all__ = [
    "GeexError",
    "ModelConfig",
    "OptimizerConfig",
    "StepConfig",
    "TrainState",
    "Transformer",
    "__version__",
    "convert",
    "dequantize",
    "export",
    "generate",
    "init_cache",
    "init_state",
    "load",
    "load_tokenizer",
    "loss_fn",
    "make_optimizer",
    "preset",
    "quantize",
    "save",
    "train_step",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inner = _PUBLIC[name]
    found = importlib.import_module(module)
    value = getattr(found, inner) if inner else found
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
