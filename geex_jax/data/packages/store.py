"""The packages of a recipe, all here: pinned, fetched, counted on one progress line."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping, Sequence

from geex_jax import files
from geex_jax.data.packages import registries, transfer
from geex_jax.data.packages.lock import NPM, File, Lock, Pinned, split


def cache_folder() -> pathlib.Path:
    """Where packages are kept: `packages` in the cache folder."""
    return files.cache_folder() / "packages"


def folder_of(spec: str, pinned: Pinned) -> pathlib.Path:
    """Where the files of one version of one package are kept."""
    kind, name = split(spec)
    if kind == NPM:
        name = name[0] + name[1:].partition("@")[0]  # "@scope/name@1" keeps its first "@"
    return cache_folder() / kind / name.replace("/", "+") / pinned.version.replace("/", "+")


def paths_of(spec: str, pinned: Pinned) -> list[pathlib.Path]:
    """Where its archives lie, once fetched."""
    return [folder_of(spec, pinned) / file.name for file in pinned.files]


def fetch_all(
    specs: Sequence[str], lock: Lock, addresses: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Brings all files of the packages here; pins those that the lock does not know yet.

    Args:
      specs: "debian:NAME", "debian-source:NAME", "npm:NAME@VERSION".
      lock: checked against, and written to where a package is new or a checksum was unknown.
      addresses: for each kind of package, the bases of its URLs; default: what apt and npm are
        configured with, then the public ones.

    Raises:
      GeexError: see `registries.look_up` and `transfer.fetch`.
    """
    for spec in specs:
        if spec not in lock.packages:
            lock.set(spec, registries.look_up(spec, cache_folder()))
    missing = [x for x in specs if not _here(x, lock.packages[x])]
    known = sum(file.size for spec in missing for file in lock.packages[spec].files)
    label = f"fetch {missing[0] if len(missing) == 1 else 'packages'}"
    progress = files.Progress(label, known / 1e6, "MB")
    for spec in missing:
        pinned = lock.packages[spec]
        lock.set(spec, Pinned(pinned.version, tuple(_fetch(spec, pinned, addresses, progress))))
    if missing:
        progress.close()


def _fetch(
    spec: str,
    pinned: Pinned,
    addresses: Mapping[str, Sequence[str]] | None,
    progress: files.Progress,
) -> Iterator[File]:
    def on_bytes(count: int) -> None:
        progress.update(count / 1e6)

    for file in pinned.files:
        got = transfer.fetch(file, _addresses(spec, addresses), folder_of(spec, pinned), on_bytes)
        progress.total += (got.size - file.size) / 1e6  # npm tells no sizes
        yield got


def _here(spec: str, pinned: Pinned) -> bool:
    """Files are renamed into place once their checksum was right, so size is enough here."""
    paths = paths_of(spec, pinned)
    return all(
        file.size and path.is_file() and path.stat().st_size == file.size
        for file, path in zip(pinned.files, paths, strict=True)
    )


def _addresses(spec: str, addresses: Mapping[str, Sequence[str]] | None) -> Sequence[str]:
    kind, _ = split(spec)
    if addresses is not None:
        return addresses[kind]
    if kind == NPM:
        return tuple(dict.fromkeys((registries.npm_address(), registries.NPM_ADDRESS)))
    return registries.debian_addresses()
