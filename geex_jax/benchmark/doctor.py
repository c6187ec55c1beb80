"""What is installed for judging programs, what is missing, and the commands that install it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

from geex_jax.benchmark import languages
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox import native
from geex_jax.benchmark.sandbox.client import Sandbox
from geex_jax.errors import GeexError
from geex_jax.files import cache_folder

# Harmless programs, each of which touches one wall. What they do to it must not succeed.
_PROBES = {
    "a network of its own": "import socket\nsocket.socket()",
    "no further processes": "import os\nos.fork()",
    "a read-only root": "open('/usr/geex-probe', 'w')",
    "signals to itself only": "import os\nos.kill(os.getppid(), 0)",
    "no home folders to see": "import os\nassert os.listdir('/home') and os.listdir('/root')",
    "memory": "bytearray(1 << 40)",
    "CPU time": "while True: pass",
    "output": "while True: print('x' * 1000)",
    "early exit is no success": "import os\nos._exit(0)",
}


def sandbox(say: Callable[[str], None]) -> bool:
    """Starts a sandbox and tries its walls. Returns whether all of them stand."""
    limits = Limits(cpu_seconds=1, wall_seconds=5, output_bytes=1 << 20)
    try:
        with Sandbox(languages.get("python"), cache_folder() / "toolchains") as box:
            programs = [Program(code, "") for code in _PROBES.values()]
            verdicts = dict(box.judge([Program("x = 1\n", "assert x\n"), *programs], limits))
            lacking = box.lacking
    except GeexError as error:
        say(f"sandbox: {error}")
        return False
    well = verdicts[0].outcome is Outcome.PASSED and not lacking
    for number, name in enumerate(_PROBES, 1):
        held = verdicts[number].outcome is not Outcome.PASSED
        well &= held
        say(f"  {'holds ' if held else 'BROKEN'}  {name}: {verdicts[number].outcome}")
    for text in lacking:
        say(f"  lacks   {text}")
    return well


def toolchains(names: list[str], start: bool, say: Callable[[str], None]) -> bool:
    """Lists each language's tools. Returns whether all of them can be run.

    Args:
      names: of the languages.
      start: also start each one's sandbox, which builds its helpers and tries them.
      say: prints a line.
    """
    well = True
    for name in names:
        language = languages.get(name)
        tools = language.toolchain()
        found = ", ".join(f"{k} ({v})" for k, v in tools.versions.items()) or "nothing found"
        say(f"{language.title}: {found}")
        for what, how in tools.missing:
            say(f"  missing {what}: {how}")
        for what, how in tools.advice:
            say(f"  better with {what}: {how}")
        well &= not tools.missing
        if start and not tools.missing:
            began = time.monotonic()
            try:
                with Sandbox(language, cache_folder() / "toolchains") as box:
                    warnings = box.warnings
            except GeexError as error:
                say(f"  {error}")
                well = False
                continue
            say(f"  starts in {time.monotonic() - began:.1f} s")
            for text in warnings:
                say(f"  {text}")
    return well


def machine() -> str:
    """One line about this machine."""
    release = platform.freedesktop_os_release() if os.path.exists("/etc/os-release") else {}
    compiler = native.compiler() or "none, so programs start slower: apt-get install gcc"
    return (
        f"{release.get('PRETTY_NAME', platform.system())}, kernel {platform.release()}, "
        f"{len(os.sched_getaffinity(0))} cores, C compiler {compiler}"
    )
