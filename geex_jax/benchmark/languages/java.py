"""Java: a resident javac, and a new Java machine for each program."""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages import java_tools
from geex_jax.benchmark.languages.base import Language, head, verdict_of_run, version
from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)
from geex_jax.benchmark.sandbox.helpers import HelperDied
from geex_jax.errors import GeexError

if TYPE_CHECKING:
    import pathlib

    from geex_jax.benchmark.sandbox.finished import Channel, Finished
    from geex_jax.benchmark.sandbox.helpers import Service, Zygote
    from geex_jax.benchmark.sandbox.jail import Jail

_OLDEST = 11  # the data's tests use List.of
_INSTALL = "apt-get install openjdk-17-jdk-headless"
_ASSERTION = r"\bAssertionError\b"
_MEMORY = (
    r"java\.lang\.OutOfMemoryError: (?!unable to create)|"
    r"insufficient memory for the Java Runtime|Cannot reserve"
)
_LATE = b"javac took longer than the limit of CPU time"
_ENV = {"LANG": "C.UTF-8"}
_EMPTY = (
    "class Solution {}\n",
    "public class Main { public static void main(String[] args) { new Solution(); } }\n",
)


class Java(Language):
    """Compiles in one resident javac; runs in a fork that makes its own Java machine."""

    name, title, prefix, data = "java", "Java", "Java", "java"

    def toolchain(self) -> Toolchain:
        """`javac` and `java` of the PATH."""
        versions, missing = {}, []
        for tool in ("javac", "java"):
            line = version([tool, "-version"])
            number = re.search(r'(?:version "|javac )(?:1\.)?(\d+)', line or "")
            if line and number and int(number[1]) >= _OLDEST:
                versions[tool] = line
            else:
                missing.append((f"{tool} {_OLDEST} or newer", _INSTALL))
        advice = []
        if not missing and java_tools.c_compiler() is None:
            advice = [("a C compiler: Java programs start twice as fast", "apt-get install gcc")]
        return Toolchain(versions, tuple(missing), tuple(advice))

    def prepare(self, cache: pathlib.Path) -> None:
        """Builds the compile server, the fork server and archives of the classes they load."""
        java_tools.build(cache)

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """The JDK, and what it links to elsewhere (Debian keeps its settings in /etc)."""
        return java_tools.read(cache).mounts

    def assemble(self, problem: Problem, code: str) -> Program:
        """Prompt, code, tests; the tests hold the class Main."""
        return Program(problem["prompt"] + code + "\n", problem["test"], task_id=problem["task_id"])

    def is_finished(self, code: str) -> bool:
        """Over when it has closed one brace more than it opened."""
        return code.count("{") + 1 == code.count("}")

    def clean(self, code: str) -> str:
        """Cuts a main method of the model's own and what stands behind the last brace."""
        at = code.find("public static void main")
        if at != -1:
            code = code[:at] + "}"
        if "}" in code:
            code = code[: code.rfind("}")] + "}"
        if code.count("{") + 1 == code.count("}"):
            code += "\n}"
        return code

    def start(self, jail: Jail) -> None:
        """Starts the compile server and the fork server, and tries them."""
        self._tools = java_tools.read(jail.cache)
        self._compiler: Service = jail.service(self._tools.server, env=_ENV)
        self._runner: Zygote | None = None
        why = self._tools.why_no_runner
        if not why:
            self._runner = jail.zygote(self._tools.runner, env=_ENV)
            why = self._try(jail)
        if why:
            jail.warn(f"Java: programs run by the java command, twice as slow: {why}")
            self._runner = None
            why = self._try(jail)
            if why:
                raise GeexError(f"an empty program does not run: {why}")

    def _try(self, jail: Jail) -> str:
        """Runs an empty program. Returns why that failed, or ""."""
        try:
            _, verdict = next(self.judge(jail, [Program(*_EMPTY)], Limits()))
        except Exception as error:
            return str(error)
        return "" if verdict.outcome is Outcome.PASSED else verdict.message or "no proof"

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Compiles and runs one after the other."""
        for index, program in enumerate(programs):
            yield index, self._verdict(jail, program, limits)

    def _verdict(self, jail: Jail, program: Program, limits: Limits) -> Verdict:
        good, spent, answer = self._compile(program, limits)
        if good:
            run = self._run(jail, answer, limits)
            return verdict_of_run(run, assertion=_ASSERTION, memory=_MEMORY, compile_seconds=spent)
        outcome = Outcome.TIMEOUT if answer == _LATE else Outcome.COMPILE_ERROR
        return Verdict(outcome, head(answer), compile_seconds=spent)

    def _compile(self, program: Program, limits: Limits) -> tuple[bool, float, bytes]:
        """Returns whether it compiles, CPU seconds, and the classes or what javac said.

        The server that dies is started again; the program had it for itself the second time,
        so that what an earlier one left in memory is not held against it.
        """
        code = program.code.encode("utf-8", "replace")
        request = struct.pack(">I", len(code)) + code + program.test.encode("utf-8", "replace")
        said, began = "", _cpu(self._compiler)
        for _ in range(2):
            try:
                answer = self._compiler.request(request, limits.compile_seconds)
            except TimeoutError:
                self._compiler.restart()
                return False, limits.compile_seconds, _LATE
            except HelperDied as error:
                said = str(error)
                self._compiler.restart()
                began = 0.0
                continue
            return answer[:1] == b"C", _cpu(self._compiler) - began, answer[1:]
        return False, 0.0, f"javac died: {said}".encode()

    def _run(self, jail: Jail, classes: bytes, limits: Limits) -> Finished:
        options = self._tools.run_options(limits.memory_bytes, limits.cpu_seconds)
        channel = jail.channel()
        if self._runner is None:
            return self._run_plainly(jail, classes, options, channel, limits)
        count = int.from_bytes(classes[:4], "big")
        start = f"{channel.fd} {channel.first} {channel.second} {len(options)} {count}\n"
        packed = b"".join(struct.pack(">I", len(x)) + x.encode() for x in options)
        return self._runner.run(
            start.encode() + packed + classes[4:], limits=limits, channel=channel
        )

    def _run_plainly(
        self, jail: Jail, classes: bytes, options: list[str], channel: Channel, limits: Limits
    ) -> Finished:
        """By the java command, as the reference does, but for the launcher in front of Main."""
        folder = os.path.join(jail.work, "classes")
        shutil.rmtree(folder, ignore_errors=True)
        for name, data in _items(classes):
            path = os.path.join(folder, *name.decode().split(".")) + ".class"
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        java, jar = self._tools.launch
        return jail.run(
            [java, *options, "-cp", f"{jar}:{folder}", "JavaLaunch"], limits=limits, env=_ENV,
            stdin=b"%d %d %d" % (channel.fd, channel.first, channel.second), channel=channel,
        )  # fmt: skip


def _cpu(helper: Service) -> float:
    """CPU seconds that a running process has used: its clock, finer than /proc's ticks."""
    try:
        return time.clock_gettime(~helper.pid << 3 | 2)
    except OSError:
        return 0.0


def _items(classes: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields (name, bytes) of each class in the compile server's answer."""
    parts, at = [], 4
    while at < len(classes):
        size = int.from_bytes(classes[at : at + 4], "big")
        parts.append(classes[at + 4 : at + 4 + size])
        at += 4 + size
    yield from zip(parts[::2], parts[1::2], strict=True)
