"""results.jsonl: one row for each judged sample, appended as they come."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from geex_jax import files
from geex_jax.errors import GeexError

Row = dict[str, Any]
Identity = tuple[str, str, str, int]


def identity(row: Row) -> Identity:
    """What makes a row one sample: set of tests, source language, task, number."""
    return row.get("set", "given"), row.get("source") or "", row["task_id"], row["sample"]


class Results:
    """The file of a run's rows.

    Args:
      path: results.jsonl; rows that are there already are read. A last line that a kill cut off
        is dropped.

    Attributes:
      rows: identity -> row.

    Raises:
      GeexError: a line in the middle is not a row.
    """

    def __init__(self, path: files.Path):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[Identity, Row] = {}
        end = 0
        if self.path.exists():
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        break
                    try:
                        row = json.loads(line)
                        self.rows[identity(row)] = row
                    except (ValueError, KeyError, TypeError):
                        raise GeexError(
                            f"{self.path}, line {number}, is not a result",
                            "give another --output, or remove the file",
                        ) from None
                    end += len(line)
        self._file = open(self.path, "ab")  # noqa: SIM115 - open as long as the run
        self._file.truncate(end)

    def add(self, row: Row) -> None:
        """Appends a row; it is in the file when this returns."""
        self.rows[identity(row)] = row
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def rewrite(self) -> None:
        """Writes each sample's last row once, atomically."""
        self._file.close()
        with files.atomic_write(self.path, "wb") as file:
            for row in self.rows.values():
                file.write(json.dumps(row).encode() + b"\n")
        self._file = open(self.path, "ab")  # noqa: SIM115

    def close(self) -> None:
        """Closes the file, with all of it on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
