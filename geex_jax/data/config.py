"""The settings of `prepare` for inputs without a recipe, and what it accepts as output."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import files
from geex_jax.data import recipe as recipes
from geex_jax.data import storage
from geex_jax.data.filters import Filters
from geex_jax.data.recipe import Dedup, Recipe
from geex_jax.errors import GeexError


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
    """All settings of `prepare`; a `Recipe` in a file says more.

    Attributes:
      seq_len: tokens that a row predicts; rows hold one more.
      validation_fraction: share of files, drawn by content hash, kept for validation.
      languages: names or aliases of the languages to keep; empty for all 23.
      seed: draws the order of files.
      tags: whether each segment begins with its language's tag line.
      filters: which files pass.
      near_dup_threshold: estimated similarity from which files are copies; 0 compares exactly.
      packing: "best-fit" or "concat".
      stages: settings of further stages, see `Recipe.stages`.
      exclude: names of folders that are not entered.
      follow_links: whether folders behind symbolic links are entered.
      gitignore: whether `.gitignore` files are heeded.
      kind: of all inputs ("instructions", "official", "xlcost", ...); "" lets their names tell.
      options: of all sources, such as {"text_field": "content"}; see `sources.open_source`.
      workers: processes; None for one per core. Does not change the result.
      runner: "local" or a Ray cluster, see `runners.open_runner`. Does not change the result.
      rows_per_shard: about how many rows make a shard; 0 for what fits the size of the corpus.
      overwrite: remove an earlier result first.
    """

    seq_len: int = 2048
    validation_fraction: float = 0.02
    languages: tuple[str, ...] = ()
    seed: int = 0
    tags: bool = True
    filters: Filters = dataclasses.field(default_factory=Filters)
    near_dup_threshold: float = 0.8
    packing: str = "best-fit"
    stages: Mapping[str, Mapping[str, Any] | None] = dataclasses.field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    follow_links: bool = False
    gitignore: bool = True
    kind: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    workers: int | None = None
    runner: str = "local"
    rows_per_shard: int = 0
    overwrite: bool = False

    def check(self) -> None:
        """Raises GeexError for settings out of range."""
        self.filters.check()
        if self.workers is not None and self.workers < 1:
            raise GeexError(f"workers {self.workers} is not positive", "leave it out")

    def recipe(self, inputs: files.Path | Sequence[files.Path]) -> Recipe:
        """Returns the recipe of some inputs with these settings.

        Raises:
          GeexError: an input does not exist, or a setting is out of range.
        """
        self.check()
        limits = dataclasses.asdict(self.filters)
        keep_duplicates = limits.pop("keep_duplicates")
        tree = {
            "exclude": tuple(self.exclude),
            "follow_links": self.follow_links,
            "gitignore": self.gitignore,
        }
        return recipes.from_inputs(
            inputs,
            tree,
            kind=self.kind,
            options=self.options,
            languages=tuple(self.languages),
            stages={"filters": limits, **self.stages},
            dedup=Dedup(False, 0.0) if keep_duplicates else Dedup(near=self.near_dup_threshold),
            packing=self.packing,
            seq_len=self.seq_len,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
            tags=self.tags,
            rows_per_shard=self.rows_per_shard,
        )


def check_output(recipe: Recipe, output: files.Path) -> None:
    """Raises GeexError for an output that is a file, or that holds an input."""
    target = os.path.realpath(output)
    if os.path.exists(target) and not os.path.isdir(target):
        raise GeexError(f"output {output} is a file", "choose a folder")
    for spec in recipe.sources:
        for path in (spec.path,) if isinstance(spec.path, str) else spec.path:
            if storage.is_remote(path) or not os.path.exists(path):
                continue
            if os.path.commonpath([os.path.realpath(path), target]) == target:
                raise GeexError(
                    f"input {path} lies in the output folder", "choose another --output"
                )
