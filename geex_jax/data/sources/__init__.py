"""Where documents come from: `open_source` opens what a recipe or a command line names."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

from geex_jax.data import storage
from geex_jax.data.document import Source
from geex_jax.data.sources.walk import VERSION_CONTROL, Found, Walk, walk
from geex_jax.errors import GeexError, did_you_mean

__all__ = [
    "KINDS",
    "VERSION_CONTROL",
    "Found",
    "Walk",
    "kind_of",
    "open_source",
    "walk",
]

# Modules are imported when a source of their kind is opened: pyarrow is not everyone's.
KINDS = {
    "tree": ("tree", "TreeSource"),
    "archive": ("archives", "ArchiveSource"),
    "jsonl": ("tables", "JsonlSource"),
    "parquet": ("tables", "ParquetSource"),
    "official": ("official", "OfficialSource"),
    "instructions": ("instructions", "InstructionSource"),
    "xlcost": ("xlcost", "XlcostSource"),
    "packages": ("packages", "PackageSource"),
}
_JSONL = (".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".ndjson.gz", ".ndjson.zst",
          ".json.gz", ".json.zst", ".jsonl.xz", ".jsonl.bz2")  # fmt: skip


def kind_of(spec: str) -> str:
    """Returns the kind of source that an input's name tells; a folder is a tree.

    Raises:
      GeexError: the input does not exist.
    """
    from geex_jax.data.sources.archives import is_archive

    name = spec.rstrip("/").rsplit("/", 1)[-1].lower()
    if name.endswith((".parquet", ".parq")):
        return "parquet"
    if name.endswith(_JSONL):
        return "jsonl"
    if is_archive(name) and not storage.is_folder(spec):
        return "archive"
    if not storage.has_wildcard(spec) and not storage.exists(spec):
        raise GeexError(f"input {spec} does not exist", "check the path")
    return "tree"


def open_source(spec: str | os.PathLike[str], *, name: str = "", kind: str = "", **options: Any
                ) -> Source:  # fmt: skip
    """Opens an input as a source of documents.

    Args:
      spec: a folder, a file or a pattern ("pool/*.deb"), plain or remote ("gs://bucket/x").
      name: of the source in reports; the last part of `spec` if left out.
      kind: "tree", "archive", "jsonl", "parquet", "official", "instructions", "xlcost"; told by
        the name of the input if left out. The official and instruction rows are JSONL too, so
        they must be asked for.
      **options: of the source's class; `limits` may be a dict.

    Raises:
      GeexError: no such input, kind or option, or a package that it needs is missing.
    """
    from geex_jax.data.sources.limits import Limits

    spec = os.fspath(spec)
    kind = kind or kind_of(spec)
    if kind not in KINDS:
        raise GeexError(f"unknown kind of source {kind!r}", did_you_mean(kind, KINDS))
    module, class_name = KINDS[kind]
    made = getattr(importlib.import_module(f"{__name__}.{module}"), class_name)
    known = {field.name for field in dataclasses.fields(made)} - {"name", "spec", "roots"}
    for option in options:
        if option not in known:
            raise GeexError(
                f"a source of kind {kind} has no option {option!r}", did_you_mean(option, known)
            )
    if isinstance(options.get("limits"), dict):
        bounds = {field.name for field in dataclasses.fields(Limits)}
        for bound in options["limits"]:
            if bound not in bounds:
                raise GeexError(f"limits have no {bound!r}", did_you_mean(bound, bounds))
        options["limits"] = Limits(**options["limits"])
    name = name or spec.rstrip("/").rsplit("/", 1)[-1] or "root"
    where = {"roots": (spec,)} if kind == "tree" else {"spec": spec}
    return made(name=name, **where, **options)
