"""The reference's way to judge a program: one compiler and one process for each, in the open.

Written after the official CodeGeeX evaluator (codegeex/benchmark/execution.py) as a peer for
`geex bench harness`: same programs, same commands. Its limits are of CPU time, as the judge's:
the wall-clock limits of the original fail right programs on a busy machine. It runs what it is
given without any sandbox, so the bench gives it mutants of the canonical solutions only.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from geex_jax.benchmark.languages.types import Program
from geex_jax.errors import GeexError

TIMEOUT = 5.0  # CPU seconds of each process; the original's script has as many of wall time
_GO_FLAGS = {"GO111MODULE": "off", "GOFLAGS": "", "GOPROXY": "off"}


class Reference:
    """Runs programs as the reference does.

    Args:
      language: name of the language.
      folder: for its files and build caches.
      helpers: folder with what the language's `prepare` built (Go's assert, Rust's crates).
    """

    def __init__(self, language: str, folder: pathlib.Path, helpers: pathlib.Path):
        self.language, self.folder, self.helpers = language, folder, helpers
        if language == "python":  # the evaluator has it, so its forks need not import it
            import numpy  # noqa: F401
        folder.mkdir(parents=True, exist_ok=True)

    def judge(self, programs: Sequence[Program], workers: int) -> tuple[list[bool], float, float]:
        """Returns (passed or not for each program, CPU seconds of all processes, wall seconds)."""
        before, started = _cpu(), time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            passed = list(pool.map(self._one, programs))
        return passed, _cpu() - before, time.monotonic() - started

    def _one(self, program: Program) -> bool:
        if self.language == "python":
            return _in_a_process(program.text)
        folder = pathlib.Path(tempfile.mkdtemp(dir=self.folder))
        try:
            return getattr(self, f"_{self.language}")(program, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _cpp(self, program: Program, folder: pathlib.Path) -> bool:
        (folder / "test.cpp").write_text(program.text)
        build = ["/usr/bin/g++", "-std=c++11", "test.cpp", *program.options]
        return _run(build, folder) == 0 and _run(["./a.out"], folder) == 0

    def _java(self, program: Program, folder: pathlib.Path) -> bool:
        (folder / "Main.java").write_text(program.text)
        for _ in range(5):
            status = _run(["javac", "Main.java"], folder)
            if status is not None:
                break
        else:
            return False
        return status == 0 and _run(["java", "-cp", str(folder), "Main"], folder) == 0

    def _javascript(self, program: Program, folder: pathlib.Path) -> bool:
        (folder / "test.js").write_text(program.text)
        env = {"NODE_PATH": f"{self.helpers}/node_modules"}
        done = _run(["node", "test.js"], folder, env, capture=True)
        return done == 0

    def _go(self, program: Program, folder: pathlib.Path) -> bool:
        (folder / "main_test.go").write_text(program.text)
        env = {**_GO_FLAGS, "GOPATH": f"{self.helpers}/gopath:/usr/share/gocode",
               "GOCACHE": str(self.folder / "go-build")}  # fmt: skip
        return _run(["go", "test", f"-timeout={12 * TIMEOUT:g}s", "main_test.go"], folder, env) == 0

    def _rust(self, program: Program, folder: pathlib.Path) -> bool:
        """`rustc --test` with the crates ready-made: less than the reference's two cargo runs."""
        (folder / "main.rs").write_text(program.text)
        flags = (self.helpers / "reference-flags").read_text().split()
        build = ["rustc", "--edition", "2021", "--test", "main.rs", "-o", "main", *flags]
        return _run(build, folder) == 0 and _run(["./main"], folder) == 0


def _run(
    command: list[str], folder: pathlib.Path, env: dict[str, str] | None = None,
    capture: bool = False, seconds: float = 12 * TIMEOUT,
) -> int | None:  # fmt: skip
    """Exit status, None after the time limit; with `capture`, 1 if anything was printed."""
    with subprocess.Popen(
        command, cwd=folder, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=_limit,
    ) as process:  # fmt: skip
        try:
            out, errors = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the reference leaves orphans here
            process.communicate()
            return None
    return int(bool(out or errors)) if capture else process.returncode


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(TIMEOUT), int(TIMEOUT) + 1))


def _in_a_process(text: str) -> bool:
    """Python: a manager and a forked process for each program, exec in it."""
    context = multiprocessing.get_context("fork")
    with context.Manager() as manager:
        result: Any = manager.list()
        process = context.Process(target=_execute, args=(text, result))
        process.start()
        process.join(timeout=12 * TIMEOUT)
        if process.is_alive():
            process.kill()
            process.join()
        return bool(result) and result[0] == "passed"


def _execute(text: str, result: Any) -> None:
    signal.signal(signal.SIGPROF, _too_late)
    signal.setitimer(signal.ITIMER_PROF, TIMEOUT)  # of CPU time
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing), \
            contextlib.redirect_stderr(nothing):  # fmt: skip
        try:
            exec(text, {})
            result.append("passed")
        except BaseException as error:
            result.append(f"failed: {error}")
    signal.setitimer(signal.ITIMER_PROF, 0)


def _too_late(*_: object) -> None:
    raise TimeoutError


def _cpu() -> float:
    own, children = (
        resource.getrusage(x) for x in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def check_tools(language: str) -> None:
    """Raises GeexError if the reference's command is not there."""
    tools = {"cpp": ["/usr/bin/g++"], "java": ["javac", "java"], "javascript": ["node"],
             "go": ["go"], "rust": ["rustc"]}  # fmt: skip
    for tool in tools.get(language, []):
        if shutil.which(tool) is None:
            raise GeexError(f"{tool} is not installed", "see 'geex doctor', or leave its language")
