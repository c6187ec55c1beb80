"""A bounded, repeatable sample of source files below some folders."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable, Iterable

from geex_jax import files
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES


def find_sources(inputs: Iterable[files.Path]) -> list[pathlib.Path]:
    """Returns the files below `inputs` with an extension of the 23 languages.

    Hidden folders are left out; an input that is a file is taken whatever its name. The order is
    that of a hash of the path below the input: the same on every machine, and any first part of
    the list is a fair sample.

    Raises:
      GeexError: an input does not exist, or no file is found.
    """
    extensions = {extension for language in LANGUAGES for extension in language.extensions}
    names = {name for language in LANGUAGES for name in language.filenames}
    found: dict[pathlib.Path, bytes] = {}
    inputs = [pathlib.Path(x) for x in inputs]
    for top in inputs:
        if not top.exists():
            raise GeexError(f"no such file or folder: {top}", "give a folder with source files")
        for path in [top] if top.is_file() else top.rglob("*"):
            below = path.relative_to(top).as_posix() if path != top else path.name
            if path != top and path.suffix.lower() not in extensions and path.name not in names:
                continue
            hidden = any(part.startswith(".") for part in pathlib.PurePath(below).parts[:-1])
            if not hidden and path.is_file():
                found.setdefault(path, hashlib.sha256(below.encode(errors="replace")).digest())
    if not found:
        raise GeexError(
            f"no source files below {', '.join(map(str, inputs))}",
            "give a folder with files of the 23 languages",
        )
    return sorted(found, key=lambda path: (found[path], str(path)))


def read_sources(
    inputs: Iterable[files.Path],
    max_megabytes: float,
    max_file_bytes: int = 1_000_000,
    on_file: Callable[[int], None] = lambda size: None,
) -> list[str]:
    """Returns the texts of the first files of `find_sources`, up to `max_megabytes` in all.

    Files that are no UTF-8, empty ones and those over `max_file_bytes` are left out. Line ends
    stay as they are.

    Args:
      inputs: folders or files.
      max_megabytes: 10**6 bytes of text to read at most (at least one file).
      max_file_bytes: larger files are data more than code.
      on_file: called with each file's size.

    Raises:
      GeexError: no usable file.
    """
    budget = max_megabytes * 1e6
    texts: list[str] = []
    for path in find_sources(inputs):
        try:
            data = path.read_bytes()
            text = data.decode("utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if not data or len(data) > max_file_bytes:
            continue
        if texts and len(data) > budget:
            break
        budget -= len(data)
        texts.append(text)
        on_file(len(data))
    if not texts:
        raise GeexError("none of the source files is UTF-8 text", "check the folders")
    return texts
