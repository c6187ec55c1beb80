"""Files that are whole or absent, fingerprints, and progress lines."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import IO, Any

Path = str | os.PathLike[str]


def cache_folder() -> pathlib.Path:
    """Where what can be made or fetched again is kept: $GEEX_CACHE, else ~/.cache/geex."""
    if chosen := os.environ.get("GEEX_CACHE"):
        return pathlib.Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(home) / "geex"


@contextlib.contextmanager
def atomic_write(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Opens a temporary neighbour of `path`; renames it there if the block ends well.

    A reader sees the old file or the whole new one, also after a kill or a full disk.

    Args:
      path: the file to write; its folder is made.
      mode: "w" (UTF-8 text) or "wb".
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(temporary, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON with sorted keys, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, sort_keys=True)
        file.write("\n")


def fingerprint(*parts: bytes | str) -> str:
    """Returns 16 hex digits of a SHA-256 over the parts, each preceded by its length."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:16]


class Progress:
    """A progress line: done/total, rate and time left.

    On a terminal the line is rewritten; elsewhere a new one is printed every `every` seconds.
    """

    def __init__(
        self, label: str, total: float, unit: str = "", every: float = 10.0, start: float = 0.0
    ):
        self.label, self.total, self.unit = label, total, unit
        self.done = self.first = start
        self.started = time.monotonic()
        self.live = sys.stderr.isatty()
        self.every = 0.2 if self.live else every
        self.last = self.started

    def update(self, amount: float = 1.0, note: str = "") -> None:
        """Adds `amount` to what is done and prints if it is time."""
        self.done += amount
        now = time.monotonic()
        if now - self.last >= self.every:
            self.last = now
            self._print(note)

    def close(self, note: str = "") -> None:
        """Prints the last state and ends the line."""
        self._print(note)
        if self.live:
            print(file=sys.stderr)

    def _print(self, note: str) -> None:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = (self.done - self.first) / elapsed
        left = (self.total - self.done) / rate if rate > 0 else 0.0
        text = (
            f"{self.label}: {self.done:,.0f}/{self.total:,.0f} {self.unit} "
            f"({rate:,.1f}/s, {seconds(elapsed)} gone, {seconds(left)} left) {note}"
        )
        print(f"\r{text}\x1b[K" if self.live else text, end="" if self.live else "\n",
              file=sys.stderr, flush=True)  # fmt: skip


def seconds(value: float) -> str:
    """Returns a duration for people: 42s, 3m07s, 2h05m."""
    value = int(max(value, 0))
    if value < 60:
        return f"{value}s"
    if value < 3600:
        return f"{value // 60}m{value % 60:02d}s"
    return f"{value // 3600}h{value % 3600 // 60:02d}m"
