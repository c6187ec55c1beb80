"""Source files to filtered, deduplicated, tagged, tokenized, packed rows, and their loader."""

from geex_jax.data.batches import Batch, eval_batches, make_batch, read_rows
from geex_jax.data.config import PrepareConfig
from geex_jax.data.filters import Filters
from geex_jax.data.loader import Loader, make_loader
from geex_jax.data.manifest import Manifest
from geex_jax.data.manifest import load as load_manifest
from geex_jax.data.pipeline import prepare
from geex_jax.data.texts import read_sources, sample_texts

__all__ = [
    "Batch",
    "Filters",
    "Loader",
    "Manifest",
    "PrepareConfig",
    "eval_batches",
    "load_manifest",
    "make_batch",
    "make_loader",
    "prepare",
    "read_rows",
    "read_sources",
    "sample_texts",
]
