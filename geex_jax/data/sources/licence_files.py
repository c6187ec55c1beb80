"""The licence files and package metadata around a source's documents."""

from __future__ import annotations

import os

from geex_jax.data.sources.gitignore import checkout
from geex_jax.data.stages.licences import LicenceMap, is_licence_file

MAX_BYTES = 64 << 10  # a longer file is a list of notices; its head says what counts


class FolderLicences:
    """What the folders of a local tree say, from a document's own up to the root.

    Folders are looked at when they are first asked for, and once.

    Args:
      root: the folder that the source reads. Nothing above it is looked at, unless it lies in a
        checkout, whose top says what holds for all of it.
    """

    def __init__(self, root: str):
        self._root = next(iter(checkout(root)), root)
        self._below = os.path.relpath(root, self._root)
        self._seen: set[str] = set()
        self._map = LicenceMap()

    def of(self, path: str) -> str:
        """Returns the SPDX expression that holds for a file, by its path below the root, or ""."""
        path = os.path.normpath(os.path.join(self._below, path))
        folder = os.path.dirname(path)
        while True:
            self._look(folder)
            if not folder:
                break
            folder = os.path.dirname(folder)
        return self._map.of(f"/{path}")

    def _look(self, folder: str) -> None:
        if folder in self._seen:
            return
        self._seen.add(folder)
        try:
            names = sorted(os.listdir(os.path.join(self._root, folder)))
        except OSError:
            return
        for name in names:
            if name == "debian":  # a source package keeps its copyright file there
                self._look(os.path.join(folder, name))
            path = f"/{folder}/{name}" if folder else f"/{name}"
            if not is_licence_file(path):
                continue
            full = os.path.join(self._root, folder, name)
            if os.path.isfile(full):  # never waits on a pipe
                try:
                    with open(full, "rb") as file:
                        text = file.read(MAX_BYTES).decode("utf-8", "replace")
                except OSError:
                    continue
                self._map.add(path, text)
