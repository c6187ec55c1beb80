"""The lock file of a recipe: which version of each package, and the SHA-256 of its files."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError

FORMAT = 1
DEBIAN, DEBIAN_SOURCE, NPM = "debian", "debian-source", "npm"
KINDS = (DEBIAN, DEBIAN_SOURCE, NPM)


@dataclasses.dataclass(frozen=True)
class File:
    """One archive of a package.

    Attributes:
      name: its file name, without folders.
      place: where the registry keeps it: a path below the mirror's or the registry's address,
        behind the archive's name for Debian ("debian/pool/main/z/zlib/zlib_1.2.13.orig.tar.gz").
      size: bytes; 0 while unknown.
      sha256: hex digits; "" while unknown.
      integrity: npm's own checksum ("sha512-..."); "" for Debian.
    """

    name: str
    place: str
    size: int = 0
    sha256: str = ""
    integrity: str = ""


@dataclasses.dataclass(frozen=True)
class Pinned:
    """What a package's name stands for."""

    version: str
    files: tuple[File, ...]


def split(spec: str) -> tuple[str, str]:
    """Returns (kind, name) of a spec: "debian:NAME", "debian-source:NAME", "npm:NAME@VERSION".

    Raises:
      GeexError: it has another form.
    """
    kind, colon, name = spec.partition(":")
    if kind not in KINDS or not colon or not name or name.startswith("-"):
        raise GeexError(
            f"{spec!r} names no package",
            "write debian:NAME, debian-source:NAME or npm:NAME@VERSION",
        )
    return kind, name


class Lock:
    """The packages pinned so far. `set` writes the file anew, whole or not at all."""

    def __init__(self, path: files.Path):
        self.path = pathlib.Path(path)
        self.packages: dict[str, Pinned] = {}
        try:
            text = self.path.read_text()
        except FileNotFoundError:
            return
        except OSError as error:
            raise GeexError(f"cannot read {self.path}: {error.strerror}") from None
        try:
            self.packages = _parse(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise GeexError(
                f"{self.path} is no lock file of packages", "restore it, or remove it to pin anew"
            ) from None

    def set(self, spec: str, pinned: Pinned) -> None:
        """Pins a package.

        Raises:
          GeexError: the file cannot be written.
        """
        if self.packages.get(spec) == pinned:
            return
        self.packages[spec] = pinned
        packages = {
            spec: {"version": p.version, "files": [_plain(file) for file in p.files]}
            for spec, p in self.packages.items()
        }
        try:
            files.write_json(self.path, {"format": FORMAT, "packages": packages})
        except OSError as error:
            raise GeexError(
                f"cannot write the lock file {self.path}: {error.strerror}",
                "copy the recipe into a folder of yours and name it by its path",
            ) from None


def _plain(file: File) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(file).items() if value}


def _parse(value: dict[str, Any]) -> dict[str, Pinned]:
    if value["format"] != FORMAT:
        raise ValueError("format")
    found = {}
    for spec, entry in value["packages"].items():
        kept = tuple(File(**file) for file in entry["files"])
        # A lock file decides names in the cache: none may lead out of it.
        if not kept or any("/" in f.name or f.name in ("", ".", "..") for f in kept):
            raise ValueError("name")
        found[spec] = Pinned(entry["version"], kept)
    return found
