"""The loader, on Grain's readers and threads: an endless, shuffled, resumable mix of batches.

The global batch of step t is a pure function of (data, seed, mixture, batch size, t). How many
processes share it, how far ahead it is read and how often it was stopped do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geex_jax import files
from geex_jax.data import manifest as manifests
from geex_jax.data import megatron, records
from geex_jax.data import mixture as mixtures
from geex_jax.data.batches import (
    Batch,
    check_rows,
    check_split,
    damaged,
    local_rows,
    make_batch,
)
from geex_jax.data.manifest import Manifest
from geex_jax.data.mixture import Curriculum, Stream, mixture, stages
from geex_jax.data.records import Row
from geex_jax.data.shuffle import shuffled
from geex_jax.errors import GeexError

__all__ = ["Loader", "make_loader", "mixture"]

_STATE = 2
_STEPS = 1 << 40  # for ever


def make_loader(
    folder: files.Path,
    split: str = "train",
    *,
    batch_size: int,
    seed: int = 0,
    alpha: float | None = None,
    weights: Mapping[str, float] | None = None,
    max_epochs: float | None = None,
    curriculum: Curriculum | None = None,
    process_index: int = 0,
    process_count: int = 1,
    rows: Sequence[int] | None = None,
    shuffle: bool = True,
    prefetch: int = 8,
    threads: int = 4,
) -> Loader:
    """Opens prepared data for training.

    What of the mixture is left at None is as the data's recipe says, and else as said below.

    Args:
      folder: what `geex prepare` made.
      split: "train" or "validation".
      batch_size: rows in a step, over all processes.
      seed: draws the order of rows, anew in each epoch of each language.
      alpha: a language's share of the rows is p ~ (its share of the tokens)^alpha: 1 as the
        data is, 0 the same for all, in between small languages are seen more often. Default 1.
      weights: language name to weight, in place of alpha; languages not named are left out.
      max_epochs: how often each language's rows are seen at most, after which its share goes to
        the others; the stream ends when no language is left. Default 0: no limit.
      curriculum: ((step, weights or alpha), ...): from each of these steps on, another mixture.
      process_index: which process this is.
      process_count: how many processes share each batch, in equal parts, one after the other.
      rows: which rows of the batch are this process's, ascending, in place of those two: what
        its devices hold, which processes that split a row's positions or heads have in common.
      shuffle: False reads each language's rows in stored order.
      prefetch: batches read ahead; 0 reads in the calling thread.
      threads: threads that read ahead.

    Raises:
      GeexError: no prepared data there, no rows, unknown languages, a curriculum that cannot be
        followed, or a batch that does not divide by the processes.
    """
    manifest = manifests.load(folder)
    names = check_split(manifest, folder, split)
    told = mixtures.told(manifest, alpha, weights, max_epochs, curriculum)
    parts = stages(manifest, split, names, told.alpha, told.weights, told.curriculum)
    if rows is None:
        rows = local_rows(batch_size, process_index, process_count)
    mine = np.asarray(rows, np.int64)
    if not mine.size or mine[0] < 0 or mine[-1] >= batch_size or np.any(np.diff(mine) < 1):
        raise GeexError(f"rows {list(rows)} of a batch of {batch_size}", "ascending, within it")
    order = Stream(
        [(step * batch_size, shares) for step, shares in parts],
        {name: manifest.amount(split, name).rows for name in names},
        told.max_epochs,
    )
    return Loader(
        folder,
        split,
        manifest,
        parts[0][1],
        order,
        batch_size,
        mine,
        seed,
        shuffle,
        prefetch,
        threads,
    )


class Loader:
    """An endless iterator of batches (see `make_batch`) with the rows of this process.

    Attributes:
      manifest: of the prepared data.
      probabilities: language name to share of the rows, at the first step.
      order: which language each row of the stream is of.
      batch_size: rows in a step, over all processes.
      seq_len: tokens in a row of `tokens`.
      rows: rows in the split, of the languages in the mixture.
      tokens: tokens in them, padding left out.
    """

    def __init__(
        self,
        folder: files.Path,
        split: str,
        manifest: Manifest,
        probabilities: dict[str, float],
        order: Stream,
        batch_size: int,
        mine: np.ndarray,
        seed: int,
        shuffle: bool,
        prefetch: int,
        threads: int,
    ):
        import grain

        self.manifest, self.probabilities, self.order = manifest, probabilities, order
        self.split, self.seed, self.batch_size = split, seed, batch_size
        self.seq_len = manifest.seq_len
        self._mine, self._shuffle = mine, shuffle
        amounts = [manifest.amount(split, name) for name in order.names]
        self.rows = sum(a.rows for a in amounts)
        self.tokens = sum(a.tokens for a in amounts)
        self._languages = [self._language(folder, name) for name in order.names]
        digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in order.names]
        self._seeds = np.array([int.from_bytes(x[:8], "little") for x in digests], np.uint64)
        self._counts = np.array([a.rows for a in amounts], np.int64)
        self._options = grain.ReadOptions(
            num_threads=threads if prefetch else 0, prefetch_buffer_size=prefetch
        )
        self._iterator = self._open(0)
        self.step = 0

    def _language(self, folder: files.Path, name: str) -> Any:
        """Returns one language's rows, open to access at any place, as records or rows."""
        source: Any = megatron.rows(self.manifest, self.split, name)
        if source is None:
            source = self._shards(folder, name)
        check_rows(len(source), self.manifest, self.split, name)
        return source

    def _shards(self, folder: files.Path, name: str) -> Any:
        import grain

        paths = [str(p) for p in self.manifest.shard_paths(folder, self.split, name)]
        try:
            source: Any = grain.sources.ArrayRecordDataSource(paths)
            len(source)
        except (RuntimeError, ValueError) as error:
            raise damaged(f"the shards of {name}", error) from None
        return source

    def _open(self, step: int) -> Any:
        import grain

        steps = grain.MapDataset.range(step, _STEPS).map(self.batch)
        return iter(steps.to_iter_dataset(self._options))

    def batch(self, step: int) -> Batch:
        """Returns this process's rows of the batch of any step, without moving the iterator."""
        if self.steps is not None and step >= self.steps:  # on all processes at once
            raise GeexError(
                f"the data end after {self.steps:,} steps: each language was seen as often as "
                "max_epochs allows",
                "raise max_epochs, train for fewer steps, or prepare more data",
            )
        start, stop = int(self._mine[0]), int(self._mine[-1]) + 1
        languages, numbers = self.order.take(step * self.batch_size + start, stop - start)
        if stop - start > len(self._mine):
            languages, numbers = languages[self._mine - start], numbers[self._mine - start]
        counts = self._counts[languages]
        if self._shuffle:
            numbers = shuffled(numbers, counts, self._seeds[languages])
        else:
            numbers = numbers % counts
        stored = [
            self._languages[language][number]
            for language, number in zip(languages.tolist(), numbers.tolist(), strict=True)
        ]
        return make_batch([x if isinstance(x, Row) else records.decode_row(x) for x in stored])

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self.step += 1
        return batch

    def epochs(self, step: int | None = None) -> dict[str, float]:
        """Returns language name to how often its rows were seen before `step` (default: now)."""
        seen = self.order.seen((self.step if step is None else step) * self.batch_size)
        return {name: n / self.manifest.amount(self.split, name).rows for name, n in seen.items()}

    @property
    def steps(self) -> int | None:
        """How many steps there are before `max_epochs` ends the data; None: endless."""
        return None if self.order.total is None else self.order.total // self.batch_size

    def _identity(self) -> dict[str, Any]:
        return {
            "version": _STATE,
            "data": self.manifest.fingerprint,
            "split": self.split,
            "seed": self.seed,
            "shuffle": self._shuffle,
            "mixture": self.order.fingerprint(),
            "batch_size": self.batch_size,
        }

    def get_state(self) -> dict[str, Any]:
        """Returns where the stream stands, as JSON values; the same on all processes."""
        return self._identity() | {"step": self.step}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was saved, on any number of processes.

        Raises:
          GeexError: the state is of other data, or of another seed, mixture or batch size.
        """
        for key, value in self._identity().items():
            if state.get(key) != value:
                raise GeexError(
                    f"the loader's state was saved with {key} {state.get(key)!r}, "
                    f"this loader has {value!r}",
                    "resume with the same data and settings, or start a new run",
                )
        self.step = int(state["step"])
        self._iterator = self._open(self.step)
