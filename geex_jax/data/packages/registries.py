"""Looks packages up, one by one by name, with the registries' own clients: apt-get and npm."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Sequence

from geex_jax.data.packages.lock import DEBIAN, NPM, File, Pinned, split
from geex_jax.errors import GeexError

DEBIAN_ADDRESS = "http://deb.debian.org/"
NPM_ADDRESS = "https://registry.npmjs.org/"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_LINE = re.compile(r"^'(?P<url>[^']+)' (?P<name>\S+) (?P<size>\d+)(?: SHA256:(?P<sha256>\w{64}))?")
_PLACE = re.compile(r"/(?P<place>[\w.-]+/pool/.+)$")


def look_up(spec: str, cache: pathlib.Path) -> Pinned:
    """Returns the version and the files that a spec stands for on this machine today.

    Args:
      spec: see `lock.split`.
      cache: a folder where apt's index of source packages may be kept.

    Raises:
      GeexError: no client, no such package, no network.
    """
    kind, name = split(spec)
    if kind == NPM:
        return _npm(name)
    if kind == DEBIAN:
        lines = _apt(["--print-uris", "download", name], name)
        return _pinned(lines, name)
    lines = _apt(["--print-uris", "source", "--only-source", name], name, cache)
    # What upstream wrote, without Debian's own packaging and without signatures.
    return _pinned([x for x in lines if re.search(r" \S+\.orig\.tar\.\w+ ", x)], name)


def debian_addresses() -> tuple[str, ...]:
    """Returns addresses of Debian archives, the mirrors that apt is configured with first.

    Each ends with "/"; an archive's name follows ("debian/pool/...").
    """
    found = [uri[: uri.rindex("/debian") + 1] for uri in _repositories() if "/debian" in uri]
    return tuple(dict.fromkeys((*found, DEBIAN_ADDRESS)))


@functools.cache
def npm_address() -> str:
    """Returns the registry that npm is configured with, else the public one."""
    if shutil.which("npm"):
        ran = _run(["npm", "config", "get", "registry"])
        address = ran.stdout.strip()
        if ran.returncode == 0 and address.startswith("http"):
            return address.rstrip("/") + "/"
    return NPM_ADDRESS


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Words of an error message are looked at, so they must not be translated.
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, errors="replace",
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def _said(ran: subprocess.CompletedProcess[str]) -> str:
    """Returns what a client complains of, as one line."""
    lines = [x.strip() for x in ran.stderr.splitlines() if x.strip()]
    wrong = [x for x in lines if x.startswith(("E:", "npm error", "npm ERR!"))] or lines
    return re.sub(r"^(?:E:|npm (?:error|ERR!))\s*", "", wrong[0]) if wrong else "no reason given"


# --- Debian ---------------------------------------------------------------------------------


@functools.cache
def _repositories() -> tuple[str, ...]:
    if not shutil.which("apt-get"):
        return ()
    ran = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    return tuple(dict.fromkeys(ran.stdout.split()))


def _apt(arguments: Sequence[str], name: str, sources: pathlib.Path | None = None) -> list[str]:
    """Returns the lines that apt-get prints; `sources`: it is asked for a source package."""
    if not shutil.which("apt-get"):
        raise GeexError(
            f"cannot look up the Debian package {name}: there is no apt-get here",
            "pin the package in the lock file on a Debian machine; fetching needs no apt",
        )
    ran = _run(["apt-get", *arguments])
    if ran.returncode and sources is not None:  # most machines have no deb-src lines
        ran = _run(["apt-get", *_source_lists(sources / "apt"), *arguments])
    if ran.returncode == 0:
        return ran.stdout.splitlines()
    raise GeexError(
        f"apt-get does not know {name}: {_said(ran)}", "correct the name, or run apt-get update"
    )


def _source_lists(folder: pathlib.Path) -> list[str]:
    """Returns options that give apt-get an index of source packages, fetched if not there yet."""
    lists, listed = folder / "lists", folder / "sources.list"
    options = {
        "Dir::Etc::sourcelist": listed, "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": lists, "Dir::Cache": folder / "cache",
    }  # fmt: skip
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    if any(lists.glob("*Sources*")):
        return given
    for below in (lists / "partial", folder / "cache"):
        below.mkdir(parents=True, exist_ok=True)
    keys = f"[signed-by={_KEYRING}] " if os.path.exists(_KEYRING) else ""
    listed.write_text(f"deb-src {keys}{debian_addresses()[0]}debian {_codename()} main\n")
    ran = _run(["apt-get", *given, "update"])
    if ran.returncode or not any(lists.glob("*Sources*")):
        raise GeexError(
            f"apt-get update of the source packages failed: {_said(ran)}",
            "check the network and apt's configuration",
        )
    return given


def _codename() -> str:
    text = pathlib.Path("/etc/os-release").read_text() if os.path.exists("/etc/os-release") else ""
    found = re.search(r"^ID=debian$(?s:.*)", text, re.M) and re.search(
        r"^VERSION_CODENAME=(\w+)", text, re.M
    )
    return found[1] if found else "stable"


def _pinned(lines: Sequence[str], name: str) -> Pinned:
    found = []
    for line in lines:
        parts = _LINE.match(line)
        place = parts and _PLACE.search(urllib.parse.unquote(parts["url"]))
        if parts and place:
            found.append(
                File(place["place"].rpartition("/")[2], place["place"], int(parts["size"]),
                     (parts["sha256"] or "").lower())
            )  # fmt: skip
    if not found:
        raise GeexError(f"apt-get names no archive of {name}", "take another package")
    version = found[0].name.partition("_")[2]
    return Pinned(re.sub(r"(?:_\w+\.deb|\.orig.*)$", "", version), tuple(found))


# --- npm ------------------------------------------------------------------------------------


def _npm(name: str) -> Pinned:
    if not shutil.which("npm"):
        raise GeexError(
            f"cannot look up the npm package {name}: there is no npm here",
            "install npm, or pin the package in the lock file elsewhere; fetching needs no npm",
        )
    fields = ("version", "dist.tarball", "dist.integrity")
    ran = _run(["npm", "view", name, *fields, "--json", "--loglevel=error"])
    try:
        if ran.returncode or not ran.stdout.strip():
            raise ValueError
        value = json.loads(ran.stdout)
        value = value[-1] if isinstance(value, list) else value  # a range: the last that fits
        place = re.sub(r"^https?://[^/]+/(?:.*?/)??(?=(?:@[^/]+/)?[^/]+/-/)", "",
                       value["dist.tarball"])  # fmt: skip
        file = File(place.rpartition("/")[2], place, integrity=value["dist.integrity"])
        if "@" in (scope := place.split("/")[0]):  # two scopes may have packages of one name
            file = File(f"{scope[1:]}-{file.name}", place, integrity=file.integrity)
        return Pinned(value["version"], (file,))
    except (ValueError, KeyError, TypeError, IndexError):
        raise GeexError(
            f"npm does not know {name}: {_said(ran)}", "correct the name, or check the network"
        ) from None
