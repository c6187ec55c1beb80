"""One file from a registry into the cache: whole or not at all, resumed after a kill, checked."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence

from geex_jax.data.packages.lock import File
from geex_jax.errors import GeexError
from geex_jax.version import __version__

OnBytes = Callable[[int], None]
_CHUNK = 1 << 18
_TIMEOUT = 30
_TRIES = 3
_APT_HELPER = "/usr/lib/apt/apt-helper"


def fetch(
    file: File, addresses: Sequence[str], folder: pathlib.Path, on_bytes: OnBytes, pause: float = 1
) -> File:
    """Brings `folder/file.name` here, unless it is; returns the file with its size and SHA-256.

    A transfer that breaks off leaves `NAME.part`, where the next call goes on.

    Args:
      file: what to fetch; its checksums are verified where known.
      addresses: bases to try in turn, each with "/" at its end.
      folder: made if need be.
      on_bytes: told how many bytes have arrived, also of what was there.
      pause: seconds to wait before a second try, doubled each time.

    Raises:
      GeexError: no network, not there, other bytes than pinned, a full disk.
    """
    target = folder / file.name
    if target.is_file() and (not file.size or target.stat().st_size == file.size):
        found = _measured(file, target)
        if found is not None:
            on_bytes(found.size)
            return found
        target.unlink()  # damaged in the cache
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder / f".{file.name}.lock"):
            return _fetch(file, addresses, target, on_bytes, pause)
    except OSError as error:
        remedy = "set GEEX_CACHE to a folder with room and permissions, then run again: it resumes"
        raise GeexError(f"cannot write {target}: {error.strerror or error}", remedy) from None


def _fetch(
    file: File, addresses: Sequence[str], target: pathlib.Path, on_bytes: OnBytes, pause: float
) -> File:
    part = target.with_name(target.name + ".part")
    for number, address in enumerate(addresses):
        url = address + urllib.parse.quote(file.place, safe="/@:")
        try:
            _transfer(file, url, part, on_bytes, pause)
        except _Gone:
            if number + 1 < len(addresses):
                continue
            raise GeexError(
                f"{url} is not there (any more)",
                "remove the package from the lock file to take today's version",
            ) from None
        found = _measured(file, part)
        if found is not None:
            os.replace(part, target)
            return found
        part.unlink()
        on_bytes(-file.size)
        if number + 1 == len(addresses):
            raise GeexError(
                f"the checksum of {url} is not the pinned one",
                "run again; if it stays so, the mirror is broken or the package was exchanged",
            )
    raise GeexError(f"no address to fetch {file.name} from")


def _measured(file: File, path: pathlib.Path) -> File | None:
    """Returns the file with size and SHA-256 filled in; None if they are not those pinned."""
    sha256, sha512 = hashlib.sha256(), hashlib.sha512()
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            if file.integrity:
                sha512.update(chunk)
    size = path.stat().st_size
    integrity = "sha512-" + base64.b64encode(sha512.digest()).decode()
    if (
        (file.size and file.size != size)
        or (file.sha256 and file.sha256 != sha256.hexdigest())
        or (file.integrity.startswith("sha512-") and file.integrity != integrity)
    ):
        return None
    return File(file.name, file.place, size, sha256.hexdigest(), file.integrity)


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """Holds a lock, so that two runs do not write one file."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    path.unlink(missing_ok=True)


class _Gone(Exception):
    """The address has no such file."""


