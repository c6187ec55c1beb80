"""Go: one compiler for each program, one linker for many, one process for each test."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.benchmark.languages import go_text, go_tools
from geex_jax.benchmark.languages.base import Language, head, verdict_of_run, version
from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.finished import Finished
    from geex_jax.benchmark.sandbox.jail import Jail

# Packages that the reference imports for a completion that uses them, in its order.
HELPERS = (
    "math", "strings", "fmt", "strconv", "time", "bytes", "regexp", "sort", "math/rand",
    "crypto/md5",
)  # fmt: skip
_LARGE = 4 << 20  # bytes of a compiled program that is better linked alone
_FAILED = r"(?m)^--- FAIL: "
_MEMORY = (
    r"(?m)^(?:fatal error: (?:runtime: )?|runtime: )(?:out of memory|cannot allocate|cannot map|"
    r"failed to reserve|mmap)|errno=12\b"
)
_TRACE = re.compile(rb"\n\n(?:goroutine \d|runtime stack:)|^PC=", re.MULTILINE)


@dataclasses.dataclass
class _Compiled:
    """A program that compiles."""

    index: int
    program: Program
    shape: go_text.Shape
    folder: str
    size: int
    cpu_seconds: float

    @property
    def path(self) -> str:
        """Its import path in a binary of several."""
        return f"p{self.index}"


class Go(Language):
    """`go test` without the go command: the same compiler, linker and vet, called directly.

    Class attributes:
      reference_imports: choose imports exactly as the reference does, that is by substrings: a
        comment that ends in "sort." then imports a package that is not used, which does not
        compile, and "math" is never imported beside "math/rand".
    """

    name, title, prefix, data = "go", "Go", "Go", "go"
    batch = 32
    reference_imports = False

    def toolchain(self) -> Toolchain:
        """The go command."""
        go = go_tools.find_go()
        found = version([go, "version"]) if go else None
        if found is None:
            return Toolchain({}, (("go", go_tools.INSTALL),))
        if go_tools.number(found) < go_tools.OLDEST:
            return Toolchain({"go": found}, (("go 1.18 or newer", "see https://go.dev/dl"),))
        return Toolchain({"go": found})

    def prepare(self, cache: pathlib.Path) -> None:
        """Compiles stand-ins for `testing` and testify, and finds the standard library's."""
        go_tools.prepare(cache)

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """GOROOT."""
        return [str(go_tools.tools(cache)["root"])]

    def assemble(self, problem: Problem, code: str) -> Program:
        """Set-up of the tests, imports, prompt without its imports, code, tests."""
        setup = problem["test_setup"]
        prompt = problem["prompt"].replace(problem["import"], "") if problem["import"] else (
            problem["prompt"])  # fmt: skip
        if self.reference_imports:
            used = [x for x in HELPERS if x not in setup and f"{x.rpartition('/')[2]}." in code]
        else:
            text, _ = go_text.bare(prompt + code)
            used = [x for x in HELPERS if f'"{x}"' not in setup and go_text.uses(text, x)]
        imports = "import (\n" + "    ".join(f'"{x}"\n' for x in used) + ")\n" if used else ""
        return Program(
            f"{setup}\n{imports}{prompt}{code}\n", problem["test"], task_id=problem["task_id"]
        )

    def is_finished(self, code: str) -> bool:
        """The brace that closes the function has come."""
        return code.count("{") + 1 == code.count("}")

    def clean(self, code: str) -> str:
        """Cuts at the last comment or `main` at the start of a line, then at the last brace."""
        for word in ("\n//", "\nfunc main("):
            if word in code:
                code = code[: code.rfind(word)]
        return code[: code.rfind("}") + 1] if "}" in code else code

    # In the sandbox ----------------------------------------------------------------------

    def start(self, jail: Jail) -> None:
        """Reads what `prepare` wrote; nothing has to run between batches."""
        os.umask(0o022)  # compilers run as another user and read what is written here
        tools = go_tools.tools(jail.cache)
        self._tools = {x: f"{tools['folder']}/{x}" for x in ("compile", "link", "vet")}
        self._vet_flags: list[str] = tools["vet"]
        self._files: dict[str, dict[str, str]] = {
            x: {k: os.path.join(jail.cache, v) for k, v in tools[x].items()}
            for x in ("packages", "own", "all")
        }
        self._root: str = tools["root"]

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Compiles each, links those that cannot disturb each other together, runs each."""
        imports = go_tools.import_table(self._files["packages"], f"{jail.work}/imports")
        shared, alone = [], []
        for index, program in enumerate(programs):
            shape = go_text.look(program.text)
            folder = _folder(jail, f"p{index}", 0o700)
            with open(f"{folder}/main_test.go", "w", encoding="utf-8", errors="replace") as file:
                file.write(program.text)
            run = self._tool(
                jail, limits, folder, "compile", "-o", "p.a", "-p", f"p{index}", "-complete",
                f"-lang={go_tools.LANGUAGE}", "-c=1", "-dwarf=false", "-importcfg", imports,
                "./main_test.go",
            )  # fmt: skip
            if run.status:
                yield index, _not_compiled(run, run.cpu_seconds)
            elif shape.refused:
                yield index, Verdict(Outcome.VIOLATION, shape.refused, 0.0, run.cpu_seconds)
            else:
                size = os.path.getsize(f"{folder}/p.a")
                done = _Compiled(index, program, shape, folder, size, run.cpu_seconds)
                (alone if shape.alone or size > _LARGE else shared).append(done)
        for group in (shared, *([x] for x in alone)):
            yield from self._finish(jail, group, limits)

    def _finish(
        self, jail: Jail, group: Sequence[_Compiled], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Links a group and runs its programs; in halves if it does not link."""
        if not group:
            return
        folder = _folder(jail, f"b{group[0].index}-{len(group)}", 0o711)
        failed, cpu = self._link(jail, group, limits, folder)
        for one in group:
            one.cpu_seconds += cpu / len(group)
        if failed is None:
            for one in group:
                yield one.index, self._run(jail, one, limits, f"{folder}/run")
        elif len(group) == 1:
            verdict = _not_compiled(failed, group[0].cpu_seconds)
            verdict.message = verdict.message.replace(f"{group[0].path}.", "")
            yield group[0].index, verdict
        else:
            middle = len(group) // 2
            yield from self._finish(jail, group[:middle], limits)
            yield from self._finish(jail, group[middle:], limits)

    def _link(
        self, jail: Jail, group: Sequence[_Compiled], limits: Limits, folder: str
    ) -> tuple[Finished | None, float]:
        """Makes `folder/run` of a group. Returns what failed, if so, and the CPU seconds."""
        with open(f"{folder}/main.go", "w", encoding="utf-8") as file:
            file.write(_main(group))
        objects = {one.path: f"{one.folder}/p.a" for one in group}
        known = go_tools.import_table(self._files["own"] | objects, f"{folder}/imports")
        every = go_tools.import_table(self._files["all"] | objects, f"{folder}/all")
        cpu = 0.0
        for name, *arguments in (
            ("compile", "-o", "main.a", "-p", "main", "-complete", "-c=1", "-dwarf=false",
             "-importcfg", known, "./main.go"),
            ("link", "-o", "run", "-s", "-w", "-buildmode=exe", "-importcfg", every, "main.a"),
        ):  # fmt: skip
            run = self._tool(jail, limits, folder, name, *arguments)
            cpu += run.cpu_seconds
            if run.status:
                return run, cpu
        os.chmod(f"{folder}/run", 0o755)
        return None, cpu

    def _run(self, jail: Jail, one: _Compiled, limits: Limits, binary: str) -> Verdict:
        channel = jail.channel(late=True)
        run = jail.run(
            [binary, str(one.index), str(channel.fd), str(channel.parts_fd)],
            limits=limits, channel=channel, env={"GOMAXPROCS": "1", "GOTRACEBACK": "none"},
        )  # fmt: skip
        run.stderr = _TRACE.split(run.stderr, 1)[0]
        verdict = verdict_of_run(
            run, assertion=_FAILED, memory=_MEMORY, compile_seconds=one.cpu_seconds
        )
        if verdict.outcome is Outcome.PASSED and one.shape.vet:
            vet = self._vet(jail, one, limits)
            verdict.compile_seconds += vet.cpu_seconds
            if vet.status:
                verdict.outcome = Outcome.COMPILE_ERROR  # `go test` does not run such a program
                text = vet.stderr.decode("utf-8", "replace").replace(f"{one.folder}/", "./")
                verdict.message = head("go vet: " + text)
        return verdict

    def _vet(self, jail: Jail, one: _Compiled, limits: Limits) -> Finished:
        files = self._files["packages"]
        settings: dict[str, Any] = {
            "ID": one.path, "Compiler": "gc", "Dir": one.folder,
            "ImportPath": "command-line-arguments", "GoVersion": go_tools.LANGUAGE,
            "GoFiles": [f"{one.folder}/main_test.go"], "ImportMap": {x: x for x in files},
            "PackageFile": files, "VetxOutput": f"{one.folder}/vetx",
            "SucceedOnTypecheckFailure": True,
        }  # fmt: skip
        with open(f"{one.folder}/vet.cfg", "w") as file:
            json.dump(settings, file)
        return self._tool(jail, limits, one.folder, "vet", *self._vet_flags, "vet.cfg")

    def _tool(
        self, jail: Jail, limits: Limits, folder: str, name: str, *arguments: str
    ) -> Finished:
        """Runs a tool of Go's in `folder`: single-threaded, and without collecting garbage."""
        env = {"GOROOT": self._root, "GOMAXPROCS": "1", "GOGC": "off",
               "GOMEMLIMIT": str(limits.memory_bytes)}  # fmt: skip
        return jail.run(
            [self._tools[name], *arguments], limits=limits, compiling=True, cwd=folder, env=env
        )


