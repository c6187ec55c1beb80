"""A Debian or npm package as a source: fetched when its parts are listed, read as an archive."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Iterator, Sequence
from typing import Any

from geex_jax.data.document import Document, Part, Passed
from geex_jax.data.packages import store
from geex_jax.data.packages.lock import Lock, Pinned
from geex_jax.data.sources.archives import ArchiveReader
from geex_jax.data.sources.limits import Limits
from geex_jax.errors import GeexError

_UNPACKED = 5  # code is about as many times as large as its compressed archive


@dataclasses.dataclass(frozen=True)
class PackageSource:
    """One package.

    Attributes:
      name: of the source in the recipe.
      spec: "debian:NAME", "debian-source:NAME" (upstream's tarball), "npm:NAME@VERSION".
      lock: path of the lock file with its version and checksums.
      licence: SPDX expression of the package, where its files say nothing else.
      only: patterns of paths; what matches none of them is passed by (`excluded`).
      without: patterns of paths that are passed by as well.
      limits: bounds of what is unpacked.
    """

    name: str
    spec: str
    lock: str = ""
    licence: str = ""
    only: Sequence[str] = ()
    without: Sequence[str] = ()
    limits: Limits = dataclasses.field(default_factory=Limits)

    def settings(self) -> dict[str, Any]:
        """Returns what decides the documents: the versions that are pinned."""
        pinned = self._pinned()
        return {
            "kind": "packages",
            "package": self.spec,
            "version": pinned.version,
            "sha256": [file.sha256 for file in pinned.files],
            "licence": self.licence,
            "only": list(self.only),
            "without": list(self.without),
            "limits": dataclasses.asdict(self.limits),
        }

    def parts(self, index: int) -> Iterator[Part | Passed]:
        """Fetches the package if need be; each of its archives is a part.

        Raises:
          GeexError: it cannot be found or fetched, or is not the one pinned.
        """
        pinned = self._pinned()
        for number, file in enumerate(pinned.files):
            locator = json.dumps({"file": number, "sha256": file.sha256})
            yield Part(index, locator, file.size * _UNPACKED, file.sha256)

    def read(self, part: Part) -> Iterator[Document | Passed]:
        """Reads one archive."""
        wanted = json.loads(part.locator)
        # On another machine than the one that listed the parts it may have to be fetched again.
        pinned = self._pinned()
        file = pinned.files[wanted["file"]]
        path = store.paths_of(self.spec, pinned)[wanted["file"]]
        if file.sha256 != wanted["sha256"]:
            yield Passed("changed", file.name)
            return
        reader = ArchiveReader(self.name, self.limits, licence=self.licence)
        excluded = 0
        with open(path, "rb") as stream:
            for item in reader.read(stream, file.name):
                if isinstance(item, Document) and self._left_out(item.path):
                    excluded += 1
                else:
                    yield item
        if excluded:
            yield Passed("excluded", file.name, excluded)

    def _left_out(self, path: str) -> bool:
        def matches(patterns: Sequence[str]) -> bool:
            return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

        return (bool(self.only) and not matches(self.only)) or matches(self.without)

    def _pinned(self) -> Pinned:
        if not self.lock:
            raise GeexError(
                f"package {self.spec} has no lock file", 'give its path: options={"lock": PATH}'
            )
        lock = Lock(self.lock)
        store.fetch_all([self.spec], lock)
        return lock.packages[self.spec]
