"""Files wherever they lie: plain paths, and gs://, s3://, memory:// and others through fsspec.

Plain paths never touch fsspec. A remote path whose backend is not installed is refused in one
line that names the package.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob as globs
import os
import re
import shutil
import stat as stats
import tempfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from geex_jax import files
from geex_jax.errors import GeexError

# What pip installs for a scheme, where fsspec alone cannot.
_PACKAGES = {
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "s3": "s3fs",
    "s3a": "s3fs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "http": "aiohttp",
    "https": "aiohttp",
    "hf": "huggingface-hub",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "hdfs": "pyarrow",
}
# A file appears there when its last byte has arrived; elsewhere a rename does that.
_WHOLE_ON_ARRIVAL = frozenset(("gs", "gcs", "s3", "s3a", "az", "abfs", "abfss"))
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_WILD = re.compile(r"[*?\[]")


class Stat(NamedTuple):
    """A file's size, and a text that changes when the file does."""

    size: int
    stamp: str


class Entry(NamedTuple):
    """A file below a folder: its path from there on, with "/" between folders, and what it is."""

    path: str
    size: int
    stamp: str


def is_remote(path: files.Path) -> bool:
    """Tells whether a path has a scheme (`gs://bucket/x`), and is not a plain file."""
    return _REMOTE.match(os.fspath(path)) is not None and not os.fspath(path).startswith("file://")


def local(path: files.Path) -> str:
    """Returns a plain path, without the `file://` that it may have."""
    return os.fspath(path).removeprefix("file://")


def filesystem(path: files.Path) -> tuple[Any, str]:
    """Returns fsspec's file system for a remote path, and the path as that knows it.

    Raises:
      GeexError: unknown scheme, its package is not installed, or it cannot be reached.
    """
    import fsspec

    path = os.fspath(path)
    scheme = path.split("://", 1)[0].lower()
    try:
        return fsspec.core.url_to_fs(path)
    except ImportError:
        package = _PACKAGES.get(scheme, scheme)
        raise GeexError(
            f"{scheme}:// paths need a package that is not here", f"pip install {package}"
        ) from None
    except ValueError as error:
        raise GeexError(f"cannot open {path} ({_line(error)})", "check the path") from None
    except Exception as error:  # backends raise errors of their own: no login, no network
        raise GeexError(
            f"cannot reach {scheme}:// ({_line(error)})", "check the login and the network"
        ) from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def join(folder: str, path: str) -> str:
    """Returns the path of something below a folder, local or remote."""
    if is_remote(folder):
        return f"{folder.rstrip('/')}/{path}"
    return os.path.join(local(folder), path)


def open_read(path: files.Path) -> IO[bytes]:
    """Opens a file for reading bytes; it can seek. Never waits on a pipe.

    Raises:
      OSError: it cannot be read or is no regular file.
      GeexError: the scheme's package is missing.
    """
    if is_remote(path):
        system, name = filesystem(path)
        try:
            return system.open(name, "rb")
        except OSError:
            raise
        except Exception as error:  # botocore's and aiohttp's errors are none of OSError
            raise OSError(_line(error)) from None
    name = local(path)
    descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        if not stats.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no regular file")
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(path: files.Path, limit: int = -1) -> bytes:
    """Returns at most `limit` bytes of a file.

    Raises:
      OSError: as `open_read`.
    """
    with open_read(path) as file:
        return file.read(limit)


def exists(path: files.Path) -> bool:
    """Tells whether there is a file or folder."""
    if not is_remote(path):
        return os.path.exists(local(path))
    system, name = filesystem(path)
    return bool(_asked(system.exists, name, path))


def is_folder(path: files.Path) -> bool:
    """Tells whether there is a folder (of object stores: any name below)."""
    if not is_remote(path):
        return os.path.isdir(local(path))
    system, name = filesystem(path)
    return bool(_asked(system.isdir, name, path))


def _asked(question: Any, name: str, path: files.Path, **options: Any) -> Any:
    try:
        return question(name, **options)
    except FileNotFoundError:
        return None
    except Exception as error:
        raise GeexError(
            f"cannot look at {os.fspath(path)} ({_line(error)})", "check the path and the login"
        ) from None


def stat(path: files.Path) -> Stat:
    """Returns a file's size and stamp.

    Raises:
      OSError: there is none, or it is no regular file.
    """
    if not is_remote(path):
        status = os.stat(local(path))
        if not stats.S_ISREG(status.st_mode):
            raise OSError(f"{os.fspath(path)} is no regular file")
        return Stat(status.st_size, f"{status.st_size}:{status.st_mtime_ns}")
    system, name = filesystem(path)
    info = _asked(system.info, name, path)
    if info is None or info.get("type") == "directory":
        raise FileNotFoundError(2, "No such file", os.fspath(path))
    return _remote_stat(info)