def _folder(jail: Jail, name: str, mode: int) -> str:
    """A new folder that compilers write in."""
    path = f"{jail.work}/{name}"
    os.mkdir(path)
    os.chmod(path, mode)
    uid = jail.identity.uid(compiling=True)
    if uid is not None and jail.identity.several_users:
        os.chown(path, uid, uid)
    return path


def _main(group: Sequence[_Compiled]) -> str:
    """The runner's source: which tests to run is told when it starts."""
    lines = ["package main", 'import "judge"', 'import "testing"']
    for one in group:
        lines.append(f'import {one.path if one.shape.tests else "_"} "{one.path}"')
    lines += ["func main() {", "var tests []testing.InternalTest", "switch judge.Index() {"]
    for one in group:
        lines += [f"case {one.index}:", "tests = []testing.InternalTest{"]
        lines += [f'{{"{name}", {one.path}.{name}}},' for name in one.shape.tests]
        lines.append("}")
    return "\n".join([*lines, "}", "judge.Finish(testing.RunTests(tests))", "}", ""])


def _not_compiled(run: Finished, cpu_seconds: float) -> Verdict:
    text = run.timed_out or head(run.stdout + run.stderr) or run.how
    return Verdict(Outcome.COMPILE_ERROR, text, 0.0, cpu_seconds)
