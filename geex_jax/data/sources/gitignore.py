"""What `.gitignore` files leave out: nested ones, negations, a repository inside another.

Not looked at: git's index (a file that was added by force and matches a pattern is left out here)
and the user's own `core.excludesFile`, for the same input gives the same documents everywhere.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from geex_jax.data import storage

if TYPE_CHECKING:
    import pathspec

NAME = ".gitignore"
_MAX_BYTES = 1 << 20

# (folder, its patterns), from the top down: the deepest that says something decides.
Rules = tuple[tuple[str, "pathspec.GitIgnoreSpec"], ...]


def parse(data: bytes) -> pathspec.GitIgnoreSpec:
    """Returns the patterns of a file; lines that are no pattern are skipped, as git does."""
    import pathspec

    text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    try:
        return pathspec.GitIgnoreSpec.from_lines(lines)
    except ValueError:
        return pathspec.GitIgnoreSpec.from_lines(line for line in lines if _is_pattern(line))


def _is_pattern(line: str) -> bool:
    import pathspec

    try:
        pathspec.GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def ignored(rules: Rules, path: str, folder: bool = False) -> bool:
    """Tells whether the rules leave a file or folder out.

    Folders must be asked first: what is in one that is left out cannot come back.

    Args:
      rules: of the folder that holds it.
      path: as long as the folders of the rules are: absolute, or all from the same top.
      folder: whether it is one; patterns that end in "/" fit folders only.
    """
    for top, spec in reversed(rules):
        below = path[len(top) :].lstrip("/") + ("/" if folder else "")
        answer = spec.check_file(below).include
        if answer is not None:
            return answer
    return False


def entered(
    rules: Rules, folder: str, names: Iterable[str], read: Callable[[str], bytes | None]
) -> Rules:
    """Returns the rules inside a folder: those outside and its own.

    A repository in another starts anew.

    Args:
      rules: those of the folder above.
      folder: its path.
      names: what lies in it.
      read: gives the content of a file, or None where it cannot be read.
    """
    names = set(names)
    sources = []
    if ".git" in names:
        rules = ()
        sources.append(f"{folder}/.git/info/exclude")
    if NAME in names:
        sources.append(f"{folder}/{NAME}")
    for path in sources:
        data = read(path)
        if data is not None:
            rules = (*rules, (folder, parse(data)))
    return rules


def read_local(path: str) -> bytes | None:
    """Returns the content of a pattern file of moderate size that is no link, or None."""
    try:
        return None if os.path.islink(path) else storage.read(path, _MAX_BYTES)
    except OSError:
        return None


def checkout(folder: str) -> list[str]:
    """Returns the folders from the top of the checkout that a folder lies in down to it, or []."""
    chain = [folder]
    while not os.path.lexists(os.path.join(chain[-1], ".git")):
        parent = os.path.dirname(chain[-1])
        if parent == chain[-1]:
            return []
        chain.append(parent)
    return chain[::-1]


def above(root: str) -> Rules:
    """Returns the rules that hold for a folder from the repository around it.

    Where those leave the folder itself out (`.venv`, `build`), it was asked for all the same, and
    they do not hold.
    """
    rules: Rules = ()
    for folder, below in itertools.pairwise(checkout(root)):
        rules = entered(rules, folder, _names(folder), read_local)
        if ignored(rules, below, folder=True):
            return ()
    return rules


def _names(folder: str) -> list[str]:
    return [name for name in (".git", NAME) if os.path.lexists(os.path.join(folder, name))]
