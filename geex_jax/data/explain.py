"""What each stage makes of one file, and why: `geex prepare --explain FILE`."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from geex_jax import files
from geex_jax.data import splits
from geex_jax.data.document import Document, Part, Passed, Source
from geex_jax.data.journal import DUPLICATES
from geex_jax.data.phases.corpus import Corpus, Listing
from geex_jax.data.phases.layout import EXACT
from geex_jax.data.phases.read import content_hash, decide
from geex_jax.data.recipe import Recipe
from geex_jax.data.sources.tree import TreeSource
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES


def explain(recipe: Recipe, file: files.Path, output: files.Path | None = None) -> str:
    """Returns, line by line, what a run does with one file or row.

    Args:
      recipe: the corpus.
      file: a path on this machine, or the path of a document as reports show it
        ("pool/x.deb/data.tar/usr/lib/x.py"); its end is enough.
      output: prepared data of this recipe, which know whether it was a copy.

    Raises:
      GeexError: no source gives such a document.
    """
    corpus = Corpus(recipe)
    wanted = os.fspath(file)
    passed: list[str] = []
    for source, part in _likely(corpus, wanted):
        for item in source.read(part):
            if isinstance(item, Document) and _is(item, source, wanted):
                return "\n".join(_judge(item, corpus, output))
            if isinstance(item, Passed) and item.path and _same_end(item.path, wanted):
                passed.append(f"{item.path}: not read: {item.reason}")
    if passed:
        return "\n".join(dict.fromkeys(passed))
    raise GeexError(
        f"no source gives {wanted!r}",
        "it is excluded, ignored by a .gitignore, no source file by its name, or not there: "
        "name it as below --input",
    )


def _likely(corpus: Corpus, wanted: str) -> Iterator[tuple[Source, Part]]:
    """Yields all parts, those that name the file, or an archive that it is in, first."""
    names = [name for name in wanted.split("/") if name][-4:]
    others: list[Part] = []
    for part in corpus.parts(Listing()):
        source = corpus.sources[part.source]
        if names and (json.dumps(names[-1])[1:-1] in part.locator or _is_root(source, names[-1])):
            yield source, part
        else:
            others.append(part)
    others.sort(key=lambda part: not any(name in part.locator for name in names))
    for part in others:
        # A tree's locators name every file: the others cannot have it, but for their archives.
        if not isinstance(corpus.sources[part.source], TreeSource) or "archive" in part.locator:
            yield corpus.sources[part.source], part


def _is(document: Document, source: Source, wanted: str) -> bool:
    if isinstance(source, TreeSource) and os.path.exists(wanted):
        target = os.path.realpath(wanted)
        return any(
            os.path.realpath(candidate) == target
            for root in source.roots
            for candidate in (os.path.join(root, document.path), root)
            if os.path.isfile(candidate) and _name(candidate) == _name(document.path)
        ) or (len(source.roots) > 1 and target.endswith("/" + document.path))
    return _same_end(document.path, wanted)


def _is_root(source: Source, name: str) -> bool:
    """Tells whether a tree has a root of that name, a single file: its locator has no name."""
    return isinstance(source, TreeSource) and any(_name(root) == name for root in source.roots)


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _same_end(path: str, wanted: str) -> bool:
    return path == wanted or path.endswith("/" + wanted.lstrip("./"))


def _judge(document: Document, corpus: Corpus, output: files.Path | None) -> Iterator[str]:
    yield f"{document.source}: {document.path!r}, {len(document.data) or len(document.text)} bytes"
    for stage in corpus.stages:
        before = document.text
        decision = decide(stage, document)
        counts = ", ".join(f"{name} {count}" for name, count in (decision.counts or {}).items())
        changed = " (text changed)" if before and document.text != before else ""
        note = decision.note + changed + (f" [{counts}]" if counts else "")
        if not decision.keep:
            yield f"{stage.name:<14} drop  {decision.reason}: {note}"
            return
        yield f"{stage.name:<14} keep  {note}"
    sha256, size = content_hash(document.text.encode(), document.prompt)
    yield f"{'dedup':<14} {_copy(sha256, output)}"
    split = splits.split_of(sha256.hex(), corpus.recipe.validation_fraction)
    language = LANGUAGES[document.language].name
    yield f"{'split':<14} {split} of {language}, by its hash {sha256.hex()[:16]}, {size} bytes"


def _copy(sha256: bytes, output: files.Path | None) -> str:
    if output is None:
        return "?     known of prepared data only: add --output DATA"
    path = pathlib.Path(output) / DUPLICATES
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return f"?     known after the run: {output} is not prepared yet"
    mine = found[found["sha256"] == np.void(sha256)]
    if not len(mine):
        return "keep  no copy of an earlier document"
    if np.all(mine["fate"] == EXACT):
        return "one   several documents have this text: the first in order is kept, others drop"
    return "drop  near_duplicate of an earlier document (clusters: geex data report)"
