"""The language of a document: by name and shebang, and by content where names are shared."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from geex_jax import languages
from geex_jax.data.document import Decision, Document
from geex_jax.languages import LANGUAGES, Language

HEAD_BYTES = 64 * 1024
NOTEBOOK = ".ipynb"


class LanguageOf:
    """Stage: settles `document.language`; drops what is none of the 23, or not asked for.

    Args:
      languages: names or aliases of those to keep; empty for all.

    Raises:
      GeexError: no such language.
    """

    name = "language"

    def __init__(self, languages: Iterable[str] = ()):
        chosen = {_get(name) for name in languages}
        self.languages = tuple(x.name for x in LANGUAGES if x.name in chosen)
        self._kept = frozenset(i for i, x in enumerate(LANGUAGES) if x.name in chosen)

    def settings(self) -> dict[str, Any]:
        """Returns the languages kept; an empty list for all."""
        return {"languages": list(self.languages)}

    def __call__(self, document: Document) -> Decision:
        """Sets the language; drops `unknown_language` and `other_language`."""
        how = "given"
        name = basename(document.path)
        if document.language < 0:
            how = "by its name"
            guess = by_name(name)
            if guess is not None:
                document.language, document.ask_content = guess
        if document.ask_content:
            how = "by its content"
            head = document.text[:HEAD_BYTES].encode("utf-8", "replace")
            answer = by_content(name, head)
            document.language = -1 if answer is None else answer
            document.ask_content = False
        if document.language < 0:
            return Decision(False, "unknown_language", f"{name!r} is none of the 23 languages")
        found = LANGUAGES[document.language].name
        if self._kept and document.language not in self._kept:
            return Decision(False, "other_language", f"{found} ({how}) is not asked for")
        return Decision(True, note=f"{found} ({how})")


def _get(name: str) -> str:
    return languages.get(name).name


def basename(path: str) -> str:
    """Returns what comes after the last "/" of a document's path."""
    return path.rsplit("/", 1)[-1]


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


