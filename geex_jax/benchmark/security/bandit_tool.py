"""Runs bandit, where it is installed, over many Python samples at once."""

from __future__ import annotations

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

BATCH = 1000  # samples a call
# Asserts are no weakness in an answer to a task.
SKIPPED = "B101"


def scan(codes: list[str], seconds: float) -> tuple[list[list[dict[str, Any]]], list[str]]:
    """Returns the findings of bandit for each code, and notes about what it did not read.

    Args:
      codes: Python text; the bare body of a function will do.
      seconds: wall time for all of them.
    """
    found: list[list[dict[str, Any]]] = [[] for _ in codes]
    if importlib.util.find_spec("bandit") is None:
        return found, ["bandit is not installed: pip install bandit (Python had our rules only)"]
    end = time.monotonic() + seconds
    waiting = [range(i, min(i + BATCH, len(codes))) for i in range(0, len(codes), BATCH)]
    late = unread = 0
    while waiting:
        batch = waiting.pop()
        left = end - time.monotonic()
        if left <= 0:
            late += len(batch)
            continue
        # Half of the time left, so that one sample that hangs it does not cost all the others.
        report = _run([codes[i] for i in batch], max(left / 2, 1.0))
        if report is not None:
            unread += len(report["errors"])
            for hit in report["results"]:
                i = batch[int(pathlib.PurePath(hit["filename"]).stem)]
                found[i].append(_finding(hit, codes[i]))
        elif len(batch) == 1:
            unread += 1
        else:  # find the one that breaks it
            half = len(batch) // 2
            waiting += batch[:half], batch[half:]
    notes = []
    if unread:
        notes.append(f"bandit could not read {unread:,} of {len(codes):,} distinct Python samples.")
    if late:
        notes.append(f"bandit ran out of time ({seconds:g} s): {late:,} Python samples not read.")
    return found, notes


def _is_body(code: str) -> bool:
    for line in code.split("\n"):
        if line.strip() and not line.lstrip().startswith("#"):
            return line[0] in " \t"
    return False


def _finding(hit: dict[str, Any], code: str) -> dict[str, Any]:
    severity = hit["issue_severity"].lower()
    return {
        "rule": hit["test_id"],
        "severity": severity if severity in ("low", "medium", "high") else "low",
        "line": max(1, hit["line_number"] - _is_body(code)),
        "message": " ".join(hit["issue_text"].split()),
    }


def _run(codes: list[str], seconds: float) -> dict[str, Any] | None:
    """Returns bandit's report, or None if it broke or took too long."""
    with tempfile.TemporaryDirectory(prefix="geex-bandit-") as folder:
        for i, code in enumerate(codes):
            text = ("def body():\n" if _is_body(code) else "") + code
            pathlib.Path(folder, f"{i}.py").write_bytes(text.encode("utf-8", "replace"))
        # -P: the folder of the samples is not where modules come from.
        command = [sys.executable, "-P", "-m", "bandit", "-q", "-f", "json", "--exit-zero"]
        command += ["--ignore-nosec", "-s", SKIPPED, "-r", "."]
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=seconds, check=False,
            )  # fmt: skip
            report = json.loads(done.stdout)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            return None
    return report if isinstance(report, dict) and "results" in report else None
