"""Corrections of wrong data, in versions: each is a text to replace, the new one, and why.

The published data are the default; `--fixes` takes the newest version, `--fixes v1` that one. A
version never changes once it is out: what is found later goes into the next.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

from geex_jax.errors import GeexError, did_you_mean

FOLDER = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Fix:
    """One correction.

    Attributes:
      task_id: "Go/95". field: of its row.
      old: text that is there once. new: what comes in its place.
      reason: what is wrong.
      effect: what it changes: "canonical solution", "test" or "translation prompt".
    """

    task_id: str
    field: str
    old: str
    new: str
    reason: str
    effect: str


def versions() -> list[str]:
    """All versions, oldest first."""
    return sorted((p.stem for p in FOLDER.glob("v*.json")), key=lambda v: int(v[1:]))


def newest() -> str:
    """The version that `--fixes` takes when none is named."""
    return versions()[-1]


def read(version: str) -> list[Fix]:
    """The corrections of a version.

    Raises:
      GeexError: no such version.
    """
    if version not in versions():
        raise GeexError(f"no corrections {version!r}", did_you_mean(version, versions()))
    about = json.loads((FOLDER / f"{version}.json").read_text("utf-8"))
    return [Fix(**fix) for fix in about["fixes"]]


def apply(
    problems: Sequence[Mapping[str, str]], version: str
) -> tuple[list[dict[str, str]], list[Fix]]:
    """Corrects problems of one or several languages; those given stay as they are.

    A correction whose old text is not there once does nothing: the data are a later copy, or
    another set with the same task ids.

    Returns:
      The problems, and the corrections that were made.
    """
    fixed = {p["task_id"]: dict(p) for p in problems}
    made = []
    for fix in read(version):
        problem = fixed.get(fix.task_id)
        if problem is not None and problem.get(fix.field, "").count(fix.old) == 1:
            problem[fix.field] = problem[fix.field].replace(fix.old, fix.new)
            made.append(fix)
    return list(fixed.values()), made


def listing(version: str | None = None) -> list[tuple[str, str, str]]:
    """(task, what it changes, why) of each correction, equal ones once; for help and README."""
    rows = [(f.task_id, f.effect, f.reason) for f in read(version or newest())]
    return list(dict.fromkeys(rows))
