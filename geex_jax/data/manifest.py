"""`manifest.json`: what a folder of prepared data holds."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError, did_you_mean

FORMAT = 2  # 1: before recipes, stages and best-fit packing
NAME = "manifest.json"


@dataclasses.dataclass(frozen=True)
class LanguageInfo:
    """A language; its place in `Manifest.languages` is its index in rows and batches.

    `tag_tokens` is the number of tokens of the tag line alone, 0 for data without tags.
    """

    name: str
    slug: str
    tag: str
    tag_tokens: int


@dataclasses.dataclass(frozen=True)
class TokenizerInfo:
    """The tokenizer that made the rows."""

    kind: str
    fingerprint: str
    vocab_size: int
    eos_id: int
    pad_id: int


@dataclasses.dataclass(frozen=True)
class Licence:
    """What is kept under one SPDX expression ("" where none was found): documents and bytes."""

    files: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Amount:
    """What one language has in one split. `tokens` counts all but padding.

    A document of a source whose weight is above 1 counts as often as it is in the rows.
    """

    files: int
    bytes: int
    tokens: int
    rows: int
    shards: int


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`.

    Attributes:
      format: version of the layout.
      fingerprint: 16 hex digits over all contents and settings.
      seq_len: tokens that a row predicts; a row holds one more.
      seed: what drew the order of files.
      tags: whether segments begin with their language's tag line.
      recipe: its name; "" for inputs named on the command line.
      settings: all settings that decide the bytes: of recipe, sources, stages and tokenizer.
      input: fingerprint of the names and sizes of what was read, wherever it lies.
      tokenizer: what made the ids.
      languages: all languages, by index.
      splits: split to language name to amount; languages without files are absent.
      fill: split to share of tokens in rows that are not padding.
      whole: share of the documents that no row's end cuts.
      seen: documents that sources gave, and their bytes.
      dropped: language name to reason to number of documents.
      passed_by: what belongs to no language, or was not read: reason to number.
      stages: stage name to its counters, e.g. {"secrets": {"emails": 2}}.
      licences: SPDX expression to what is kept under it.
      mixture: the loader's defaults for this data (see `Recipe.mixture`).
      warnings: sentences for people.
    """

    format: int
    fingerprint: str
    seq_len: int
    seed: int
    tags: bool
    recipe: str
    settings: dict[str, Any]
    input: str
    tokenizer: TokenizerInfo
    languages: tuple[LanguageInfo, ...]
    splits: dict[str, dict[str, Amount]]
    fill: dict[str, float]
    whole: float
    seen: dict[str, int]
    dropped: dict[str, dict[str, int]]
    passed_by: dict[str, int]
    stages: dict[str, dict[str, int]]
    licences: dict[str, Licence]
    mixture: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def amount(self, split: str, language: str) -> Amount:
        """Returns what a language has in a split; zeros if nothing."""
        return self.splits.get(split, {}).get(language, Amount(0, 0, 0, 0, 0))

    def total(self, split: str) -> Amount:
        """Returns the sums over all languages of a split."""
        amounts = self.splits.get(split, {}).values()
        names = [f.name for f in dataclasses.fields(Amount)]
        return Amount(*(sum(getattr(a, name) for a in amounts) for name in names))

    def dropped_by_reason(self) -> dict[str, int]:
        """Returns reason to number of files, over all languages."""
        sums: dict[str, int] = {}
        for reasons in self.dropped.values():
            for reason, count in reasons.items():
                sums[reason] = sums.get(reason, 0) + count
        return sums

    def language_index(self, name: str) -> int:
        """Returns the index of a language by its name or slug.

        Raises:
          GeexError: no such language.
        """
        for index, language in enumerate(self.languages):
            if name.lower() in (language.name.lower(), language.slug):
                return index
        raise GeexError(
            f"unknown language {name!r}", did_you_mean(name, [x.name for x in self.languages])
        )

    def shard_paths(self, folder: files.Path, split: str, language: str) -> list[pathlib.Path]:
        """Returns the ArrayRecord files of a language in a split, in order."""
        slug = self.languages[self.language_index(language)].slug
        count = self.amount(split, language).shards
        return [
            pathlib.Path(folder) / split / shard_name(slug, number, count)
            for number in range(count)
        ]


def shard_name(slug: str, number: int, count: int) -> str:
    """Returns the file name of a shard."""
    return f"{slug}-{number:05d}-of-{count:05d}.arrayrecord"


def save(manifest: Manifest, folder: files.Path) -> None:
    """Writes FOLDER/manifest.json, whole or not at all."""
    files.write_json(pathlib.Path(folder) / NAME, dataclasses.asdict(manifest))


def load(folder: files.Path) -> Manifest:
    """Reads FOLDER/manifest.json.

    Raises:
      GeexError: there is none, it is damaged, or it is of another format.
    """
    path = pathlib.Path(folder) / NAME
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise GeexError(
            f"no prepared data at {folder} (it has no {NAME})",
            f"make it: geex prepare --input SOURCES --output {folder} --tokenizer TOKENIZER",
        ) from None
    except OSError as error:
        raise GeexError(f"cannot read {path}: {error.strerror}", "check the path") from None
    except ValueError:
        raise GeexError(f"{path} is damaged", "run geex prepare --overwrite again") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise GeexError(
            f"{path} is of another format than {FORMAT}", "run geex prepare --overwrite again"
        )
    try:
        return _typed(value)
    except (KeyError, TypeError, AttributeError):
        raise GeexError(f"{path} is damaged", "run geex prepare --overwrite again") from None


def _typed(value: dict[str, Any]) -> Manifest:
    return Manifest(
        **value
        | {
            "tokenizer": TokenizerInfo(**value["tokenizer"]),
            "languages": tuple(LanguageInfo(**x) for x in value["languages"]),
            "splits": {
                split: {name: Amount(**amount) for name, amount in amounts.items()}
                for split, amounts in value["splits"].items()
            },
            "licences": {name: Licence(**x) for name, x in value["licences"].items()},
            "warnings": tuple(value["warnings"]),
        }
    )
