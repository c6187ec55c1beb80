"""The files that an input names: one file, a folder's, or those that match a pattern."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from geex_jax.data import storage
from geex_jax.data.document import Part, Passed
from geex_jax.data.sources.limits import Limits
from geex_jax.data.storage import Entry
from geex_jax.errors import GeexError


@dataclasses.dataclass(frozen=True)
class FileSource:
    """What sources of one or more files have in common.

    Attributes:
      name: of the source in the recipe; the first part of nothing, for reports.
      spec: a file, a folder, or a pattern; local or remote.
      licence: SPDX expression of all documents that do not tell their own.
      limits: bounds on what is read.
    """

    name: str
    spec: str
    licence: str = ""
    limits: Limits = dataclasses.field(default_factory=Limits)

    patterns = ("*",)

    def __post_init__(self) -> None:
        self.limits.check()

    def settings(self) -> dict[str, Any]:
        """Returns what decides the documents, but for where the files lie."""
        kept = dataclasses.asdict(self)
        del kept["spec"]
        return {"kind": type(self).__name__, **json.loads(json.dumps(kept))}

    def entries(self) -> list[Entry]:
        """Returns the files, sorted.

        Raises:
          GeexError: there are none.
        """
        return list_files(self.spec, self.patterns)

    def path_of(self, name: str) -> str:
        """Returns where a file of `entries` lies."""
        return storage.join(base_of(self.spec), name) if name else self.spec

    def shown(self, name: str) -> str:
        """Returns the path that documents of a file have."""
        return name or os.path.basename(self.spec.rstrip("/"))


def base_of(spec: str) -> str:
    """Returns the folder that the names of `list_files` begin at."""
    if not storage.has_wildcard(spec):
        return spec
    parts = spec.split("/")
    plain = next(i for i, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return "/".join(parts[:plain]) or ("/" if spec.startswith("/") else ".")


def list_files(spec: str, patterns: tuple[str, ...]) -> list[Entry]:
    """Returns the files that an input names, sorted; the path "" stands for the input itself.

    Args:
      spec: a file, a folder or a pattern.
      patterns: of the names to take in a folder.

    Raises:
      GeexError: there is nothing of this name, or nothing fitting in it.
    """
    if storage.has_wildcard(spec):
        base, found = base_of(spec), []
        for path in storage.glob(spec):
            try:
                size, stamp = storage.stat(path)
            except OSError:
                continue  # gone since
            found.append(Entry(_below(path, base), size, stamp))
    elif storage.is_folder(spec):
        found = storage.find(spec, patterns)
    else:
        try:
            found = [Entry("", *storage.stat(spec))]
        except OSError as error:
            raise GeexError(
                f"cannot read input {spec} ({error.strerror or error})", "check the path"
            ) from None
    if not found:
        raise GeexError(f"input {spec} holds no {' or '.join(patterns)}", "check the path")
    return found


def _below(path: str, base: str) -> str:
    if base == ".":
        return path.removeprefix("./")
    return path[len(base) :].lstrip("/") if path.startswith(base) else path


def locator(**values: Any) -> str:
    """Returns the JSON text of a part's locator."""
    return json.dumps(values, separators=(",", ":"))


def whole_files(source: FileSource, index: int) -> Iterator[Part | Passed]:
    """Yields a part for each file."""
    for entry in source.entries():
        yield Part(index, locator(file=entry.path), entry.size, entry.stamp)
