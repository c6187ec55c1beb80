"""Folders and git checkouts as a source."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from geex_jax import files
from geex_jax.data import storage
from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.sources.archives import ArchiveReader, is_archive
from geex_jax.data.sources.licence_files import FolderLicences
from geex_jax.data.sources.limits import Limits
from geex_jax.data.sources.listing import locator
from geex_jax.data.sources.walk import Found, Walker, walk_remote
from geex_jax.errors import GeexError

PART_FILES = 256
PART_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class TreeSource:
    """The source files below folders, in the order of a walk.

    Beside what it passes by, `parts` tells how much it has seen: `files` (with their bytes) and
    `folders`.

    Attributes:
      name: of the source in the recipe.
      roots: folders or single files; a folder is visited once, also when they overlap. Or one
        remote folder.
      exclude: names of folders, below the roots, that are not entered.
      gitignore: leave out what `.gitignore` files say, those above a root included.
      follow_links: enter folders behind symbolic links.
      archives: read the archives in the tree too, a part each.
      licence: SPDX expression of all documents. Without it the licence files and package metadata
        of a local tree are asked, from a document's folder upwards.
      left_out: a folder to leave out wherever it lies (the output); not a setting.
      limits: bounds on what is read.
    """

    name: str
    roots: tuple[str, ...]
    exclude: tuple[str, ...] = ()
    gitignore: bool = True
    follow_links: bool = False
    archives: bool = False
    licence: str = ""
    left_out: str | None = None
    limits: Limits = dataclasses.field(default_factory=Limits)

    def __post_init__(self) -> None:
        self.limits.check()
        if not self.roots:
            raise GeexError(f"source {self.name} has no folder", "name one")
        if len(self.roots) > 1 and any(storage.is_remote(root) for root in self.roots):
            raise GeexError(f"source {self.name} mixes remote folders", "make each its own source")

    def settings(self) -> dict[str, Any]:
        """Returns what decides the documents, but for where the folders lie."""
        return {
            "kind": "tree",
            "name": self.name,
            "exclude": sorted(self.exclude),
            "gitignore": self.gitignore,
            "follow_links": self.follow_links,
            "archives": self.archives,
            "licence": self.licence,
            "limits": dataclasses.asdict(self.limits),
        }

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Yields parts of up to 256 files, and what is passed by.

        Raises:
          GeexError: a root does not exist.
        """
        counts: collections.Counter[str] = collections.Counter()
        listed = self._remote(counts) if storage.is_remote(self.roots[0]) else self._local(counts)
        block = _Block(index)
        for item in listed:
            if isinstance(item, Passed):
                yield item
                continue
            number, path, size, stamp, language, ask = item
            if language < 0 and not ask:
                where = locator(root=number, archive=path)
                yield from block.finish()
                yield Part(index, where, size, stamp)
                continue
            # A root given as a single file has the path "".
            yield from block.add(number, path, min(size, self.limits.max_bytes), stamp,
                                 (language, ask))  # fmt: skip
        yield from block.finish()
        yield Passed("files", "", counts["files"], counts["bytes"])
        for reason in ("folders", "unknown_language", "empty_folder", "ignored_remote"):
            if counts[reason]:
                yield Passed(reason.removesuffix("_remote"), "", counts[reason])

    def _local(
        self, counts: collections.Counter[str]
    ) -> Iterator[tuple[int, str, int, str, int, bool] | Passed]:
        roots = [os.path.abspath(storage.local(root)) for root in self.roots]
        for root in roots:
            if not os.path.lexists(root):
                raise GeexError(f"input {root} does not exist", "check the path")
        walker = Walker(
            exclude=self.left_out,
            names=self.exclude,
            follow_links=self.follow_links,
            ignore=self.gitignore,
            also=is_archive if self.archives else None,
        )

        def shorten(number: int, item: Found | Passed) -> Any:
            path = os.path.relpath(item.path, roots[number]) if item.path else ""
            short = "" if path == "." else path
            if isinstance(item, Passed):
                return item._replace(path=self._shown(number, short))
            stamp = f"{item.size}:{item.mtime_ns}"
            return number, short, item.size, stamp, item.language, item.ask_content

        last = 0
        for last, root in enumerate(roots):
            for item in walker.root(root):
                yield shorten(last, item)
        for item in walker.linked():  # paths through links of any root: named from the first
            number = next((i for i, r in enumerate(roots) if item.path.startswith(r + "/")), last)
            yield shorten(number, item)
        counts.update(walker.counts)

    def _remote(
        self, counts: collections.Counter[str]
    ) -> Iterator[tuple[int, str, int, str, int, bool] | Passed]:
        root = self.roots[0]
        if not storage.exists(root):
            raise GeexError(f"input {root} does not exist", "check the path")
        also = is_archive if self.archives else None
        listed = walk_remote(root, counts, names=self.exclude, ignore=self.gitignore, also=also)
        for item in listed:
            if isinstance(item, Passed):
                yield item
            else:
                entry, language, ask = item
                yield 0, entry.path, entry.size, entry.stamp, language, ask

    def _shown(self, number: int, path: str) -> str:
        """Returns the path of a document: from the root, whose name is told where there are more.

        Roots of the same name are told apart by their number.
        """
        names = [os.path.basename(root.rstrip("/")) for root in self.roots]
        if len(names) == 1:
            return path or names[0]
        name = names[number]
        if name in names[:number]:
            name = f"{name}~{number}"
        return f"{name}/{path}" if path else name

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads the files of a part."""
        where = json.loads(part.locator)
        if "archive" in where:
            yield from self._archive(where["root"], where["archive"])
            return
        root = self._path(where["root"], "")
        local = not storage.is_remote(root) and os.path.isdir(root)
        licences = FolderLicences(root) if local and not self.licence else None
        for path, language, ask in where["files"]:
            shown = self._shown(where["root"], path)
            try:
                data = storage.read(self._path(where["root"], path), self.limits.max_bytes + 1)
            except OSError:
                yield Passed("unreadable", shown)
                continue
            if len(data) > self.limits.max_bytes:
                yield Passed("too_large", shown, 1, len(data))
                continue
            licence = licences.of(path) if licences else self.licence
            yield Document(
                self.name, shown, data, language=language, ask_content=ask, licence=licence
            )

    def _path(self, number: int, path: str) -> str:
        root = self.roots[number]
        root = root if storage.is_remote(root) else os.path.abspath(storage.local(root))
        return storage.join(root, path) if path else root

    def _archive(self, number: int, path: str) -> Iterator[Document | Passed]:
        reader = ArchiveReader(self.name, self.limits, self.exclude, self.licence)
        shown = self._shown(number, path)
        try:
            file = storage.open_read(self._path(number, path))
        except OSError:
            yield Passed("unreadable", shown)
            return
        with file:
            yield from reader.read(file, shown)


class _Block:
    """Gathers files into parts; files of different roots do not mix."""

    def __init__(self, index: int):
        self.index = index
        self.clear(0)

    def clear(self, root: int) -> None:
        self.root, self.files, self.stamps, self.bytes = root, [], [], 0

    def add(
        self, root: int, path: str, size: int, stamp: str, language: tuple[int, bool]
    ) -> Iterator[Part]:
        full = len(self.files) >= PART_FILES or (self.files and self.bytes + size > PART_BYTES)
        if full or root != self.root:
            yield from self.finish()
            self.clear(root)
        self.files.append([path, *language])
        self.stamps.append(stamp)
        self.bytes += size

    def finish(self) -> Iterator[Part]:
        if self.files:
            where = locator(root=self.root, files=self.files)
            yield Part(self.index, where, self.bytes, files.fingerprint(*self.stamps))
        self.clear(self.root)
