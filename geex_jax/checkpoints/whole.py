"""What makes a saved step whole: a list of its files and their sizes, written before the rename.

Orbax writes a step beside its place and renames it when all processes are done: half a save is
never seen. What is cut short afterwards (a full or failing disk, an interrupted copy) is found by
the list: one small file and a stat for each of a step's files, whatever they weigh.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib

from orbax.checkpoint.path import atomicity

from geex_jax import files

NAME = "geex_files.json"
_METADATA = "_CHECKPOINT_METADATA"
_MARK = ".steps_have_lists"  # in checkpoints/: a step without a list has lost it


class ListedPath(atomicity.AtomicRenameTemporaryPath):
    """Orbax's temporary folder, which lists a step's files just before it is renamed."""

    async def finalize(self, *args: object, **words: object) -> None:
        """Called once, on the first process, when all processes have written their files."""
        if self.get_final().name.isdigit():  # a step, not one of its items
            await asyncio.to_thread(write_list, pathlib.Path(self.get()))
        await super().finalize(*args, **words)


def _sizes(folder: pathlib.Path) -> dict[str, int]:
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = pathlib.Path(root, name)
            found[path.relative_to(folder).as_posix()] = path.stat().st_size
    return found


def write_list(folder: pathlib.Path) -> None:
    """Lists the files of a finished step; those that Orbax writes while it commits are left out."""
    sizes = _sizes(folder)
    for late in (_METADATA, "commit_success.txt"):
        sizes.pop(late, None)
    files.write_json(folder / NAME, sizes)


def expect_lists(checkpoints: pathlib.Path) -> None:
    """Notes in an empty `checkpoints/` that every step in it will have a list."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    (checkpoints / _MARK).touch()


def damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a saved step, in a few words; None if it is whole.

    A step that an earlier version saved has no list and counts as whole if its parts are there.
    """
    path = folder / NAME
    if not path.is_file():
        parts = ("params", "rest", "loader")
        if (folder.parent / _MARK).is_file():
            return f"{NAME} is missing"
        return next((f"{part} is missing" for part in parts if not (folder / part).is_dir()), None)
    try:
        listed = json.loads(path.read_text())
        wanted = {str(name): int(size) for name, size in listed.items()}
    except (ValueError, AttributeError, TypeError):
        return f"{NAME} is cut short"
    try:
        json.loads((folder / _METADATA).read_text())
    except (OSError, ValueError):
        return f"{_METADATA} is missing or cut short"
    found = _sizes(folder)
    for name, size in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != size:
            return f"{name} has {found[name]:,} of {size:,} bytes"
    return None
