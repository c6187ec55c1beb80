"""Source files to filtered, deduplicated, tagged, tokenized, packed rows, and their loader."""

from geex_jax.data.batches import Batch, eval_batches, make_batch, read_rows
from geex_jax.data.config import PrepareConfig
from geex_jax.data.filters import Filters
from geex_jax.data.loader import Loader, make_loader
from geex_jax.data.manifest import Manifest
from geex_jax.data.manifest import load as load_manifest
from geex_jax.data.pipeline import prepare, prepare_recipe
from geex_jax.data.recipe import Dedup, Recipe, SourceSpec
from geex_jax.data.recipe import load as load_recipe
from geex_jax.data.texts import read_sources, sample_texts

__all__ = [
    "Batch",
    "Dedup",
    "Filters",
    "Loader",
    "Manifest",
    "PrepareConfig",
    "Recipe",
    "SourceSpec",
    "eval_batches",
    "load_manifest",
    "load_recipe",
    "make_batch",
    "make_loader",
    "prepare",
    "prepare_recipe",
    "read_rows",
    "read_sources",
    "sample_texts",
]
