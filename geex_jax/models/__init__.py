"""One decoder, built from small parts that the config picks."""

from geex_jax.models.cache import KVCache, buffers, init_cache
from geex_jax.models.config import ModelConfig, from_dict, to_dict
from geex_jax.models.presets import PRESETS, preset
from geex_jax.models.transformer import (
    Transformer,
    segment_positions,
    stack_layers,
    unstack_layers,
)

__all__ = [
    "PRESETS",
    "KVCache",
    "ModelConfig",
    "Transformer",
    "buffers",
    "from_dict",
    "init_cache",
    "preset",
    "segment_positions",
    "stack_layers",
    "to_dict",
    "unstack_layers",
]
