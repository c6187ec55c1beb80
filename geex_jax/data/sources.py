"""Source trees: a walk that survives what it meets, and the language of a file."""

from __future__ import annotations

import collections
import errno
import functools
import os
import re
import stat
from collections.abc import Collection, Sequence
from typing import NamedTuple

from geex_jax.languages import LANGUAGES, Language

VERSION_CONTROL = frozenset((".git", ".hg", ".svn", ".bzr", "_darcs", "CVS"))
_HEAD_BYTES = 64 * 1024


class Found(NamedTuple):
    """A file that may be source code.

    `language` is an index into LANGUAGES, -1 when only the shebang can tell; `ask_content` is
    True when the content can change the answer (`.h`, `.m`, ...).
    """

    path: str
    size: int
    mtime_ns: int
    language: int
    ask_content: bool


class Walk(NamedTuple):
    """What a walk saw: files worth a look, in order, and counts of what was passed by."""

    found: list[Found]
    counts: collections.Counter[str]


def walk(
    roots: Sequence[str],
    *,
    exclude: str | None = None,
    names: Collection[str] = (),
    follow_links: bool = False,
) -> Walk:
    """Lists the files below `roots` whose names may be those of source code, in a fixed order.

    Every folder is visited once, also when inputs overlap. Folders behind symbolic links are
    counted (`symlink_folder`) and not entered, unless `follow_links`; a link to a folder above
    itself is a `symlink_loop`. Pipes, sockets and devices are never opened (`special_file`).

    Args:
      roots: folders (or single files).
      exclude: a folder to leave out, wherever it lies.
      names: folders of these names, below the roots, are left out.
      follow_links: enter folders behind symbolic links, after all real ones.
    """
    walker = _Walker(follow_links, frozenset(names) | VERSION_CONTROL)
    if exclude is not None and os.path.isdir(exclude):
        walker.visited.add(_identity(os.stat(exclude)))
    for root in roots:
        if os.path.isdir(root):
            walker.folder(root, ())
        else:
            walker.file(root, os.path.basename(root))
    while walker.links:
        walker.folder(*walker.links.popleft())
    return Walk(walker.found, walker.counts)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


class _Walker:
    def __init__(self, follow_links: bool, left_out: frozenset[str]):
        self.left_out = left_out
        self.follow_links = follow_links
        self.found: list[Found] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.visited: set[tuple[int, int]] = set()
        self.links: collections.deque[tuple[str, tuple[tuple[int, int], ...]]] = collections.deque()

    def folder(self, top: str, above: tuple[tuple[int, int], ...]) -> None:
        """Visits `top` and all below it, without recursion: trees may be thousands deep."""
        stack = [(top, above)]
        while stack:
            path, above = stack.pop()
            try:
                identity = _identity(os.stat(path))
                if identity in self.visited:
                    continue
                self.visited.add(identity)
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda e: os.fsencode(e.name))
            except OSError:
                self.counts["unreadable_folder"] += 1
                continue
            if not entries:
                self.counts["empty_folder"] += 1
            self.counts["folders"] += 1
            below = []
            for entry in entries:
                if self._is_folder(entry):
                    if entry.name not in self.left_out:
                        below.append((entry.path, (*above, identity)))
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    self._linked_folder(entry.path, (*above, identity))
                else:
                    self.file(entry.path, entry.name)
            stack.extend(reversed(below))

    @staticmethod
    def _is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=False)
        except OSError:
            return False

    def _linked_folder(self, path: str, above: tuple[tuple[int, int], ...]) -> None:
        if _identity(os.stat(path)) in above:
            self.counts["symlink_loop"] += 1
        elif self.follow_links:
            self.links.append((path, above))
        else:
            self.counts["symlink_folder"] += 1

    def file(self, path: str, name: str) -> None:
        """Adds one file to what was found, or counts why not."""
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self.counts["symlink_loop"] += 1
            else:
                self.counts.update(("files", "unreadable"))
            return
        self.counts["files"] += 1
        if not stat.S_ISREG(status.st_mode):
            self.counts["special_file"] += 1
            return
        self.counts["bytes"] += status.st_size
        guess = by_name(name)
        if guess is None:
            self.counts["unknown_language"] += 1
        else:
            self.found.append(Found(path, status.st_size, status.st_mtime_ns, *guess))


# --- the language of a file -----------------------------------------------------------------

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


def by_name(name: str) -> tuple[int, bool] | None:
    """Returns (language index, whether to ask the content), or None for no source file.

    The index is -1 for a file without an extension, which a shebang may explain.
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
    found = extensions.get(extension.lower())
    return None if found is None else (found, extension.lower() in _SHARED_EXTENSIONS)


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
