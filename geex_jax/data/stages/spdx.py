"""SPDX licence expressions: AND, OR, WITH, brackets; and whether a list of licences allows one."""

from __future__ import annotations

import re
from collections.abc import Collection

# Licences that allow use in any product, given attribution at most.
PERMISSIVE: tuple[str, ...] = (
    "0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-1-Clause", "BSD-2-Clause",
    "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0",
    "BlueOak-1.0.0", "CC0-1.0", "FSFAP", "HPND", "ICU", "ISC", "Libpng", "MIT", "MIT-0", "MS-PL",
    "NCSA", "PHP-3.01", "PSF-2.0", "PostgreSQL", "Python-2.0", "Ruby", "Unicode-3.0",
    "Unicode-DFS-2016", "Unlicense", "UPL-1.0", "W3C", "WTFPL", "X11", "Zlib", "ZPL-2.1",
)  # fmt: skip

# What people and packages write instead of an identifier, in lower case without "license".
_ALIASES = {
    "apache": "Apache-2.0", "apache 2": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0", "apache2": "Apache-2.0", "asl 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0", "apache software": "Apache-2.0",
    "apache, version 2.0": "Apache-2.0", "apache version 2.0": "Apache-2.0",
    "expat": "MIT", "mit/expat": "MIT", "mit/x11": "MIT", "x11/mit": "MIT", "mit license": "MIT",
    "bsd": "BSD-3-Clause", "new bsd": "BSD-3-Clause", "bsd-3": "BSD-3-Clause",
    "bsd 3-clause": "BSD-3-Clause", "3-clause bsd": "BSD-3-Clause", "modified bsd": "BSD-3-Clause",
    "bsd-3-clause": "BSD-3-Clause", "bsd-2": "BSD-2-Clause", "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause", "2-clause bsd": "BSD-2-Clause", "freebsd": "BSD-2-Clause",
    "boost": "BSL-1.0", "bsl": "BSL-1.0", "boost-1.0": "BSL-1.0", "psf": "PSF-2.0",
    "psf-2": "PSF-2.0", "psfl": "PSF-2.0", "python software foundation": "PSF-2.0",
    "python": "PSF-2.0", "python-2": "PSF-2.0", "public domain": "LicenseRef-public-domain",
    "public-domain": "LicenseRef-public-domain", "cc0": "CC0-1.0", "unlicense": "Unlicense",
    "isc license": "ISC", "iscl": "ISC", "zlib/libpng": "Zlib", "zlib": "Zlib", "mpl": "MPL-2.0",
    "mpl 2.0": "MPL-2.0", "mozilla public 2.0": "MPL-2.0", "artistic": "Artistic-1.0",
    "ruby": "Ruby", "gpl": "GPL-2.0-or-later", "gpl-1": "GPL-1.0-only",
    "gpl-1+": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later",
    "gplv2": "GPL-2.0-only", "gplv2+": "GPL-2.0-or-later", "gpl-3": "GPL-3.0-only",
    "gpl-3+": "GPL-3.0-or-later", "gplv3": "GPL-3.0-only", "gplv3+": "GPL-3.0-or-later",
    "gpl-2.0+": "GPL-2.0-or-later", "gpl-3.0+": "GPL-3.0-or-later", "lgpl": "LGPL-2.1-or-later",
    "lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later", "lgpl-2.1": "LGPL-2.1-only",
    "lgpl-2.1+": "LGPL-2.1-or-later", "lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later",
    "agpl-3": "AGPL-3.0-only", "agpl-3+": "AGPL-3.0-or-later", "epl 1.0": "EPL-1.0",
    "epl-2": "EPL-2.0", "eclipse public": "EPL-2.0", "w3c": "W3C", "wtfpl": "WTFPL",
}  # fmt: skip
_BY_LOWER = {name.lower(): name for name in PERMISSIVE}
_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9.+:-]+)")
_WORDS = re.compile(r"\s+(?:and|or|with)\s+|[()]", re.I)


