"""What a corpus is made of: sources, languages, the settings of every stage.

A recipe decides every byte of the result. How many workers, which machines and where the output
lies is not in it. Recipes are Python files with a `get_recipe()` (`experiments/data/*.py`); the
flags of the command line make one as well.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from geex_jax import files, languages
from geex_jax.data import storage
from geex_jax.errors import GeexError, did_you_mean

PACKINGS = ("best-fit", "concat")
FILES = "files"  # the name of what the command line names


@dataclasses.dataclass(frozen=True)
class SourceSpec:
    """One source, as `sources.open_source` reads it.

    Attributes:
      path: folder, file, glob or URL ("gs://..."); what it means is the kind's business. Several
        of them for a tree of several roots.
      kind: "tree", "archive", "jsonl", "parquet", "official", "instructions", "xlcost",
        "packages", ...; "" lets the path tell.
      name: for counts and paths in the report; "" for the last part of the path. Names of a
        recipe's sources differ.
      weight: how often its training documents are seen: 0.5 takes half of them (drawn by content
        hash), 2 all of them twice.
      options: what the kind understands ({"text_field": "content"}); JSON values.
    """

    path: str | tuple[str, ...]
    kind: str = ""
    name: str = ""
    weight: float = 1.0
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Dedup:
    """What counts as a copy. The first document in order of all that are copies stays.

    Attributes:
      exact: drop documents with the same text (and prompt).
      near: drop documents whose estimated Jaccard similarity is at least this; 0 switches it off.
      permutations: numbers in a MinHash signature; 4 bytes each on disk.
      shingle: words in a shingle; similarity is of the sets of shingles.
      least_shingles: documents with fewer are compared exactly only.
    """

    exact: bool = True
    near: float = 0.8
    permutations: int = 128
    shingle: int = 5
    least_shingles: int = 32

    def check(self) -> None:
        """Raises GeexError for settings out of range."""
        if self.near and not 0.4 <= self.near <= 1.0:
            raise GeexError(
                f"near-duplicates from a similarity of {self.near:g} cannot be found",
                "use --near-dup-threshold 0.4 to 1, or 0 to switch it off",
            )
        if self.permutations < 16 or self.shingle < 1 or self.least_shingles < 1:
            raise GeexError(
                "dedup needs 16 permutations or more, and shingles of 1 word or more",
                "leave these settings out",
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A corpus.

    Attributes:
      sources: where documents come from, in order.
      name: for the manifest.
      languages: names or aliases of the languages to keep; empty for all 23.
      stages: stage name to its settings; {} its defaults, None switches it off. Stages that are
        not named run with their defaults where `stages.DEFAULTS` has them, else not.
      dedup: what counts as a copy.
      packing: "best-fit" keeps files whole where they fit, "concat" fills every row.
      seq_len: tokens that a row predicts; rows hold one more.
      validation_fraction: share of documents, drawn by content hash, kept for validation.
      seed: draws the order of documents.
      tags: whether each segment begins with its language's tag line.
      rows_per_shard: about how many rows make a shard; 0 for what fits the size of the corpus.
      mixture: the loader's defaults for this data, carried in the manifest: {"alpha": 0.7} or
        {"weights": {"Python": 2.0}}, {"max_epochs": 4}, ...
    """

    sources: tuple[SourceSpec, ...]
    name: str = ""
    languages: tuple[str, ...] = ()
    stages: Mapping[str, Mapping[str, Any] | None] = dataclasses.field(default_factory=dict)
    dedup: Dedup = dataclasses.field(default_factory=Dedup)
    packing: str = "best-fit"
    seq_len: int = 2048
    validation_fraction: float = 0.02
    seed: int = 0
    tags: bool = True
    rows_per_shard: int = 0
    mixture: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Raises GeexError for settings out of range, before anything is read."""
        if not self.sources:
            raise GeexError("no input given", "name one or more folders: --input DIR")
        for spec in self.sources:
            if not 0.0 <= spec.weight <= 100.0:
                raise GeexError(f"the weight of {spec.path} is {spec.weight:g}", "use 0 to 100")
        if self.seq_len < 1:
            raise GeexError(f"seq_len {self.seq_len} is not positive", "use --seq-len 2048")
        if not 0.0 <= self.validation_fraction < 1.0:
            raise GeexError(
                f"validation_fraction {self.validation_fraction} is out of range",
                "use 0 up to, not including, 1",
            )
        if self.rows_per_shard < 0:
            raise GeexError("rows_per_shard cannot be negative", "leave it out")
        if self.packing not in PACKINGS:
            raise GeexError(
                f"unknown packing {self.packing!r}", did_you_mean(self.packing, PACKINGS)
            )
        self.dedup.check()
        self.language_names()

    def language_names(self) -> tuple[str, ...]:
        """Returns the names of the languages to keep, in index order; empty for all.

        Raises:
          GeexError: there is no such language.
        """
        chosen = {languages.get(name).name for name in self.languages}
        return tuple(x.name for x in languages.LANGUAGES if x.name in chosen)

    def names(self) -> tuple[str, ...]:
        """Returns a name for each source, all different."""
        found: list[str] = []
        for spec in self.sources:
            path = spec.path if isinstance(spec.path, str) else spec.path[0]
            name = spec.name or os.path.basename(os.path.normpath(path)) or "input"
            taken, number = name, 2
            while taken in found:
                taken, number = f"{name}-{number}", number + 1
            found.append(taken)
        return tuple(found)

    def settings(self) -> dict[str, Any]:
        """Returns, as JSON values, the recipe's own settings that decide the bytes.

        What sources and stages add is said by them (`Source.settings`, `Stage.settings`).
        """
        return {
            "languages": list(self.language_names()),
            "dedup": dataclasses.asdict(self.dedup),
            "packing": self.packing,
            "seq_len": self.seq_len,
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "tags": self.tags,
            "rows_per_shard": self.rows_per_shard,
            "weights": [spec.weight for spec in self.sources],
            "mixture": dict(self.mixture),
        }


def folders() -> list[pathlib.Path]:
    """Returns where recipes are looked for by name: a clone's experiments, then the package's."""
    package = pathlib.Path(__file__).parent.parent
    places = (package.parent / "experiments" / "data", package / "_experiments" / "data")
    return [place for place in places if place.is_dir()]


def load(spec: files.Path) -> Recipe:
    """Loads a recipe: a Python file with `get_recipe()`, or the name of one of ours.

    Raises:
      GeexError: there is no such file, or it gives no recipe.
    """
    path = pathlib.Path(spec)
    if path.suffix != ".py" and not path.exists():
        known = {p.stem: p for folder in reversed(folders()) for p in sorted(folder.glob("*.py"))}
        known.pop("__init__", None)
        if str(spec) not in known:
            raise GeexError(f"no recipe {str(spec)!r}", did_you_mean(str(spec), known))
        path = known[str(spec)]
    if not path.is_file():
        raise GeexError(f"no recipe at {path}", "name a Python file with get_recipe()")
    try:
        recipe = runpy.run_path(os.fspath(path))["get_recipe"]()
    except GeexError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())
        raise GeexError(
            f"recipe {path} does not load ({type(error).__name__}: {why})",
            "it is a Python file with a function get_recipe()",
        ) from error
    if not isinstance(recipe, Recipe):
        raise GeexError(f"get_recipe() of {path} returns no Recipe", "see geex_jax.data.recipe")
    return recipe if recipe.name else dataclasses.replace(recipe, name=path.stem)


def from_inputs(
    inputs: files.Path | Sequence[files.Path],
    tree: Mapping[str, Any],
    *,
    kind: str = "",
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Recipe:
    """Returns a recipe of inputs named on the command line, each of the kind that it looks like.

    Folders and single source files become one tree, so that each file is read once.

    Args:
      inputs: paths.
      tree: options of the tree.
      kind: of all inputs, in place of what they look like.
      options: of all sources.
      **settings: of the recipe.

    Raises:
      GeexError: an input does not exist.
    """
    from geex_jax.data.sources import kind_of

    given = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    roots: dict[str, None] = {}
    specs: list[SourceSpec] = []
    more = dict(options or {})
    tree = {**tree, **more}
    for path in [os.fspath(item) for item in given]:
        mine = kind or kind_of(path)
        if mine == "tree" and not storage.is_remote(path):
            roots[os.path.realpath(path)] = None
        else:
            specs.append(SourceSpec(path, mine, options=tree if mine == "tree" else more))
    if roots:
        specs.insert(0, SourceSpec(tuple(roots), "tree", FILES, options=tree))
    return Recipe(tuple(specs), **settings)
