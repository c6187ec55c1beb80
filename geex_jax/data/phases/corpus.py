"""A recipe, opened: its sources, its stages, what they say of themselves, and their parts."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from geex_jax.data import stages as all_stages
from geex_jax.data.dedup import minhash
from geex_jax.data.document import Part, Passed, Source, Stage
from geex_jax.data.recipe import Recipe, SourceSpec
from geex_jax.data.sources import open_source
from geex_jax.data.sources.tree import TreeSource
from geex_jax.errors import GeexError


@dataclasses.dataclass
class Listing:
    """What the sources list.

    Attributes:
      input: fingerprint of names and sizes, wherever they lie.
      state: the same with times: tells whether the input changed since a kill.
      parts: how many.
      sources: the source of each part.
      bytes: bytes of each part.
      passed: what sources passed by while listing: reason to [number, bytes].
    """

    input: str = ""
    state: str = ""
    parts: int = 0
    sources: list[int] = dataclasses.field(default_factory=list)
    bytes: list[int] = dataclasses.field(default_factory=list)
    passed: dict[str, list[int]] = dataclasses.field(default_factory=dict)


class Corpus:
    """Opens everything that a recipe names, so that mistakes are told before work begins.

    Args:
      recipe: the recipe.
      output: a folder to leave out of trees.

    Raises:
      GeexError: a setting is out of range, a source or stage does not open.
    """

    def __init__(self, recipe: Recipe, output: pathlib.Path | None = None):
        recipe.check()
        self.recipe = recipe
        self.stages: list[Stage] = all_stages.build(stage_settings(recipe))
        names = recipe.names()
        self.sources: list[Source] = [
            _open(spec, name, output) for spec, name in zip(recipe.sources, names, strict=True)
        ]

    def settings(self) -> dict[str, Any]:
        """Returns, as JSON values, all that decides the documents and their rows."""
        found = self.recipe.settings() | {
            "sources": [source.settings() for source in self.sources],
            "stages": {stage.name: stage.settings() for stage in self.stages},
        }
        if self.recipe.dedup.near:
            found["signatures"] = minhash.algorithm()
        return json.loads(json.dumps(found))  # tuples as they come back from a file

    def parts(self, listing: Listing) -> Iterator[Part]:
        """Yields the parts of all sources in order, and fills `listing` on the way."""
        names, states = hashlib.sha256(), hashlib.sha256()
        passed: collections.defaultdict[str, list[int]] = collections.defaultdict(lambda: [0, 0])
        for index, source in enumerate(self.sources):
            for item in source.parts(index):
                if isinstance(item, Passed):
                    passed[item.reason][0] += item.count
                    passed[item.reason][1] += item.bytes
                    continue
                line = json.dumps([item.source, item.locator, item.bytes]).encode()
                names.update(line)
                states.update(line + item.stamp.encode("utf-8", "replace"))
                listing.parts += 1
                listing.sources.append(item.source)
                listing.bytes.append(item.bytes)
                yield item
        listing.passed = dict(sorted(passed.items()))
        listing.input, listing.state = names.hexdigest()[:16], states.hexdigest()[:16]

    def listing(self) -> Listing:
        """Lists everything."""
        listing = Listing()
        for _ in self.parts(listing):
            pass
        return listing

    def where(self) -> str:
        """Returns the inputs, for messages."""
        found = []
        for spec in self.recipe.sources:
            found += [spec.path] if isinstance(spec.path, str) else spec.path
        return ", ".join(found)


def stage_settings(recipe: Recipe) -> dict[str, Any]:
    """Returns the settings of the stages, the recipe's languages put in."""
    settings = dict(recipe.stages)
    language = settings.get("language", {})
    if recipe.languages:
        if language is None:
            raise GeexError(
                "the recipe chooses languages and switches the language stage off",
                "leave one of the two out",
            )
        settings["language"] = dict(language) | {"languages": recipe.language_names()}
    return settings


def _open(spec: SourceSpec, name: str, output: pathlib.Path | None) -> Source:
    options = dict(spec.options)
    if isinstance(spec.path, str):
        source = open_source(spec.path, name=name, kind=spec.kind, **options)
    else:
        head, *_ = spec.path
        source = open_source(head, name=name, kind="tree", **options)
        assert isinstance(source, TreeSource)
        source = dataclasses.replace(source, roots=spec.path)
    if isinstance(source, TreeSource) and output is not None:
        source = dataclasses.replace(source, left_out=os.path.realpath(output))
    return source