def normalize(name: str) -> str:
    """Returns the SPDX expression for what a package writes as its licence, or "".

    Expressions are kept (with identifiers in SPDX's case); common names are translated.
    """
    name = " ".join(name.split()).strip(" .;,\"'")
    plain = re.sub(r"\b(?:the|licen[sc]es?)\b", "", name, flags=re.I)
    plain = " ".join(plain.lower().replace("v.", "").split()).strip(" ,")
    for written in (name.lower(), plain):
        if found := _ALIASES.get(written) or _BY_LOWER.get(written):
            return found
    if (
        "/" in name and "(" not in name and " " not in name
    ):  # npm's and cargo's old way: MIT/Apache-2.0
        name = name.replace("/", " OR ")
    if not _WORDS.search(name):
        return (
            name if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", name) and name[0].isupper() else ""
        )
    spaced = name.replace("(", " ( ").replace(")", " ) ")
    out = []
    for word in spaced.split():
        lower = word.lower()
        keyword = word.upper() if lower in ("and", "or", "with") else ""
        out.append(keyword or _ALIASES.get(lower) or _BY_LOWER.get(lower) or word)
    text = " ".join(out).replace("( ", "(").replace(" )", ")")
    return text if _parse(text) is not None else ""


def allows(expression: str, allow: Collection[str]) -> bool:
    """Tells whether a work under this licence may be used when `allow` is all one accepts.

    OR needs one side, AND both; an exception (WITH) only adds permissions, so the licence decides,
    unless the pair itself is listed; "X+" and "X-or-later" are allowed where X or they are. What
    is no expression is not allowed.
    """
    tree = _parse(expression)
    allowed = {name.lower() for name in allow}
    return tree is not None and _allowed(tree, allowed)


def names(expression: str) -> list[str]:
    """Returns the licences of an expression, each once, in order."""
    found = (t for t in _TOKEN.findall(expression) if t.upper() not in ("AND", "OR", "WITH"))
    return list(dict.fromkeys(t for t in found if t not in "()"))


def both(first: str, second: str) -> str:
    """Returns the expression for a work of parts under each of two licences."""
    if not first or not second or first == second:
        return first or second
    sides = (f"({side})" if " OR " in side else side for side in (first, second))
    return " AND ".join(sides)


def _allowed(tree: tuple, allowed: set[str]) -> bool:
    kind, *parts = tree
    if kind == "AND":
        return all(_allowed(part, allowed) for part in parts)
    if kind == "OR":
        return any(_allowed(part, allowed) for part in parts)
    licence, exception = parts
    if exception and f"{licence} with {exception}" in allowed:
        return True
    base = licence.removesuffix("+").removesuffix("-or-later").removesuffix("-only")
    return bool({licence, base} & allowed)


def _parse(expression: str) -> tuple | None:
    """Returns ("AND"|"OR", tree, ...) or ("IS", licence, exception) in lower case, or None."""
    tokens = _TOKEN.findall(expression)
    if "".join(tokens) != "".join(expression.split()) or len(tokens) > 400:
        return None
    tokens.reverse()  # the next one is the last
    try:
        tree = _either(tokens, 0)
    except (IndexError, ValueError):
        return None
    return None if tokens else tree


def _either(tokens: list[str], depth: int) -> tuple:
    parts = [_all(tokens, depth)]
    while tokens and tokens[-1].upper() == "OR":
        tokens.pop()
        parts.append(_all(tokens, depth))
    return parts[0] if len(parts) == 1 else ("OR", *parts)


def _all(tokens: list[str], depth: int) -> tuple:
    parts = [_one(tokens, depth)]
    while tokens and tokens[-1].upper() == "AND":
        tokens.pop()
        parts.append(_one(tokens, depth))
    return parts[0] if len(parts) == 1 else ("AND", *parts)


def _one(tokens: list[str], depth: int) -> tuple:
    token = tokens.pop()
    if token == "(":
        if depth > 50:
            raise ValueError("too deep")
        tree = _either(tokens, depth + 1)
        if tokens.pop() != ")":
            raise ValueError("no closing bracket")
        return tree
    if token == ")" or token.upper() in ("AND", "OR", "WITH"):
        raise ValueError("no licence")
    if tokens and tokens[-1].upper() == "WITH":
        tokens.pop()
        return "IS", token.lower(), tokens.pop().lower()
    return "IS", token.lower(), ""
