"""Under which licence a file is: its own header first, then what its package says.

Sources call `is_licence_file`, `detect` and `from_metadata` (or fill a `LicenceMap`) and set
`document.licence` to the nearest answer; the stage looks at the file's own header, and keeps what
is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from geex_jax.data.document import Decision, Document
from geex_jax.data.stages import licence_texts, spdx
from geex_jax.data.stages.licence_metadata import METADATA, from_metadata
from geex_jax.data.stages.licence_texts import detect
from geex_jax.data.stages.spdx import PERMISSIVE
from geex_jax.errors import GeexError

HEAD_CHARACTERS = 4096
_LICENCE_FILE = re.compile(
    r"(?:.*[-_.])?(?:licen[cs]es?|copying(?:v\d|\.lesser|\.lib)?|unlicen[cs]e)"
    r"(?:[-_.][\w.+-]*)?\Z",
    re.I,
)
_CODE = re.compile(
    r"\.(?:py|js|ts|java|go|c|h|cc|cpp|hpp|rs|rb|php|html?|css|sh|cs|kt|json)\Z", re.I
)


class Licences:
    """Stage: settles `document.licence`; drops what is not allowed (`licence`, `no_licence`).

    Counts: `from_header`, `from_package`, `from_default`, `unknown`.

    Args:
      allow: SPDX identifiers that are allowed; empty allows all, known or not. `PERMISSIVE` is a
        list for this.
      default: the licence of files that say nothing and lie below no licence file.
    """

    name = "licences"

    def __init__(self, allow: Iterable[str] = (), default: str = ""):
        self.allow = tuple(sorted(set(allow)))
        self.default = default
        for name in (*self.allow, *([default] if default else [])):
            if not spdx.allows(name, [*spdx.names(name), name]):
                raise GeexError(f"{name!r} is no SPDX licence", "write it as in MIT or Apache-2.0")

    def settings(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {"allow": list(self.allow), "default": self.default}

    def __call__(self, document: Document) -> Decision:
        """Reads the header; drops the document if its licence is not allowed."""
        found, where = header(document.text), "header"
        if not found:
            found, where = document.licence, "package"
        if not found:
            found, where = self.default, "default"
        document.licence = found
        count = {f"from_{where}" if found else "unknown": 1}
        note = f"{found} (from its {where})" if found else "no licence found"
        if not self.allow or (found and spdx.allows(found, self.allow)):
            return Decision(True, note=note, counts=count)
        if not found:
            return Decision(False, "no_licence", note, count)
        return Decision(False, "licence", f"{note} is not allowed", count)


def header(text: str) -> str:
    """Returns the licence that the head of a source file states, or ""."""
    return licence_texts.in_header(text[:HEAD_CHARACTERS])


def is_licence_file(path: str) -> bool:
    """Tells whether a file's name says that it states the licence of what is around it."""
    name = path.rsplit("/", 1)[-1]
    if name.lower() in METADATA or path.lower().endswith("debian/copyright"):
        return True
    if name.lower() == "copyright" and "/doc/" in f"/{path}":  # of an installed Debian package
        return True
    return bool(_LICENCE_FILE.match(name)) and not _CODE.search(name)


class LicenceMap:
    """Licences of folders: `add` each licence file of a tree, then ask for any path of it.

    A LICENSE text counts before metadata of the same folder, unless it was not recognised. Several
    LICENSE texts in a folder (LICENSE-MIT, LICENSE-APACHE) are alternatives if the metadata says
    so, and else all apply. A Debian copyright file holds for the whole archive it lies in.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._metadata: dict[str, str] = {}

    def add(self, path: str, text: str) -> str:
        """Takes the content of a licence file; returns what it was found to say."""
        folder, _, name = path.rpartition("/")
        if name.lower() in METADATA:
            found = from_metadata(name, text)
            if found:
                self._metadata[_installed_root(folder)] = found
            return found
        found = detect(text)
        if found:
            self._texts[folder] = spdx.both(self._texts.get(folder, ""), found)
        return found

    def of(self, path: str) -> str:
        """Returns the licence nearest above a path, or ""."""
        folder = path
        while folder:
            folder = folder.rpartition("/")[0]
            texts, metadata = self._texts.get(folder, ""), self._metadata.get(folder, "")
            # "MIT OR Apache-2.0" explains why there are two texts.
            if texts and metadata and " OR " in metadata:
                return metadata
            if texts or metadata:
                return texts or metadata
        return ""

    def __len__(self) -> int:
        return len(self._texts.keys() | self._metadata.keys())


def _installed_root(folder: str) -> str:
    """Returns the folder that metadata speak for: that of the package they are filed in.

    `usr/share/doc/NAME/copyright` and `debian/copyright` speak for the whole archive or tree,
    `site-packages/NAME.dist-info/METADATA` for the folder above.
    """
    match = re.search(r"(?:^|/)usr/share/doc/[^/]+\Z", folder)
    if match:
        return folder[: match.start()]
    parent, _, last = folder.rpartition("/")
    if last == "debian" or last.endswith((".dist-info", ".egg-info")):
        return parent
    return folder


__all__ = [
    "PERMISSIVE",
    "LicenceMap",
    "Licences",
    "detect",
    "from_metadata",
    "header",
    "is_licence_file",
]
