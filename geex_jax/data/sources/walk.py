"""A walk over folders that survives what it meets."""

from __future__ import annotations

import collections
import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from geex_jax.data import storage
from geex_jax.data.document import Passed
from geex_jax.data.sources import gitignore
from geex_jax.data.stages.language import by_name

VERSION_CONTROL = frozenset((".git", ".hg", ".svn", ".bzr", "_darcs", "CVS"))
Identity = tuple[int, int]


class Found(NamedTuple):
    """A file that may be source code.

    `language` is an index into LANGUAGES, -1 when only the shebang can tell; `ask_content` is
    True when the content can change the answer (`.h`, `.m`, ...). (-1, False) is a file that was
    asked for by `also`: an archive.
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
    ignore: bool = False,
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
      ignore: leave out what `.gitignore` files say.
    """
    walker = Walker(exclude=exclude, names=names, follow_links=follow_links, ignore=ignore)
    found = [item for root in roots for item in walker.root(root) if isinstance(item, Found)]
    found += [item for item in walker.linked() if isinstance(item, Found)]
    return Walk(found, walker.counts)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


class Walker:
    """Yields `Found` and `Passed` for root after root; `counts` adds up what was met.

    The frequent and harmless are counts only: `files`, `folders`, `bytes`, `unknown_language`,
    `empty_folder`.
    """

    def __init__(
        self,
        *,
        exclude: str | None = None,
        names: Collection[str] = (),
        follow_links: bool = False,
        ignore: bool = False,
        also: Callable[[str], bool] | None = None,
    ):
        self.left_out = frozenset(names) | VERSION_CONTROL
        self.follow_links, self.ignore, self.also = follow_links, ignore, also
        self.counts: collections.Counter[str] = collections.Counter()
        self.visited: set[Identity] = set()
        self.links: collections.deque[tuple[str, tuple[Identity, ...]]] = collections.deque()
        if exclude is not None and os.path.isdir(exclude):
            self.visited.add(_identity(os.stat(exclude)))

    def root(self, path: str) -> Iterator[Found | Passed]:
        """Visits a folder and all below it, or looks at a single file."""
        if self.ignore:
            path = os.path.abspath(path)
        if os.path.isdir(path):
            rules = gitignore.above(path) if self.ignore else ()
            yield from self._folder(path, (), rules)
        else:
            yield from self._file(path, os.path.basename(path))

    def linked(self) -> Iterator[Found | Passed]:
        """Visits the folders behind the links that were met, if they are to be followed."""
        while self.links:
            path, above = self.links.popleft()
            yield from self._folder(path, above, ())

    def _passed(self, reason: str, path: str, size: int = 0) -> Passed:
        self.counts[reason] += 1
        return Passed(reason, path, 1, size)

    def _folder(
        self, top: str, above: tuple[Identity, ...], rules: gitignore.Rules
    ) -> Iterator[Found | Passed]:
        """Visits `top` and all below it, without recursion: trees may be thousands deep."""
        stack = [(top, above, rules)]
        while stack:
            path, above, rules = stack.pop()
            try:
                identity = _identity(os.stat(path))
                if identity in self.visited:
                    continue
                self.visited.add(identity)
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda e: os.fsencode(e.name))
            except OSError:
                yield self._passed("unreadable_folder", path)
                continue
            if not entries:
                self.counts["empty_folder"] += 1
            self.counts["folders"] += 1
            if self.ignore:
                names = [entry.name for entry in entries]
                rules = gitignore.entered(rules, path, names, gitignore.read_local)
            below = []
            for entry in entries:
                if self._is_folder(entry):
                    if entry.name in self.left_out:
                        continue
                    if rules and gitignore.ignored(rules, entry.path, folder=True):
                        yield self._passed("ignored_folder", entry.path)
                        continue
                    below.append((entry.path, (*above, identity), rules))
                elif rules and gitignore.ignored(rules, entry.path):
                    yield self._passed("ignored", entry.path)
                elif entry.is_symlink() and os.path.isdir(entry.path):
                    yield from self._linked_folder(entry.path, (*above, identity))
                else:
                    yield from self._file(entry.path, entry.name)
            stack.extend(reversed(below))

    @staticmethod
    def _is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=False)
        except OSError:
            return False

    def _linked_folder(self, path: str, above: tuple[Identity, ...]) -> Iterator[Passed]:
        try:
            loop = _identity(os.stat(path)) in above
        except OSError:  # gone since
            yield self._passed("unreadable_folder", path)
            return
        if loop:
            yield self._passed("symlink_loop", path)
        elif self.follow_links:
            self.links.append((path, above))
        else:
            yield self._passed("symlink_folder", path)

    def _file(self, path: str, name: str) -> Iterator[Found | Passed]:
        try:
            status = os.stat(path)
        except OSError as error:
            if error.errno == errno.ELOOP:
                yield self._passed("symlink_loop", path)
            else:
                self.counts["files"] += 1
                yield self._passed("unreadable", path)
            return
        self.counts["files"] += 1
        if not stat.S_ISREG(status.st_mode):
            yield self._passed("special_file", path)
            return
        self.counts["bytes"] += status.st_size
        guess = by_name(name)
        if guess is None and self.also is not None and self.also(name):
            guess = (-1, False)
        if guess is None:
            self.counts["unknown_language"] += 1
        else:
            yield Found(path, status.st_size, status.st_mtime_ns, *guess)


def walk_remote(
    root: str,
    counts: collections.Counter[str],
    *,
    names: Collection[str] = (),
    ignore: bool = False,
    also: Callable[[str], bool] | None = None,
) -> Iterator[tuple[storage.Entry, int, bool] | Passed]:
    """Yields (entry, language, ask_content) of the files of a remote folder that may be source.

    Raises:
      GeexError: the folder cannot be listed.
    """
    left_out = frozenset(names) | VERSION_CONTROL
    entries = storage.find(root)
    special = {entry.path for entry in entries if os.path.basename(entry.path) == gitignore.NAME}

    def read(path: str) -> bytes | None:
        try:
            return storage.read(storage.join(root, path.lstrip("/")), 1 << 20)
        except OSError:
            return None

    folders: dict[str, gitignore.Rules | None] = {}  # None: left out

    def rules_of(folder: str) -> gitignore.Rules | None:
        if folder not in folders:
            upper, _, name = folder.rpartition("/")
            rules = rules_of(upper) if folder else ()
            if name in left_out or (rules and gitignore.ignored(rules, folder, folder=True)):
                rules = None
            if ignore and rules is not None and f"{folder}/{gitignore.NAME}".lstrip("/") in special:
                rules = gitignore.entered(rules, folder, [gitignore.NAME], read)
            folders[folder] = rules
        return folders[folder]

    for entry in entries:
        rules = rules_of(entry.path.rpartition("/")[0])
        if rules is None or (rules and gitignore.ignored(rules, entry.path)):
            counts["ignored"] += 1
            continue
        counts.update({"files": 1, "bytes": entry.size})
        name = os.path.basename(entry.path)
        guess = by_name(name)
        if guess is None and also is not None and also(name):
            guess = (-1, False)
        if guess is None:
            counts["unknown_language"] += 1
        else:
            yield entry, guess[0], guess[1]
