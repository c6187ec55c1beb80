"""Orbax in and out: the model store, training states, and the families of other libraries."""

from geex_jax.checkpoints.converting import convert
from geex_jax.checkpoints.exporting import export
from geex_jax.checkpoints.opening import Form
from geex_jax.checkpoints.quantizing import quantize_model
from geex_jax.checkpoints.store import Loaded, load_model, read_config, save_model

__all__ = [
    "Form",
    "Loaded",
    "convert",
    "export",
    "load_model",
    "quantize_model",
    "read_config",
    "save_model",
]
