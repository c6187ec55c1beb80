"""The texts that `prepare` would keep, for whoever needs them before there is a tokenizer."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator, Sequence

from geex_jax import files
from geex_jax.data import splits
from geex_jax.data.config import PrepareConfig
from geex_jax.data.journal import Journal
from geex_jax.data.phases.corpus import Corpus, Listing
from geex_jax.data.phases.layout import DocumentReader, Layout
from geex_jax.data.phases.pack import Group, gather_places
from geex_jax.data.phases.run import Run
from geex_jax.data.recipe import Recipe
from geex_jax.data.runners import open_runner
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES, Language

Inputs = files.Path | Sequence[files.Path] | Recipe


def read_sources(
    inputs: Inputs, config: PrepareConfig | None = None, *, split: str | None = None
) -> Iterator[tuple[Language, str]]:
    """Yields (language, text) of every document that passes all stages and deduplication.

    Args:
      inputs: a recipe, or what `prepare` takes.
      config: the settings; of a recipe, only workers and runner.
      split: "train" or "validation"; None for both. The order is that of `prepare`.
    """
    with _opened(inputs, config or PrepareConfig(), split) as (run, groups):
        for group in groups:
            for text, _ in _texts(run, group):
                yield LANGUAGES[group.language], text


def sample_texts(
    inputs: Inputs,
    config: PrepareConfig | None = None,
    *,
    max_bytes: int = 10_000_000,
    alpha: float = 0.5,
    split: str | None = splits.TRAIN,
) -> Iterator[tuple[Language, str]]:
    """Yields whole training documents, at most `max_bytes` in all, balanced over the languages.

    A language gets p ~ share^alpha of the bytes, and no more than it has; what it leaves goes to
    the others. Deterministic. This is what a vocabulary should be trained on.
    """
    with _opened(inputs, config or PrepareConfig(), split) as (run, groups):
        quotas = _quotas({group: group.bytes for group in groups}, max_bytes, alpha)
        for group in groups:
            left = quotas[group]
            for text, size in _texts(run, group):
                if size <= left:
                    left -= size
                    yield LANGUAGES[group.language], text


def _texts(run: Run, group: Group) -> Iterator[tuple[str, int]]:
    """Yields the documents of a group in order, prompts before their texts, and their bytes."""
    reader = DocumentReader(run.layout)
    try:
        for shard in range(group.first, group.first + group.shards):
            for place in gather_places(run.layout, len(run.read), shard):
                part, row = int(place["part"]), int(place["row"])
                stored = reader.read(part, row)
                yield (stored.prompt or "") + stored.text, int(reader.entry(part, row)["bytes"])
    finally:
        reader.close()


def _quotas(sizes: dict[Group, int], total: float, alpha: float) -> dict[Group, float]:
    """Returns bytes per group: p ~ share^alpha, never more than the group has."""
    quotas: dict[Group, float] = {}
    open_groups = dict(sizes)
    while open_groups:
        weights = {group: size**alpha for group, size in open_groups.items()}
        share = total / sum(weights.values())
        full = [g for g, size in open_groups.items() if size <= weights[g] * share]
        if not full:
            return quotas | {group: weights[group] * share for group in open_groups}
        for group in full:
            quotas[group] = open_groups.pop(group)
            total -= quotas[group]
    return quotas


@contextlib.contextmanager
def _opened(
    inputs: Inputs, config: PrepareConfig, split: str | None
) -> Iterator[tuple[Run, list[Group]]]:
    """Reads and deduplicates into a temporary folder, which goes at the end."""
    if split not in (None, *splits.SPLITS):
        raise GeexError(f"unknown split {split!r}", "use train or validation")
    recipe = inputs if isinstance(inputs, Recipe) else config.recipe(inputs)
    corpus = Corpus(recipe)
    with tempfile.TemporaryDirectory(prefix="geex-") as folder:
        runner = open_runner(config.runner, config.workers)
        journal = Journal(pathlib.Path(folder))
        try:
            listing = Listing()
            Layout(journal.folder).write_parts(corpus.parts(listing))
            run = Run(corpus, listing, journal, runner)
            run.read_all()
            run.deduplicate()
            run.place_all()
            yield run, [group for group in run.groups if split in (None, group.split)]
        finally:
            journal.close()
            runner.close()