def by_name(name: str) -> tuple[int, bool] | None:
    """Returns (language index, whether to ask the content), or None for no source file.

    The index is -1 where only the content can tell: a file without an extension, which a shebang
    may explain; `.inc`; a notebook, whose kernel's language the decoding stage sets.
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
        return (-1, True) if extension in (".inc", NOTEBOOK) else None
    return found, extension in _QUESTIONS


def by_content(name: str, data: bytes) -> int | None:
    """Returns the language index of a file whose name left the question open, or None.

    Args:
      name: the file's name or path.
      data: its content, at least the head.
    """
    head = data[:HEAD_BYTES]
    extension = os.path.splitext(name)[1].lower()
    question = _QUESTIONS.get(extension)
    if question is None:
        return by_shebang(head)
    answer = question(head)
    return None if answer is None else _index()[answer]


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


# --- extensions that more than one kind of file uses ------------------------------------------
# Each question takes the head of the file and answers with a language's name, or None for a
# language that is none of ours. Without evidence the answer is the extension's usual language,
# except for .m, .pp and .inc, where ours is the rarer one.


class _Signs:
    """A pattern that is tried only where one of its words occurs: `re` alone is slow on misses."""

    def __init__(self, pattern: bytes, *words: bytes, flags: int = re.M):
        self.pattern, self.words, self.flags = re.compile(pattern, flags), words, flags

    def __call__(self, head: bytes) -> bool:
        text = head.lower() if self.flags & re.I else head
        return any(w in text for w in self.words) and self.pattern.search(head) is not None


_CPP_LINES = _Signs(
    rb"^[^\S\n]*(?:template\s*<|namespace\s*(?:\w+\s*)?\{|namespace\s+\w+\s*$|using\s+namespace\s"
    rb"|class\s+\w+\s*(?:final\s*)?(?:[:{]|$)|(?:public|private|protected)\s*:)",
    b"template", b"namespace", b"class", b"public", b"private", b"protected",
)  # fmt: skip
_OBJC = _Signs(
    rb"^[^\S\n]*(?:@(?:interface|implementation|protocol|class|import)\b|#import\b)",
    b"@i", b"@protocol", b"@class", b"#import",
)  # fmt: skip
_PASCAL_WORDS = (b"unit", b"program", b"library", b"interface", b"uses", b"begin", b"procedure")
_PASCAL = _Signs(
    rb"^[^\S\n]*(?:unit|program|library|interface|uses|begin|procedure)\b",
    *_PASCAL_WORDS,
    flags=re.M | re.I,
)
# Of an include file a `begin` or `uses` alone says little.
_PASCAL_INC = re.compile(rb"^\s*(?:\{\$\w+|procedure \w+|function \w+[^{\n]*: ?\w+;)", re.M | re.I)
_C_LINES = re.compile(
    rb"^(?:#\s*(?:include|define|ifn?def|pragma)\b|(?:static|extern|struct|typedef|const)\s)", re.M
)
_XML = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:\?xml|!DOCTYPE|map\b)", re.I)
_REBOL = re.compile(rb"\A\s*(?:;[^\n]*\n\s*)*(?:REBOL|Red)\b[^\n\[]*\[", re.I)
_TEX = re.compile(rb"\\(?:ProvidesClass|NeedsTeXFormat|LoadClass|documentclass|def\b|newcommand)")
_OTHER_CLS = re.compile(
    rb"^\s*(?:VERSION \d|Attribute VB_|Option Explicit|(?:global|public|private)\s+(?:\w+\s+)*class"
    rb"\b|@isTest|CLASS [\w.]+\s*[:\n]|Class [\w.]+ Extends)",
    re.M,
)
_FORTH = re.compile(rb"^\s*(?::\s+\S+\s.*;|\\\s|\(\s.*--.*\))", re.M)
_FORTRAN = re.compile(
    rb"^[^\S\n]*(?:(?:recursive\s+|pure\s+)?(?:subroutine|program|module|function|block\s*data)\b"
    rb"|(?:integer|real|double|complex|logical|character)\b|implicit\b|end\s*$|call\s)",
    re.M | re.I,
)
_FORTRAN_COMMENT = re.compile(rb"^[cC*!]", re.M)
_RENDERSCRIPT = re.compile(rb"^#pragma\s+(?:version|rs)\b", re.M)
_SUPERCOLLIDER = re.compile(rb"\bSynthDef\b|\.ar\(|^\s*\w+\s*:\s*UGen\s*\{|\bvar <", re.M)
_SCALA = re.compile(rb"^\s*(?:package|import|object|(?:case )?class|trait|def|val)\s", re.M)
_SQL = re.compile(
    rb"\b(?:select|insert|create|alter|drop|update|delete|grant|begin|declare|set|use|exec|with"
    rb"|merge|truncate|call|copy|explain|comment|pragma|show|values)\b",
    re.I,
)


def _header(head: bytes) -> str | None:
    if _OBJC(head):
        return "Objective-C"
    if b"std::" in head and re.search(rb"\bstd::", head):
        return "C++"
    return "C++" if _CPP_LINES(head) else "C"


def _m(head: bytes) -> str | None:  # also MATLAB, Mathematica, Mercury
    return "Objective-C" if _OBJC(head) else None


def _pp(head: bytes) -> str | None:  # also Puppet
    return "Pascal" if _PASCAL(head) else None


def _ts(head: bytes) -> str | None:  # also Qt's translations in XML, and MPEG streams
    return None if _XML.match(head) or (head[:1] == b"G" and b"\0" in head) else "TypeScript"


def _mm(head: bytes) -> str | None:  # also FreeMind's maps in XML
    return None if _XML.match(head) else "Objective-C++"


def _r(head: bytes) -> str | None:  # also Rebol
    return None if _REBOL.match(head) else "R"


def _cls(head: bytes) -> str | None:  # also Visual Basic, Apex, OpenEdge, ObjectScript
    return None if not _TEX.search(head) and _OTHER_CLS.search(head) else "TeX"


def _f(head: bytes) -> str | None:  # also Forth
    if _FORTH.search(head) and not _FORTRAN.search(head) and not _FORTRAN_COMMENT.search(head):
        return None
    return "Fortran"


def _rs(head: bytes) -> str | None:  # also RenderScript
    return None if b"#pragma" in head and _RENDERSCRIPT.search(head) else "Rust"


def _sc(head: bytes) -> str | None:  # also SuperCollider
    return None if _SUPERCOLLIDER.search(head) and not _SCALA.search(head) else "Scala"


def _sql(head: bytes) -> str | None:  # also other dumps under this name
    return "SQL" if not head.strip() or _SQL.search(head) else None


def _cu(head: bytes) -> str | None:  # also plain C++ and cue sheets, which nvcc never sees
    cue = re.match(rb'\s*(?:REM|FILE "|TITLE "|PERFORMER ")', head)
    return None if cue else "Cuda"


def _inc(head: bytes) -> str | None:  # PHP, C, C++, Pascal, TeX; also assembly, BitBake, ...
    if b"<?php" in head:
        return "PHP"
    if b"std::" in head or _CPP_LINES(head):
        return "C++"
    if _C_LINES.search(head):
        return "C"
    return "Pascal" if _PASCAL_INC.search(head) else None


_QUESTIONS: dict[str, Callable[[bytes], str | None]] = {
    ".h": _header,
    ".m": _m,
    ".mm": _mm,
    ".pp": _pp,
    ".ts": _ts,
    ".r": _r,
    ".cls": _cls,
    ".f": _f,
    ".for": _f,
    ".rs": _rs,
    ".sc": _sc,
    ".sql": _sql,
    ".cu": _cu,
    ".inc": _inc,
}