def _remote_stat(info: dict[str, Any]) -> Stat:
    size = int(info.get("size") or 0)
    keys = ("etag", "ETag", "generation", "md5Hash", "mtime", "LastModified", "created")
    mark = next((str(info[key]) for key in keys if info.get(key)), "")
    return Stat(size, f"{size}:{mark}")


def has_wildcard(path: files.Path) -> bool:
    """Tells whether a path holds `*`, `?` or `[` and no such file is there."""
    path = os.fspath(path)
    return _WILD.search(path) is not None and (is_remote(path) or not os.path.lexists(local(path)))


def glob(pattern: files.Path) -> list[str]:
    """Returns the files that match a pattern (`**` crosses folders), sorted by their bytes."""
    if is_remote(pattern):
        system, name = filesystem(pattern)
        found = _asked(system.glob, name, pattern, detail=True) or {}
        names = [key for key, info in found.items() if info.get("type") != "directory"]
        scheme = os.fspath(pattern).split("://", 1)[0]
        full = (key if "://" in key else f"{scheme}://{key.lstrip('/')}" for key in names)
        return sorted(full, key=os.fsencode)
    found = globs.glob(local(pattern), recursive=True, include_hidden=True)
    return sorted((name for name in found if os.path.isfile(name)), key=os.fsencode)


def find(folder: files.Path, patterns: tuple[str, ...] = ("*",)) -> list[Entry]:
    """Returns the regular files below a folder whose names match one of the patterns.

    Sorted by the bytes of their paths; links to folders are not followed.
    """
    if not is_remote(folder):
        return _find_local(local(folder), patterns)
    system, name = filesystem(folder)
    found = _asked(system.find, name, folder, detail=True) or {}
    top = name.rstrip("/") + "/"
    entries = [
        Entry(key[len(top) :], *_remote_stat(info))
        for key, info in found.items()
        if key.startswith(top) and _matches(os.path.basename(key), patterns)
    ]
    return sorted(entries, key=lambda entry: os.fsencode(entry.path))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)


def _find_local(folder: str, patterns: tuple[str, ...]) -> list[Entry]:
    entries = []
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            if _matches(name, patterns):
                with contextlib.suppress(OSError):  # a pipe, a loop of links, gone since
                    short = os.path.relpath(path, folder).replace(os.sep, "/")
                    entries.append(Entry(short, *stat(path)))
    return sorted(entries, key=lambda entry: os.fsencode(entry.path))


def upload(source: files.Path, target: files.Path) -> None:
    """Copies a local file to a path, local or remote; a reader there sees it whole or not at all.

    Raises:
      GeexError: it does not arrive (no space, no permission, no network); nothing stays there.
    """
    if not is_remote(target):
        with open(source, "rb") as file, files.atomic_write(local(target), "wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
        return
    system, name = filesystem(target)
    scheme = os.fspath(target).split("://", 1)[0].lower()
    arrival = name if scheme in _WHOLE_ON_ARRIVAL else f"{name}.part-{os.getpid()}"
    try:
        system.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        system.put_file(os.fspath(source), arrival)
        size = int(system.info(arrival)["size"])
        if size != os.path.getsize(source):
            raise OSError(f"{size} bytes arrived of {os.path.getsize(source)}")
        if arrival != name:
            system.mv(arrival, name)
    except Exception as error:  # backends raise errors of their own
        with contextlib.suppress(Exception):
            system.rm_file(arrival)
        raise GeexError(
            f"cannot write {os.fspath(target)} ({_line(error)})",
            "check the space and the login, then run the same command again",
        ) from None


def upload_folder(source: files.Path, target: files.Path, last: str = "manifest.json") -> None:
    """Copies a folder; the file named `last` goes last, so that who sees it sees all.

    Raises:
      GeexError: as `upload`.
    """
    entries = find(source)
    for entry in sorted(entries, key=lambda entry: entry.path == last):
        upload(os.path.join(local(source), entry.path), join(os.fspath(target), entry.path))


@contextlib.contextmanager
def local_copy(path: files.Path) -> Iterator[str]:
    """Gives a local path to a file: its own, or that of a copy which is removed afterwards.

    Raises:
      OSError: it cannot be read, or the disk is full.
    """
    if not is_remote(path):
        yield local(path)
        return
    with tempfile.TemporaryDirectory(prefix="geex-") as folder:
        name = os.path.join(folder, os.path.basename(os.fspath(path)) or "file")
        with open_read(path) as file, open(name, "wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
        yield name
