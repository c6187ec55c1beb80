"""The settings of `prepare`, and what it accepts as input."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from geex_jax import files, languages
from geex_jax.data.filters import Filters
from geex_jax.data.scan import Scanner
from geex_jax.errors import GeexError


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """All settings of `prepare`.

    Attributes:
      seq_len: tokens that a row predicts; rows hold one more.
      validation_fraction: share of files, drawn by content hash, kept for validation.
      languages: names or aliases of the languages to keep; empty for all 23.
      seed: draws the order of files.
      tags: whether each segment begins with its language's tag line.
      filters: which files pass.
      exclude: names of folders that are not entered.
      follow_links: whether folders behind symbolic links are entered.
      workers: processes; None for one per core. Does not change the result.
      rows_per_shard: rows in a shard; 0 for about 128 MB.
      overwrite: remove an earlier result first.
    """

    seq_len: int = 2048
    validation_fraction: float = 0.02
    languages: tuple[str, ...] = ()
    seed: int = 0
    tags: bool = True
    filters: Filters = dataclasses.field(default_factory=Filters)
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    workers: int | None = None
    rows_per_shard: int = 0
    overwrite: bool = False

    def check(self) -> None:
        """Raises GeexError for settings out of range."""
        self.filters.check()
        if self.seq_len < 1:
            raise GeexError(f"seq_len {self.seq_len} is not positive", "use --seq-len 2048")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise GeexError(
                f"validation_fraction {self.validation_fraction} is out of range",
                "use 0 up to, not including, 1",
            )
        if (self.workers is not None and self.workers < 1) or self.rows_per_shard < 0:
            raise GeexError("workers and rows_per_shard cannot be negative", "leave them out")
        self.language_indices()

    def language_indices(self) -> frozenset[int]:
        """Returns the indices of the languages to keep; empty for all."""
        chosen = {languages.get(name).name for name in self.languages}
        return frozenset(i for i, x in enumerate(languages.LANGUAGES) if x.name in chosen)

    def scanner(self) -> Scanner:
        """Returns what reads and filters files with these settings."""
        return Scanner(self.filters, self.language_indices())

    def settings(self) -> dict[str, Any]:
        """Returns, as JSON values, the settings that decide the bytes of the result."""
        chosen = self.language_indices()
        return {
            "seq_len": self.seq_len,
            "validation_fraction": self.validation_fraction,
            "languages": [x.name for i, x in enumerate(languages.LANGUAGES) if i in chosen],
            "seed": self.seed,
            "tags": self.tags,
            "filters": dataclasses.asdict(self.filters),
            "exclude": sorted(self.exclude),
            "follow_links": self.follow_links,
            "rows_per_shard": self.rows_per_shard,
        }


def check_inputs(
    inputs: files.Path | Sequence[files.Path], output: pathlib.Path | None = None
) -> list[str]:
    """Returns the inputs as absolute paths, each once, in the order given.

    Raises:
      GeexError: there is none, one does not exist, or one lies in the output.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not given:
        raise GeexError("no input given", "name one or more folders: --input DIR")
    target = os.path.realpath(output) if output is not None else None
    roots: dict[str, None] = {}
    for item in given:
        path = os.path.realpath(os.fspath(item))
        if not os.path.exists(path):
            raise GeexError(f"input {item} does not exist", "check the path")
        if target is not None and os.path.commonpath([path, target]) == target:
            raise GeexError(f"input {item} lies in the output folder", "choose another --output")
        roots[path] = None
    if target is not None and os.path.exists(target) and not os.path.isdir(target):
        raise GeexError(f"output {output} is a file", "choose a folder")
    return list(roots)
