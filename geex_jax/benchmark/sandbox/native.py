"""Builds small C helpers on the user's machine, once."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from collections.abc import Sequence

from geex_jax import files

NATIVE = pathlib.Path(__file__).parent.parent / "languages" / "native"


def compiler() -> str | None:
    """Path of a C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def build(name: str, cache: pathlib.Path, flags: Sequence[str] = ()) -> pathlib.Path | None:
    """Compiles `languages/native/NAME` into a shared library in `cache`.

    Args:
      name: "spawn.c".
      cache: folder; a library of the same sources, compiler and flags is used again.
      flags: further arguments of the compiler.

    Returns:
      Its path, or None where there is no C compiler or it cannot build it.
    """
    tool = compiler()
    if tool is None:
        return None
    sources = [NATIVE / name, *sorted(NATIVE.glob("*.h"))]
    parts = [x.read_bytes() for x in sources]
    key = files.fingerprint(*parts, os.path.realpath(tool), *flags)
    target = cache / f"{pathlib.Path(name).stem}-{key}.so"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(f".tmp-{os.getpid()}")
    command = [tool, "-O2", "-shared", "-fPIC", "-o", str(temporary), str(sources[0]), *flags]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=120)
        os.replace(temporary, target)
    except (OSError, subprocess.SubprocessError):
        temporary.unlink(missing_ok=True)
        return None
    return target
