"""The texts that `prepare` would keep, for whoever needs them before there is a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from geex_jax import files
from geex_jax.data import scan as scans
from geex_jax.data import sources
from geex_jax.data.config import PrepareConfig, check_inputs
from geex_jax.data.scan import Kept
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES, Language


def read_sources(
    inputs: files.Path | Sequence[files.Path],
    config: PrepareConfig | None = None,
    *,
    split: str | None = None,
) -> Iterator[tuple[Language, str]]:
    """Yields (language, text) of every file that passes filters and deduplication.

    Args:
      inputs: source trees, as for `prepare`.
      config: the settings; the order is that of `prepare`.
      split: "train" or "validation"; None for both.
    """
    for (_, language), kept in _groups(inputs, config or PrepareConfig(), split).items():
        for file in kept:
            yield LANGUAGES[language], scans.read_kept(file)


def sample_texts(
    inputs: files.Path | Sequence[files.Path],
    config: PrepareConfig | None = None,
    *,
    max_bytes: int = 10_000_000,
    alpha: float = 0.5,
    split: str | None = scans.TRAIN,
) -> Iterator[tuple[Language, str]]:
    """Yields whole training files, at most `max_bytes` in all, balanced over the languages.

    A language gets p ~ share^alpha of the bytes, and no more than it has; what it leaves goes to
    the others. Deterministic. This is what a vocabulary should be trained on.
    """
    groups = _groups(inputs, config or PrepareConfig(), split)
    sizes = {group: sum(file.size for file in kept) for group, kept in groups.items()}
    quotas = _quotas(sizes, max_bytes, alpha)
    for group, kept in groups.items():
        left = quotas[group]
        for file in kept:
            if file.size <= left:
                left -= file.size
                yield LANGUAGES[file.language], scans.read_kept(file)


def _quotas(sizes: dict[tuple[str, int], int], total: float, alpha: float) -> dict:
    """Returns bytes per group: p ~ share^alpha, never more than the group has."""
    quotas: dict[tuple[str, int], float] = {}
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


def _groups(
    inputs: files.Path | Sequence[files.Path], config: PrepareConfig, split: str | None
) -> dict[tuple[str, int], list[Kept]]:
    if split not in (None, *scans.SPLITS):
        raise GeexError(f"unknown split {split!r}", "use train or validation")
    config.check()
    roots = check_inputs(inputs)
    walked = sources.walk(roots, names=config.exclude, follow_links=config.follow_links)
    scanned = scans.scan(walked.found, config.scanner(), worker_count=config.workers)
    groups = scans.group(scanned.kept, config.validation_fraction, config.seed)
    if not groups:
        raise GeexError("no source file passed the filters", "give more input or relax the filters")
    return {group: kept for group, kept in groups.items() if split in (None, group[0])}
