"""The Go toolchain: where it is, and the judge's packages, compiled by it."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

from geex_jax.benchmark.languages.base import NATIVE
from geex_jax.errors import GeexError
from geex_jax.files import atomic_write, fingerprint, write_json

OLDEST = (1, 18)
INSTALL = "sudo apt-get install golang-go"
ASSERT = "github.com/stretchr/testify/assert"
LANGUAGE = "go1.18"  # what the reference's go.mod says
# What programs may import besides the judge's own; of newer Go, what is there.
_PACKAGES = frozenset((
    "bufio", "bytes", "cmp", "container/heap", "container/list", "container/ring", "context",
    "crypto/md5", "crypto/rand", "crypto/sha1", "crypto/sha256", "crypto/sha512",
    "encoding/base64", "encoding/binary", "encoding/csv", "encoding/hex", "encoding/json",
    "errors", "flag", "fmt", "hash", "hash/crc32", "hash/fnv", "io", "io/ioutil", "iter", "log",
    "maps", "math", "math/big", "math/bits", "math/cmplx", "math/rand", "math/rand/v2", "net",
    "os", "os/exec", "os/signal", "path", "path/filepath", "reflect", "regexp", "runtime",
    "runtime/debug", "slices", "sort", "strconv", "strings", "sync", "sync/atomic", "syscall",
    "text/tabwriter", "text/template", "time", "unicode", "unicode/utf16", "unicode/utf8",
))  # fmt: skip
_ANALYZERS = ("atomic", "bool", "buildtags", "directive", "errorsas", "ifaceassert", "nilfunc",
              "printf", "stringintconv", "tests")  # fmt: skip
_SINCE = {"directive": (1, 21), "tests": (1, 24)}  # when `go test` began to run them


def find_go() -> str | None:
    """Path of the `go` command, also where its own installer puts it."""
    return shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")


def number(version: str) -> tuple[int, int]:
    """(1, 19) of "go version go1.19.8 linux/amd64"; development versions count as newest."""
    found = re.search(r"go(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (99, 0)


def prepare(cache: pathlib.Path) -> None:
    """Compiles the judge's packages into a folder of `cache`, once for each toolchain.

    `cache/current` then names the folder; what is in it is described at `tools`.

    Raises:
      GeexError: Go is missing or does not compile them.
    """
    go = find_go()
    if go is None:
        raise GeexError("Go is not installed", INSTALL)
    real = os.path.realpath(go)
    status = os.stat(real)
    own = (pathlib.Path(__file__), *sorted(NATIVE.glob("go_*.go")))
    sources = [path.read_bytes() for path in own]
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    name = f"go-{fingerprint(real, stamp, *sources)}"
    if not (cache / name).is_dir():
        _make(go, cache, name)
    current = cache / "current"
    if not current.exists() or current.read_text() != name:
        with atomic_write(current) as file:
            file.write(name)


def _make(go: str, cache: pathlib.Path, name: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".go-") as temporary:
        made = pathlib.Path(temporary) / name
        made.mkdir()
        try:
            _build(go, made, pathlib.Path(temporary))
        except subprocess.CalledProcessError as error:
            what = (error.stderr or error.stdout or str(error)).strip().splitlines()
            raise GeexError(
                f"{go} cannot compile the judge's packages: {what[-1] if what else error}",
                "check it with 'go build std', or install another Go",
            ) from None
        # Cover what the umask took away: another user reads this inside the sandbox.
        for path in (made, *made.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.rename(made, cache / name)


def tools(cache: str | pathlib.Path) -> dict[str, Any]:
    """What `prepare` found and made.

    Returns:
      root: GOROOT. folder: GOTOOLDIR. vet: its flags. packages: import path -> compiled file,
      of what programs may import; own: the same of what only the runner may; all: both and
      all that they need. Files of the cache are relative to it.
    """
    folder = pathlib.Path(cache) / (pathlib.Path(cache) / "current").read_text()
    return json.loads((folder / "tools.json").read_text())


def _run(*command: str, env: dict[str, str], cwd: pathlib.Path) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=env, cwd=cwd, errors="replace",
        stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip


def _build(go: str, made: pathlib.Path, temporary: pathlib.Path) -> None:
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GO", "CGO"))},
        "GOCACHE": str(temporary / "build"), "GOPATH": str(temporary / "path"),
        "GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "GOENV": "off",
        "CGO_ENABLED": "0",
    }  # fmt: skip
    root, folder, version = _run(
        go, "env", "GOROOT", "GOTOOLDIR", "GOVERSION", env=env, cwd=temporary
    ).splitlines()
    if number(version) < OLDEST:
        raise GeexError(f"{go} is {version}, too old", "install Go 1.18 or newer")
    standard = set(_run(go, "list", "std", env=env, cwd=temporary).split()) & _PACKAGES
    lines = _run(
        go, "list", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", *sorted(standard),
        env=env, cwd=temporary,
    ).splitlines()  # fmt: skip
    every = {}
    for line in lines:
        path, _, file = line.partition("=")
        if file and not file.startswith(root):  # of Go's build cache, which is about to go
            shutil.copyfile(file, made / f"{len(every)}.a")
            file = f"{made.name}/{len(every)}.a"
        if file:
            every[path] = file
    packages = {k: v for k, v in every.items() if k in standard}
    own: dict[str, str] = {}
    for path, source, known in (
        ("judge", "go_judge.go", packages),
        ("testing", "go_testing.go", own),
        (ASSERT, "go_assert.go", {}),
    ):
        archive = f"{made.name}/{source.removesuffix('.go')}.a"
        table = {k: made.parent / v for k, v in {**packages, **known}.items()}
        config = import_table(table, temporary / "import")
        _run(f"{folder}/compile", "-o", str(made.parent / archive), "-p", path, "-complete",
             f"-lang={LANGUAGE}", "-dwarf=false", "-trimpath", f"{NATIVE}=>{path}",
             "-importcfg", config, str(NATIVE / source), env=env, cwd=temporary)  # fmt: skip
        every[path] = own[path] = archive
    packages |= {"testing": own["testing"], ASSERT: own[ASSERT]}
    flags = {x["Name"] for x in json.loads(_run(f"{folder}/vet", "-flags", env=env, cwd=made))}
    vet = [f"-{x}" for x in _ANALYZERS if x in flags and _SINCE.get(x, OLDEST) <= number(version)]
    write_json(made / "tools.json", {
        "root": root, "folder": folder, "version": version, "vet": vet, "packages": packages,
        "own": {x: own[x] for x in ("judge", "testing")}, "all": every,
    })  # fmt: skip


def import_table(files: dict[str, Any], path: str | pathlib.Path) -> str:
    """Writes an import table for compiler or linker. Returns its path."""
    with open(path, "w") as file:
        file.writelines(f"packagefile {k}={v}\n" for k, v in files.items())
    return str(path)
