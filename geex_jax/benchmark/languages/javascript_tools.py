"""JavaScript's tools on this machine: node, a fork server built for it, the package js-md5."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.languages.base import NATIVE, version

OLDEST = 16  # of node; the first with all that node_judge.js uses
PACKAGE = "js-md5@0.7.3"  # problem 162 requires it; 0.8 exports something else
_AGAIN = 3600  # seconds until npm, once it has failed, is asked again
_SYSTEM = ("/usr/", "/bin/", "/lib")  # every sandbox shows these
# The same random numbers for each program, so that a program has one verdict.
_COMMON = ("--random-seed=20230330",)
# As few threads as there can be: a fork has none of the others.
_FLAGS = (*_COMMON, "--single-threaded", "--v8-pool-size=1", "--no-flush-bytecode")
_OPTIONAL = ("--disable-wasm-trap-handler",)  # else each WebAssembly.Memory reserves 10 GB


@dataclasses.dataclass(frozen=True)
class Tools:
    """What the sandbox needs to know.

    Attributes:
      node: path of the interpreter.
      folder: of our files, inside the cache.
      addon: whether the fork server could be built; else `why` not.
      flags: for node as a fork server. plain_flags: for node with one program.
      modules: folders in which `require` looks for packages; relative to the cache, or absolute.
      package: whether js-md5 is in one of them.
      reserved: bytes of memory that node takes hold of at its start; little of it is used.
    """

    node: str
    folder: str
    addon: bool
    why: str
    flags: tuple[str, ...]
    plain_flags: tuple[str, ...]
    modules: tuple[str, ...]
    package: bool
    reserved: int

    @staticmethod
    def read(cache: str | pathlib.Path) -> Tools:
        """What `build` left in `cache`."""
        values: dict[str, Any] = json.loads((pathlib.Path(cache) / "tools.json").read_text())
        for name in ("flags", "plain_flags", "modules"):
            values[name] = tuple(values[name])
        return Tools(**values)


def find_node() -> str | None:
    """Path of node, links resolved; Debian has called it nodejs."""
    path = shutil.which("node") or shutil.which("nodejs")
    return os.path.realpath(path) if path else None


def node_version() -> tuple[str, bool]:
    """Returns (version line or "", whether it is new enough)."""
    node = find_node()
    line = (node and version([node, "--version"])) or ""
    major = line.lstrip("v").partition(".")[0]
    return line, major.isdigit() and int(major) >= OLDEST


def module_folders(cache: pathlib.Path | None) -> tuple[tuple[str, ...], bool]:
    """Returns (folders for `require`, whether js-md5 is in one of them).

    These are NODE_PATH, as the reference has it, and the first other place with js-md5.
    """
    folders = [x for x in os.environ.get("NODE_PATH", "").split(os.pathsep) if os.path.isdir(x)]
    node = find_node()
    others = [str(cache / "node_modules")] if cache else []
    others += [f"{os.path.dirname(os.path.dirname(node))}/lib/node_modules"] if node else []
    others += ["/usr/local/lib/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs"]
    for folder in [*folders, *others]:
        if os.path.isfile(f"{folder}/js-md5/package.json"):
            return tuple(dict.fromkeys(map(os.path.realpath, [*folders, folder]))), True
    return tuple(map(os.path.realpath, folders)), False


def mounts(cache: pathlib.Path) -> list[str]:
    """Host paths of node and packages that no sandbox shows by itself."""
    paths = [*module_folders(cache)[0]]
    node = find_node()
    if node:
        prefix = os.path.dirname(os.path.dirname(node))
        # An installation of its own, as nvm makes them; else nothing but the program.
        paths.append(prefix if os.path.isdir(f"{prefix}/lib/node_modules") else node)
    return [x for x in paths if not x.startswith((*_SYSTEM, os.path.realpath(cache)))]


def build(cache: pathlib.Path) -> None:
    """Builds the fork server and fetches js-md5, unless that was done before."""
    node = find_node()
    if node is None:
        return
    with open(cache / ".lock", "w") as lock:  # workers come here at the same time
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(cache, node)


def _build(cache: pathlib.Path, node: str) -> None:
    from geex_jax import files  # not in sandboxes

    if not module_folders(cache)[1]:
        _install_package(cache)
    modules, package = module_folders(cache)
    own = os.path.realpath(cache / "node_modules")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    sources = [NATIVE / x for x in ("node_zygote.c", "node_judge.js", "zygote.h")]
    key = files.fingerprint(
        node_version()[0], compiler or "", repr(_FLAGS), *(x.read_bytes() for x in sources)
    )
    folder = cache / f"node-{key}"
    if not folder.is_dir():
        _build_folder(folder, node, sources, compiler)
    why = folder / "why"
    found, reserved = json.loads((folder / "probe.json").read_text())
    optional = tuple(found)
    files.write_json(cache / "tools.json", dataclasses.asdict(Tools(
        node=node, folder=folder.name, addon=not why.exists(),
        why=why.read_text() if why.exists() else "",
        flags=_FLAGS + optional, plain_flags=_COMMON + optional,
        modules=tuple("node_modules" if x == own else x for x in modules), package=package,
        reserved=reserved,
    )))  # fmt: skip


def _build_folder(
    folder: pathlib.Path, node: str, sources: Sequence[pathlib.Path], compiler: str | None
) -> None:
    """Makes the folder whole or not at all."""
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".node-") as name:
        new = pathlib.Path(name, "new")
        new.mkdir()
        shutil.copy(sources[1], new)
        (new / "probe.json").write_text(json.dumps(_probe(node)))
        why = "no C compiler" if compiler is None else _compile(compiler, sources[0], new)
        if why:
            (new / "why").write_text(why)
        os.rename(new, folder)


def _compile(compiler: str, source: pathlib.Path, folder: pathlib.Path) -> str:
    """Builds the addon. Returns why not, or ""."""
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", f"{folder}/zygote.node", str(source),
               "-ldl", "-pthread"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else f"{compiler}: {done.stderr.strip()[:300]}"


def _probe(node: str) -> tuple[list[str], int]:
    """Returns (those optional flags that this node knows, bytes that it reserves at its start).

    The other flags are as old as node 16.
    """
    script = "console.log(require('fs').readFileSync('/proc/self/status', 'utf8'))"
    said = []
    for arguments in (["--help"], ["-e", script]):
        try:
            done = subprocess.run(
                [node, *arguments], capture_output=True, text=True, timeout=30, check=True
            )
            said.append(done.stdout)
        except (OSError, subprocess.SubprocessError):
            said.append("")
    reserved = re.search(r"VmData:\s*(\d+) kB", said[1])
    return [x for x in _OPTIONAL if x in said[0]], int(reserved[1]) << 10 if reserved else 0


def _install_package(cache: pathlib.Path) -> None:
    """Gets js-md5 by npm if it can; `Tools.package` says whether it is there."""
    npm, failed = shutil.which("npm"), cache / "npm-failed"
    if npm is None or (failed.exists() and time.time() - failed.stat().st_mtime < _AGAIN):
        return
    with tempfile.TemporaryDirectory(dir=cache, prefix=".npm-") as name:
        command = [npm, "install", "--prefix", name, "--ignore-scripts", "--no-audit",
                   "--no-fund", "--no-save", "--fetch-retries=0", PACKAGE]  # fmt: skip
        try:
            subprocess.run(command, capture_output=True, timeout=30, check=True, cwd=name)
            os.rename(f"{name}/node_modules", cache / "node_modules")
        except (OSError, subprocess.SubprocessError):
            failed.touch()
