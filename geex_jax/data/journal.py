"""OUTPUT/.work: what a killed `prepare` had done already."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
from typing import IO, Any, NamedTuple

from geex_jax import files
from geex_jax.data import manifest
from geex_jax.data.scan import Block
from geex_jax.errors import GeexError

WORK = ".work"
# What `prepare` makes in its output folder, and --overwrite removes.
PRODUCTS = (manifest.NAME, "train", "validation", "validation_text", "tokenizer", WORK)


class ShardDone(NamedTuple):
    """A finished shard, and where the next row of its group goes on."""

    split: str
    language: int
    shard: int
    rows: int
    tokens: int
    next_document: int
    next_offset: int


class Journal:
    """Appends a line for each piece of work done; reads them back after a kill.

    Opening it takes a lock on the folder, which a kill gives back.
    """

    def __init__(self, output: pathlib.Path):
        self.folder = output / WORK
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "w")  # noqa: SIM115 held until close()
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise GeexError(
                f"another geex prepare is writing {output}", "wait for it, or use another --output"
            ) from None
        self._blocks: IO[str] | None = None
        self._shards: IO[str] | None = None

    def begin(self, settings: dict[str, Any], listing: str) -> bool:
        """Records what is being prepared; returns True when an earlier run is resumed.

        Raises:
          GeexError: the earlier run had other settings or saw other input.
        """
        path = self.folder / "settings.json"
        now = {"settings": settings, "listing": listing}
        try:
            before = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            files.write_json(path, now)
            return False
        except ValueError:
            before = {}
        if before == now:
            return True
        changed = [k for k in settings if before.get("settings", {}).get(k) != settings[k]]
        what = "settings (" + ", ".join(changed) + ")" if changed else "input"
        raise GeexError(
            f"{self.folder.parent} holds an interrupted run with other {what}",
            "repeat that run's command to resume it, or add --overwrite to start anew",
        )

    def blocks(self) -> list[Block]:
        """Returns the scan's finished blocks and goes on after them."""
        lines, self._blocks = _reopen(self.folder / "scan.jsonl")
        return [Block([tuple(k) for k in kept], [tuple(d) for d in drop]) for kept, drop in lines]

    def add_block(self, block: Block) -> None:
        """Records a block of the scan."""
        assert self._blocks is not None
        _append(self._blocks, block)

    def shards(self) -> list[ShardDone]:
        """Returns the finished shards and goes on after them."""
        lines, self._shards = _reopen(self.folder / "shards.jsonl")
        return [ShardDone(*line) for line in lines]

    def add_shard(self, shard: ShardDone) -> None:
        """Records a shard, whose file is in place."""
        assert self._shards is not None
        _append(self._shards, shard)
        os.fsync(self._shards.fileno())

    def close(self) -> None:
        """Closes the files and gives the lock back."""
        for file in (self._blocks, self._shards, self._lock):
            if file is not None:
                file.close()

    def remove(self) -> None:
        """Closes and removes the work folder: the output is whole."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def clear(output: pathlib.Path) -> None:
    """Removes what an earlier `prepare` left in its output folder, and nothing else."""
    for name in PRODUCTS:
        path = output / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _append(file: IO[str], value: Any) -> None:
    file.write(json.dumps(value, separators=(",", ":")) + "\n")
    file.flush()


def _reopen(path: pathlib.Path) -> tuple[list[Any], IO[str]]:
    """Returns the whole lines of a journal file, and it, open behind the last of them."""
    values, good = [], 0
    data = path.read_bytes() if path.exists() else b""
    for line in data.splitlines(keepends=True):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn line")
            values.append(json.loads(line))
        except ValueError:
            break
        good += len(line)
    file = open(path, "a", encoding="utf-8")  # noqa: SIM115 the journal closes it
    file.truncate(good)
    return values, file