def _transfer(file: File, url: str, part: pathlib.Path, on_bytes: OnBytes, pause: float) -> None:
    """Fills `part` from `url`, with the registry's own client where that is at hand.

    So proxies and credentials hold that apt and npm are configured with.
    """
    if "/pool/" in file.place and os.access(_APT_HELPER, os.X_OK):
        return _by_apt(url, part, on_bytes)
    if file.integrity and shutil.which("npm"):
        return _by_npm(url, part, on_bytes)
    host = urllib.parse.urlsplit(url).netloc
    for attempt in range(_TRIES):
        try:
            return _by_http(url, part, file.size, on_bytes)
        except urllib.error.HTTPError as error:
            if error.code in (404, 410):
                raise _Gone from None
            reason = f"status {error.code}"
        except (http.client.HTTPException, urllib.error.URLError, TimeoutError) as error:
            inner = getattr(error, "reason", error)
            reason = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise  # of the disk, not of the network
            reason = error.strerror or str(error)
        if attempt + 1 < _TRIES:
            time.sleep(pause * 2**attempt)
    raise GeexError(
        f"cannot fetch {part.name.removesuffix('.part')} from {host}: {reason}",
        "check the network, then run again: it resumes",
    )


def _by_http(url: str, part: pathlib.Path, size: int, on_bytes: OnBytes) -> None:
    have = part.stat().st_size if part.exists() else 0
    if size and have >= size:
        on_bytes(have)
        return
    request = urllib.request.Request(url, headers={"User-Agent": f"geex-jax/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # what is here is as long as the file, or longer
            raise
        part.unlink()
        raise urllib.error.URLError("what was here is no part of the file") from None
    with answer:
        resumed = have and answer.status == 206
        on_bytes(have if resumed else 0)
        expected = answer.headers.get("Content-Length")
        arrived = 0
        with open(part, "ab" if resumed else "wb") as stream:
            while chunk := answer.read(_CHUNK):
                arrived += len(chunk)
                if size and (have if resumed else 0) + arrived > size:
                    return  # more than is pinned: the checksum will say so
                stream.write(chunk)
                on_bytes(len(chunk))
        if expected is not None and arrived < int(expected):
            on_bytes(-arrived - (have if resumed else 0))
            raise urllib.error.URLError(f"the connection ended after {arrived:,} bytes")


def _by_apt(url: str, part: pathlib.Path, on_bytes: OnBytes) -> None:
    """Downloads with apt's helper, which goes on where it was."""
    options = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    command = [_APT_HELPER, *options, "download-file", url, str(part)]
    _by_client("apt", command, part, url, on_bytes)


def _by_npm(url: str, part: pathlib.Path, on_bytes: OnBytes) -> None:
    """Downloads with npm, which begins anew: its packages are small."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".npm-") as folder:
        command = ["npm", "pack", url, "--pack-destination", folder, "--ignore-scripts"]
        _by_client("npm", [*command, "--loglevel=error"], pathlib.Path(folder), url, on_bytes)
        written = list(pathlib.Path(folder).glob("*.tgz"))
        if len(written) != 1:
            raise GeexError(f"npm pack wrote no package for {url}", "update npm")
        os.replace(written[0], part)
        on_bytes(part.stat().st_size)


def _by_client(
    name: str, command: list[str], path: pathlib.Path, url: str, on_bytes: OnBytes
) -> None:
    """Runs a client to its end; while it writes the file `path`, tells how far it is."""
    told = 0
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""},
        )  # fmt: skip
        try:
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=0.1)
                size = path.stat().st_size if path.is_file() else 0
                on_bytes(size - told)
                told = size
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if process.returncode == 0:
            return
        on_bytes(-told)
        said.seek(0)
        text = " ".join(said.read().split())
    if re.search(r"\b(?:404|410|E404)\b", text):
        raise _Gone
    if "ENOSPC" in text or shutil.disk_usage(path.parent).free < _CHUNK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # apt: "E: Failed to fetch URL  REASON E: ..."; npm: "npm error code X npm error REASON npm ..."
    reason = re.search(
        r"Failed to fetch \S+\s+(.*?)(?: E:|$)|npm error (?!code)(.+?)(?: npm |$)", text
    )
    why = next(filter(None, reason.groups()), "") if reason else text[-200:]
    raise GeexError(
        f"{name} cannot fetch {url}: {why.strip() or 'no reason given'}",
        "check the network, then run again: it resumes",
    )
