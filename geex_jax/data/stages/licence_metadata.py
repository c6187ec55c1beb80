"""Licences stated by package metadata: npm, Python, Cargo, Maven, Composer, Debian."""

from __future__ import annotations

import email.parser
import json
import re
import tomllib
from typing import Any

from geex_jax.data.stages import licence_texts, spdx

METADATA = frozenset(
    (
        "package.json", "composer.json", "pyproject.toml", "setup.cfg", "setup.py", "metadata",
        "pkg-info", "cargo.toml", "pom.xml", "copyright", "description",
    )
)  # fmt: skip
_CLASSIFIERS = {
    "MIT License": "MIT",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "zlib/libpng License": "Zlib",
    "The Unlicense (Unlicense)": "Unlicense",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Zope Public License": "ZPL-2.1",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Public Domain": "LicenseRef-public-domain",
}
_CLASSIFIER = re.compile(r"License :: (?:OSI Approved :: )?([^\"'\n\r]+)")
_SETUP = re.compile(r"^\s*license\s*=\s*[\"']?([^\"'\n,]{2,80})", re.M)
_POM = re.compile(r"<license>(.*?)</license>", re.S)
_POM_NAME = re.compile(r"<(?:name|url)>\s*(.*?)\s*</(?:name|url)>", re.S)
_STANZA = re.compile(r"\n[ \t]*\n")


def from_metadata(name: str, text: str) -> str:
    """Returns the SPDX expression that a package's metadata states, or "".

    Args:
      name: the file's name or path, e.g. "package.json" or "debian/copyright".
      text: its content; damaged content gives "".
    """
    base = name.rsplit("/", 1)[-1].lower()
    reader = _READERS.get(base)
    if reader is None:
        return ""
    try:
        return reader(text)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return ""


def _npm(text: str) -> str:
    row = json.loads(text)
    return _npm_value(row.get("license", row.get("licenses", "")))


def _npm_value(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("type", "")
    if isinstance(value, list):
        # npm's and Composer's lists are alternatives.
        found = [x for x in map(_npm_value, value) if x]
        return " OR ".join(dict.fromkeys(found))
    if not isinstance(value, str) or value.upper() in ("UNLICENSED", "") or value[:4] == "SEE ":
        return ""
    return spdx.normalize(value)


def _pyproject(text: str) -> str:
    document = tomllib.loads(text)
    project = document.get("project") or document.get("tool", {}).get("poetry", {})
    stated = project.get("license", "")
    if isinstance(stated, dict):
        stated = stated.get("text", "")
        found = licence_texts.detect(stated) if "\n" in stated else spdx.normalize(stated)
    else:
        found = spdx.normalize(stated)
    return found or _classifiers("\n".join(f"{c}" for c in project.get("classifiers", ())))


def _setup(text: str) -> str:
    match = _SETUP.search(text)
    return (spdx.normalize(match[1]) if match else "") or _classifiers(text)


def _core_metadata(text: str) -> str:
    fields = email.parser.HeaderParser().parsestr(text)
    expression = fields.get("License-Expression") or fields.get("License") or ""
    found = licence_texts.detect(expression) if "\n" in expression else spdx.normalize(expression)
    return found or _classifiers("\n".join(fields.get_all("Classifier") or ()))


def _classifiers(text: str) -> str:
    names = (_CLASSIFIERS.get(found.strip(), "") for found in _CLASSIFIER.findall(text))
    return " OR ".join(dict.fromkeys(name for name in names if name))


def _cargo(text: str) -> str:
    stated = tomllib.loads(text).get("package", {}).get("license", "")
    return spdx.normalize(stated) if isinstance(stated, str) else ""


def _pom(text: str) -> str:
    found = []
    for block in _POM.findall(re.sub(r"<!--.*?-->", "", text, flags=re.S)):
        values = _POM_NAME.findall(block)
        names = [spdx.normalize(v) or licence_texts.detect(v) for v in values]
        found.append(next((n for n in names if n), ""))
    return " OR ".join(dict.fromkeys(f for f in found if f)) if all(found) else ""


def _debian(text: str) -> str:
    """Returns the licence of `Files: *`; of a file in free form, the one it quotes."""
    if "Format:" not in text[:400] or not re.search(r"^Files:", text, re.M):
        return licence_texts.detect(text)
    for stanza in _STANZA.split(text):
        fields = email.parser.HeaderParser().parsestr(stanza.strip("\n"))
        if "*" in (fields.get("Files") or "").split():
            stated = (fields.get("License") or "").split("\n", 1)[0].strip()
            stated = re.sub(r"\s*,?\s+(and|or)\s+", lambda m: f" {m[1]} ", stated)
            return spdx.normalize(stated) or licence_texts.detect(fields.get("License") or "")
    return ""


def _description(text: str) -> str:  # of R
    match = re.search(r"^License:\s*(.+)$", text, re.M)
    stated = re.sub(r"\s*[|+]\s*file LICEN[CS]E", "", match[1]) if match else ""
    stated = re.sub(r"\s*\(\s*>=\s*([\d.]+)\s*\)", r"-\1+", stated)
    return spdx.normalize(stated.replace(" | ", " OR "))


_READERS = {
    "package.json": _npm,
    "composer.json": _npm,
    "pyproject.toml": _pyproject,
    "setup.cfg": _setup,
    "setup.py": _setup,
    "metadata": _core_metadata,
    "pkg-info": _core_metadata,
    "cargo.toml": _cargo,
    "pom.xml": _pom,
    "copyright": _debian,
    "description": _description,
}
