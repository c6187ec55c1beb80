"""The language of a file: by its name, by its content where the name leaves it open."""

from __future__ import annotations

import functools
import os
import re

from geex_jax.languages import LANGUAGES, Language

_HEAD_BYTES = 64 * 1024

_CPP = re.compile(
    rb"^\s*(?:template\s*<|namespace\s*(?:\w+\s*)?\{|namespace\s+\w+\s*$|using\s+namespace\s"
    rb"|class\s+\w+\s*(?:final\s*)?(?:[:{]|$)|(?:public|private|protected)\s*:)|\bstd::",
    re.MULTILINE,
)
_OBJC = re.compile(
    rb"^\s*(?:@(?:interface|implementation|protocol|class|import)\b|#import\b)", re.M
)
_PASCAL = re.compile(rb"^\s*(?:unit|program|library|interface|uses|begin|procedure)\b", re.M | re.I)
_XML = re.compile(rb"\A\s*<(?:\?xml|!DOCTYPE)", re.I)


@functools.cache
def _index() -> dict[str, int]:
    return {language.name: i for i, language in enumerate(LANGUAGES)}


@functools.cache
def _tables() -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Returns extension, file name and interpreter to language index."""
    tables: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
    for i, language in enumerate(LANGUAGES):
        keys = (language.extensions, language.filenames, language.interpreters)
        for table, words in zip(tables, keys, strict=True):
            table.update(dict.fromkeys(words, i))
    return tables


# Extensions that more than one kind of file uses.
_SHARED_EXTENSIONS = frozenset((".h", ".m", ".pp", ".ts"))
# Extensions that tell no language, of files that may hold one.
_OPEN_EXTENSIONS = frozenset((".inc", ".ipynb"))


def by_name(name: str) -> tuple[int, bool] | None:
    """Returns (language index, whether to ask the content), or None for no source file.

    The index is -1 where only the content can tell: a file without an extension, which a shebang
    may explain, `.inc`, a notebook.
    """
    extensions, filenames, _ = _tables()
    found = filenames.get(name.lower())
    if found is not None:
        return found, False
    stem, extension = os.path.splitext(name)
    if not extension:
        return (-1, True) if stem and not stem.startswith(".") else None
    if extension == ".C":  # upper case is C++ by the custom of its compilers
        return _index()["C++"], False
    extension = extension.lower()
    found = extensions.get(extension)
    if found is None:
        return (-1, True) if extension in _OPEN_EXTENSIONS else None
    return found, extension in _SHARED_EXTENSIONS


def by_content(name: str, data: bytes) -> int | None:
    """Returns the language index of a file whose name left the question open, or None.

    Args:
      name: the file's name or path.
      data: its content, at least the head.
    """
    head = data[:_HEAD_BYTES]
    extension = os.path.splitext(name)[1].lower()
    index = _index()
    if extension == ".h":
        if _OBJC.search(head):
            return index["Objective-C"]
        return index["C++" if _CPP.search(head) else "C"]
    if extension == ".m":  # also MATLAB and Mathematica
        return index["Objective-C"] if _OBJC.search(head) else None
    if extension == ".pp":  # also Puppet
        return index["Pascal"] if _PASCAL.search(head) else None
    if extension == ".ts":  # also Qt's translations, in XML
        return None if _XML.match(head) else index["TypeScript"]
    return by_shebang(head)


def by_shebang(data: bytes) -> int | None:
    """Returns the language index that a `#!` line names, or None."""
    if not data.startswith(b"#!"):
        return None
    words = data[2:512].split(b"\n", 1)[0].decode("utf-8", "replace").split()
    programs = (os.path.basename(word).lower() for word in words)
    program = next(programs, "")
    if program == "env":  # env -S NAME=value program ...
        program = next((w for w in programs if not w.startswith("-") and "=" not in w), "")
    interpreters = _tables()[2]
    found = interpreters.get(program)
    return interpreters.get(program.rstrip("0123456789.")) if found is None else found


def language_of(name: str, data: bytes = b"") -> Language | None:
    """Returns the language of a file by its name and, where that leaves it open, its content."""
    guess = by_name(os.path.basename(name))
    if guess is None:
        return None
    index = by_content(name, data) if guess[1] else guess[0]
    return None if index is None else LANGUAGES[index]
