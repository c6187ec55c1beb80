"""Verdicts by exact program, toolchain and limits, kept between runs."""

from __future__ import annotations

import json
import pathlib
import sqlite3
import threading

from geex_jax import files
from geex_jax.benchmark.languages.types import Outcome, Verdict

JUDGE = "1"  # part of every key: raise it when verdicts change


class VerdictCache:
    """A table key -> verdict in one SQLite file, safe for several threads and processes.

    Args:
      path: the file, or None to keep verdicts in memory only.
    """

    def __init__(self, path: files.Path | None):
        if path is not None:
            pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        try:
            self._open(path)
        except sqlite3.DatabaseError:  # cut off or not ours: verdicts can be made again
            assert path is not None
            pathlib.Path(path).replace(f"{path}.broken")
            self._open(path)

    def _open(self, path: files.Path | None) -> None:
        self._table = sqlite3.connect(
            str(path) if path is not None else ":memory:", timeout=60, check_same_thread=False
        )
        self._table.execute("PRAGMA journal_mode=WAL")
        self._table.execute("PRAGMA synchronous=NORMAL")
        self._table.execute(
            "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, verdict TEXT NOT NULL)"
        )

    def get(self, key: str) -> Verdict | None:
        """The verdict of that key, if there is one."""
        with self._lock:
            row = self._table.execute(
                "SELECT verdict FROM verdicts WHERE key = ?", (key,)
            ).fetchone()
        if row is None:
            return None
        fields = json.loads(row[0])
        return Verdict(**{**fields, "outcome": Outcome(fields["outcome"])})

    def put(self, key: str, verdict: Verdict) -> None:
        """Keeps a verdict; what was not run is not kept."""
        if verdict.outcome is Outcome.NOT_RUN:
            return
        with self._lock, self._table:
            self._table.execute(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?)", (key, json.dumps(vars(verdict)))
            )

    def close(self) -> None:
        """Closes the file."""
        self._table.close()
