"""OUTPUT/.work: what a killed `prepare` had done already."""

from __future__ import annotations

import fcntl
import json
import pathlib
import shutil
from typing import IO, Any

from geex_jax import files
from geex_jax.data import manifest
from geex_jax.errors import GeexError

WORK = ".work"
REPORT = "report.json"
DUPLICATES = "duplicates.npy"
# What `prepare` makes in its output folder, and --overwrite removes.
PRODUCTS = (
    manifest.NAME, REPORT, DUPLICATES, "train", "validation", "validation_text", "tokenizer", WORK,
)  # fmt: skip


class Journal:
    """Appends a line for each task done, a file for each phase; reads them back after a kill.

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
        self._open: dict[str, IO[str]] = {}

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

    def done(self, phase: str) -> dict[int, dict[str, Any]]:
        """Returns the results of a phase's finished tasks by number, and goes on after them."""
        lines, self._open[phase] = _reopen(self.folder / f"{phase}.jsonl")
        return dict(lines)

    def add(self, phase: str, number: int, result: dict[str, Any]) -> None:
        """Records a task, whose files are in place."""
        file = self._open[phase]
        file.write(json.dumps([number, result], separators=(",", ":")) + "\n")
        file.flush()

    def close(self) -> None:
        """Closes the files and gives the lock back."""
        for file in (*self._open.values(), self._lock):
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
