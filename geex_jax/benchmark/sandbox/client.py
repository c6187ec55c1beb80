"""The host's side of a sandbox: starts one for a language, sends programs, receives verdicts."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from geex_jax import version
from geex_jax.benchmark.languages.base import Language
from geex_jax.benchmark.languages.types import Limits, Program, Verdict
from geex_jax.benchmark.languages.types import Outcome as Outcomes
from geex_jax.benchmark.sandbox import layers, native
from geex_jax.errors import GeexError

_PACKAGES = str(pathlib.Path(version.__file__).parent.parent)
_START = "import sys; sys.path.insert(0, sys.argv[1]); " \
    "from geex_jax.benchmark.sandbox.entry import main; main(int(sys.argv[2]))"  # fmt: skip
SPAWN = "/geex-spawn.so"
UNSAFE = "--unsafe-i-know runs without what is missing"


class SandboxDied(Exception):
    """The sandbox ended in the middle of a batch; what was not judged has to be given again."""


class Sandbox:
    """A running sandbox of one language. Use it from one thread at a time.

    Args:
      language: whose programs it judges.
      cache: folder of the language's helpers; `language.prepare` is called here.
      unsafe: go on where namespaces or seccomp are missing.
      debug: let the inside print tracebacks to this process's standard error.

    Attributes:
      warnings: what the inside had to say (slower ways taken, helpers that did not start).
      lacking: layers that are missing, in words.

    Raises:
      GeexError: the kernel does not allow a layer and `unsafe` is not set, or the language's
        tools do not start.
    """

    def __init__(
        self, language: Language, cache: pathlib.Path, *, unsafe: bool = False, debug: bool = False
    ):
        self.language = language
        self.warnings: list[str] = []
        self.lacking: list[str] = []
        self.cpu_seconds = 0.0
        self._unsafe, self._debug = unsafe, debug
        folder = cache / language.name
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            language.prepare(folder)
        self._folder = folder
        self._spawn = native.build("spawn.c", cache / "sandbox")
        self._temporary: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        filters = seccomp_works()
        why = self._launch(namespaces=True, filters=filters)
        if why or not filters:
            lacking = [*(["namespaces: " + why] if why else []),
                       *([] if filters else ["seccomp"])]  # fmt: skip
            if not self._unsafe:
                self.close()
                raise GeexError(
                    f"the sandbox lacks {', '.join(lacking)}: model-written programs would run "
                    "without it", f"{_remedy()}; or {UNSAFE}",
                )  # fmt: skip
            if why:
                why = self._launch(namespaces=False, filters=filters)
                if why:
                    raise GeexError(f"{self.language.title}: {why}", "see 'geex doctor'")
            self.lacking = [*lacking, *self.lacking]

    def _launch(self, namespaces: bool, filters: bool) -> str:
        """Starts the process. Returns why its namespaces were refused, or ""."""
        ours, theirs = socket.socketpair()
        root = os.geteuid() == 0
        work, tmp = layers.WORK, layers.TMP
        if not namespaces:
            work, tmp = (tempfile.mkdtemp(prefix=f"geex-{x}-") for x in ("work", "tmp"))
            self._temporary += [work, tmp]
            if root:
                os.chown(work, layers.OUTSIDE + layers.SERVICE, layers.OUTSIDE + layers.SERVICE)
                os.chmod(work, 0o711)
            os.chmod(tmp, 0o777 if root else 0o700)
        module = type(self.language).__module__
        numpy = importlib.util.find_spec("numpy")
        packages = os.path.dirname(os.path.dirname(numpy.origin)) if numpy and numpy.origin else ""
        settings: dict[str, Any] = {
            "language": f"{module}:{type(self.language).__qualname__}",
            "binds": self._binds(packages), "work_bytes": 2 << 30,
            "several_users": root, "namespaces": namespaces, "filters": filters,
            "work": work, "tmp": tmp, "cache": layers.CACHE if namespaces else str(self._folder),
            "packages": layers.PACKAGES if namespaces else packages,
            "spawn": (SPAWN if namespaces else str(self._spawn)) if self._spawn else "",
            "debug": self._debug,
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _START, _PACKAGES, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=None if self._debug else subprocess.DEVNULL, start_new_session=True,
            # Nothing of the user's environment goes along: it may hold keys.
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8",
                 "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0",
                 "OPENBLAS_NUM_THREADS": "1",
                 **{k: v for k, v in os.environ.items() if k.startswith("OPENBLAS_CORE")}},
        )  # fmt: skip
        theirs.close()
        self._control = ours
        self._stream = ours.makefile("rb")
        self._send(settings)
        while True:
            event = self._receive()
            if event["event"] == "unshared":
                self._write_maps()
                self._control.sendall(b"go\n")
            elif event["event"] == "warn":
                self.warnings.append(event["text"])
            elif event["event"] == "refused":
                self._process.wait()
                return event["why"]
            elif event["event"] == "broken":
                self.close()
                raise GeexError(f"{self.language.title}: {event['why']}", "see 'geex doctor'")
            else:
                self.lacking = event["lacking"]
                return ""

    def _binds(self, packages: str) -> list[tuple[str, str]]:
        own = [sys.base_prefix, os.path.realpath(sys.executable)]
        binds = [(path, path) for path in (*own, *self.language.mounts(self._folder))]
        binds.append((str(self._folder.resolve()), layers.CACHE))
        if self._spawn:
            binds.append((str(self._spawn.resolve()), SPAWN))
        if packages:
            binds += [
                (f"{packages}/{x}", f"{layers.PACKAGES}/{x}") for x in ("numpy", "numpy.libs")
            ]
        return list(dict.fromkeys(binds))

    def _write_maps(self) -> None:
        assert self._process is not None
        folder = pathlib.Path(f"/proc/{self._process.pid}")
        uids, gids = layers.id_maps(os.geteuid(), os.getegid())
        try:
            if os.geteuid() != 0:
                (folder / "setgroups").write_text("deny")
            (folder / "gid_map").write_text(gids)
            (folder / "uid_map").write_text(uids)
        except OSError as error:
            self._control.close()
            raise GeexError(
                f"cannot map users into the sandbox: {error.strerror}", _remedy()
            ) from None

    def judge(self, programs: Sequence[Program], limits: Limits) -> Iterator[tuple[int, Verdict]]:
        """Yields (index, verdict) for each program, in any order.

        Raises:
          SandboxDied: it ended in the middle; a new one has been started. Give what is left
            again, one by one, to find the culprit.
        """
        request = {
            "programs": [dataclasses.asdict(p) for p in programs],
            "limits": dataclasses.asdict(limits),
        }
        try:
            self._send(request)
            while True:
                event = self._receive()
                kind = event.pop("event")
                if kind == "verdict":
                    index = event.pop("index")
                    event["outcome"] = Outcomes(event["outcome"])
                    yield index, Verdict(**event)
                elif kind == "warn":
                    self.warnings.append(event["text"])
                elif kind == "done":
                    self.cpu_seconds += event["cpu_seconds"]
                    return
                else:
                    raise SandboxDied(event.get("why", ""))
        except (OSError, SandboxDied) as error:
            self.close()
            self._start()
            raise SandboxDied(str(error)) from None

    def close(self) -> None:
        """Ends it and all that runs in it."""
        if self._process is None:
            return
        self._stream.close()
        self._control.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for folder in self._temporary:
            shutil.rmtree(folder, ignore_errors=True)
        self._temporary = []

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, message: dict[str, Any]) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def _receive(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise SandboxDied("it ended without a word")
        return json.loads(line)


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Helpers are built by one thread of one process at a time; the others find them built."""
    with open(folder / ".building", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    if os.geteuid() == 0:  # the users inside are not root: a strict umask would shut them out
        for path in (folder, *folder.rglob("*")):
            mode = path.lstat().st_mode
            wanted = mode | (0o055 if stat.S_ISDIR(mode) or mode & 0o100 else 0o044)
            if wanted != mode and not stat.S_ISLNK(mode):
                path.chmod(wanted)


def seccomp_works() -> bool:
    """Whether this kernel has seccomp filters."""
    try:
        with open("/proc/self/status") as file:
            return any(line.startswith("Seccomp:") for line in file)
    except OSError:
        return False


def _remedy() -> str:
    for name in ("apparmor_restrict_unprivileged_userns", "unprivileged_userns_clone"):
        try:
            with open(f"/proc/sys/kernel/{name}") as file:
                value = file.read().strip()
        except OSError:
            continue
        if name.startswith("apparmor") and value == "1":
            return f"allow user namespaces: sudo sysctl kernel.{name}=0"
        if name.startswith("unprivileged") and value == "0":
            return f"allow user namespaces: sudo sysctl kernel.{name}=1"
    return "run on a machine whose kernel allows user namespaces, or as root"
