"""JavaScript: a fork of a node process that is up already, or a node process of its own."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages import javascript_tools
from geex_jax.benchmark.languages.base import Language, verdict_of_run
from geex_jax.benchmark.languages.javascript_tools import OLDEST, PACKAGE, Tools
from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)
from geex_jax.benchmark.sandbox.helpers import HelperDied

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.finished import Channel, Finished
    from geex_jax.benchmark.sandbox.helpers import Zygote
    from geex_jax.benchmark.sandbox.jail import Jail

PRINTS_OK = "prints-ok"  # option of a program: what it prints does not fail it
_SYNTAX, _FAILED = 83, 84  # exit statuses of node_judge.js
_HEAD = struct.Struct("<iii4I")  # struct header of node_zygote.c
_MEMORY = (
    r"JavaScript heap out of memory|process out of memory|Array buffer allocation failed|"
    r"(?:could not|Failed to) allocate memory"
)
_CALL = re.compile(
    r"(?<![\w$.'\"`])(console|JSON|Math|Number|String|Array|Object)\s*\.\s*(\w+)(?=\s*\()"
)
_NOISE = re.compile(r"(?m)^(?: +at .*(?:node_judge\.js|node:internal).*|Node\.js v.*)\n?")
_METHOD = re.compile(r"(?<!\$geex)\.\s*(\w+)\s*\(")
_TRIAL = "console.assert(JSON.stringify(f(1)) === '[2]')\n"
# What the fork server has to judge rightly before it is trusted.
_TRIALS = (
    ("const f = x => [x + 1]", Outcome.PASSED),
    ("const f = x => [x]", Outcome.WRONG_ANSWER),
    ("const f = x => { throw new Error('no') }", Outcome.RUNTIME_ERROR),
    ("const f = x => f(x)", Outcome.RUNTIME_ERROR),
    ("const f = x => { console.log(x); return [2] }", Outcome.WRONG_ANSWER),
    ("const f = x => {", Outcome.COMPILE_ERROR),
    ("process.exit(0); const f = x => [2]", Outcome.RUNTIME_ERROR),
    ("const f = x => [2]; Promise.reject(new Error('no'))", Outcome.RUNTIME_ERROR),
    ("const f = x => [2]; setTimeout(() => { Promise.resolve().then(() => console.log(1)) }, 2)",
     Outcome.WRONG_ANSWER),
    ("const f = x => { let a; for (let i = 0; i < 40; i++) { a = []; for (let j = 0; j < 5e4; "
     "j++) a.push({j}) } return [2] }", Outcome.PASSED),
    ("try { require('fs').openSync('/proc/self/mem'); process.exit() } catch { } "
     "const f = x => [2]", Outcome.PASSED),
    ("const f = x => 'a1b2'.replace(/[a-z]\\d/g, '').split(/,/).map(y => 2)", Outcome.PASSED),
    ("const f = x => { new WebAssembly.Module(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); "
     "return [2] }", Outcome.PASSED),
)  # fmt: skip


@functools.lru_cache(maxsize=1024)
def judged_tests(test: str) -> tuple[str, str]:
    """Returns the tests with calls that no program can redirect, and what must stay as it is.

    A program may well assign to `console.assert` or `Math.abs`, or declare a `JSON` of its own.
    The tests use the true ones, from a table that node_judge.js gives to them alone. Methods
    that they call on their values are named, to be locked before the program runs.
    """

    def rename(match: re.Match[str]) -> str:
        space, name = match.groups()
        if space == "console" and name != "assert":
            return match[0]
        return f"$geex.{space}_{name}"

    judged = _CALL.sub(rename, test)
    names = set(_METHOD.findall(judged))
    if "..." in test or re.search(r"\bof\b", test):
        names.add("iterator")
    return judged, " ".join(sorted(names))


class JavaScript(Language):
    """node."""

    name, title, prefix, data = "javascript", "JavaScript", "JavaScript", "js"

    def __init__(self) -> None:
        self._zygote: Zygote | None = None
        self._heap = 0

    def toolchain(self) -> Toolchain:
        """node, and js-md5 for problem 162."""
        line, good = javascript_tools.node_version()
        package = javascript_tools.module_folders(None)[1]
        versions = ({"node": line} if good else {}) | ({"js-md5": PACKAGE[7:]} if package else {})
        what = f"node >= {OLDEST}" + (f" (there is {line})" if line else "")
        missing = () if good else ((what, "apt-get install nodejs npm"),)
        advice = () if package else (
            ("js-md5 (problem 162; fetched by npm if it can be)", f"npm install -g {PACKAGE}"),
        )  # fmt: skip
        return Toolchain(versions, missing, advice)

    def prepare(self, cache: pathlib.Path) -> None:
        """Builds the fork server (a second); without it each program gets a node process."""
        javascript_tools.build(cache)

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """node and the folders of packages, if they lie outside the system's."""
        return javascript_tools.mounts(cache)

    def assemble(self, problem: Problem, code: str) -> Program:
        """Prompt, code, tests."""
        return Program(f"{problem['prompt']}{code}\n", problem["test"], task_id=problem["task_id"])

    def is_finished(self, code: str) -> bool:
        """The function's closing brace is there."""
        return code.count("{") + 1 == code.count("}")

    def clean(self, code: str) -> str:
        """Cuts behind the last brace."""
        return code[: code.rfind("}") + 1] if "}" in code else code

    # In the sandbox ----------------------------------------------------------------------

    def start(self, jail: Jail) -> None:
        """Starts the fork server and tries it."""
        self._tools = Tools.read(jail.cache)
        if not self._tools.package:
            jail.warn(f"JavaScript: problem 162 fails without js-md5: npm install -g {PACKAGE}")
        why = self._tools.why
        if self._tools.addon:
            try:
                why = self._try(jail)
            except HelperDied as error:
                why = str(error)
        if why:
            if self._zygote is not None:
                self._zygote.close()
            self._zygote = None
            jail.warn(f"JavaScript: one node for each program, 15 times slower than forks ({why})")

    def _try(self, jail: Jail) -> str:
        """Judges programs whose verdicts are known. Returns what is wrong, or ""."""
        limits = Limits()
        self._start_zygote(jail, limits)
        trials = _TRIALS
        if self._tools.package:
            trials += (("const f = x => [require('js-md5')('a').length / 16]", Outcome.PASSED),)
        for code, outcome in trials:
            verdict = self._verdict(jail, Program(code + "\n", _TRIAL), limits)
            if verdict.outcome is not outcome:
                return f"{outcome} expected of a trial, not {verdict.outcome}: {verdict.message}"
        return ""

    def _start_zygote(self, jail: Jail, limits: Limits) -> None:
        if self._zygote is not None:
            self._zygote.close()
        self._heap = limits.memory_bytes
        folder = f"{jail.cache}/{self._tools.folder}"
        self._zygote = jail.zygote(
            [self._tools.node, *self._tools.flags, *self._heap_flags(limits),
             f"{folder}/node_judge.js", f"{folder}/zygote.node", jail.tmp],
            env=self._environment(jail) | {"LD_PRELOAD": f"{folder}/zygote.node"},
        )  # fmt: skip

    def _environment(self, jail: Jail) -> dict[str, str]:
        modules = os.pathsep.join(os.path.join(jail.cache, x) for x in self._tools.modules)
        return {"LANG": "C.UTF-8"} | ({"NODE_PATH": modules} if modules else {})

    def _heap_flags(self, limits: Limits) -> list[str]:
        """Lets V8 say that memory is short before the system refuses it some."""
        return [f"--max-old-space-size={max(limits.memory_bytes * 3 // 4 >> 20, 32)}"]

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """One fork, or one node process, for each program."""
        if self._zygote is not None and self._heap != limits.memory_bytes:
            self._start_zygote(jail, limits)
        for index, program in enumerate(programs):
            yield index, self._verdict(jail, program, limits)

    def _verdict(self, jail: Jail, program: Program, limits: Limits) -> Verdict:
        run = self._run(jail, program, limits)
        verdict = verdict_of_run(run, assertion=r"(?m)^Assertion failed", memory=_MEMORY)
        verdict.message = _NOISE.sub("", verdict.message).strip()
        out = verdict.outcome
        if out is Outcome.PASSED and PRINTS_OK not in program.options:
            # Empty output is all that the reference looks at.
            for size, where in ((run.stdout_size, "output"), (run.stderr_size, "error")):
                if size:
                    verdict.outcome = Outcome.WRONG_ANSWER
                    verdict.message = (
                        f"printed to standard {where}; the reference counts this as failed"
                    )
        elif out is Outcome.RUNTIME_ERROR:
            if run.status == _SYNTAX:
                verdict.outcome = Outcome.COMPILE_ERROR
            elif run.status == _FAILED:
                verdict.outcome = Outcome.WRONG_ANSWER
            elif run.status < 0 and run.memory_bytes > 0.7 * limits.memory_bytes:
                verdict.outcome = Outcome.MEMORY
            elif not run.stderr_size:
                verdict.message = f"{run.how}" if run.status else "ended before its tests did"
        return verdict

    def _run(self, jail: Jail, program: Program, limits: Limits) -> Finished:
        # node 24 reserves half a gigabyte, which is not the program's doing.
        memory = limits.memory_bytes + self._tools.reserved
        given = dataclasses.replace(limits, memory_bytes=memory)
        for _ in range(2):
            if self._zygote is None:
                break
            channel = jail.channel()
            try:
                return self._zygote.run(_payload(program, channel), limits=given, channel=channel)
            except HelperDied:  # it has been started again
                channel.close()
        channel = jail.channel()
        folder = f"{jail.cache}/{self._tools.folder}"
        return jail.run(
            [self._tools.node, *self._tools.plain_flags, *self._heap_flags(limits),
             f"{folder}/node_judge.js", "-", jail.tmp],
            limits=given, env=self._environment(jail), stdin=_payload(program, channel),
            channel=channel,
        )  # fmt: skip


def _payload(program: Program, channel: Channel) -> bytes:
    judged, locked = judged_tests(program.test)
    texts = [x.encode("utf-8", "replace") for x in (program.code, program.test, judged, locked)]
    head = _HEAD.pack(channel.fd, channel.first, channel.second, *map(len, texts))
    return head + b"".join(texts)
