"""Orbax in and out: the model store and training states."""

from geex_jax.checkpoints.store import Loaded, load_model, read_config, save_model

__all__ = ["Loaded", "load_model", "read_config", "save_model"]
