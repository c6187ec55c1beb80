"""C++ in the sandbox: forks of a cc1plus that has read the headers, and of a linker."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages import cpp_tools
from geex_jax.benchmark.languages.base import head
from geex_jax.benchmark.languages.cpp_tools import HEADERS, PREFIXES, Commands
from geex_jax.benchmark.languages.types import Limits, Outcome, Program
from geex_jax.benchmark.sandbox.finished import Finished, memory_file

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.helpers import Zygote
    from geex_jax.benchmark.sandbox.jail import Jail

# What cc1plus does for every program at its end, though it depends on the headers alone:
# instantiate_pending_templates(0) and initialize_rtl(). Debian's and Ubuntu's cc1plus show these
# names to its plugins; without them it is merely slower.
_WARM = "_Z29instantiate_pending_templatesi\n_Z14initialize_rtlv"
_LEAD = re.compile(
    r"\s+|/\*.*?\*/|//[^\\\n]*(?<!\?\?/)\n|using\s+namespace\s+std\s*;|"
    r"#[ \t]*include[ \t]*<(?P<name>[\w./+-]+)>[ \t]*\n",
    re.S,
)
_USING = re.compile(r"\busing\s+namespace\s+std\b")
# What could tell the fork of a prepared compiler from a new one: a specialization of what the
# headers use, further members of std, options, and rarities.
_UNUSUAL = re.compile(
    r"namespace\s+std\b|template\s*<\s*>|template\s+(?:class|struct)\b|pragma|include_next|"
    r"__INCLUDE_LEVEL__|__BASE_FILE__"
)
_ERROR = re.compile(r"^.*(?:\berror: |\bundefined reference|\bmultiple definition)", re.M)
_MARKS = re.compile(r"enum\{geex_\w+=\d+\};|::__geex::__geex_done\([^)]*\);")
_TROUBLE = (4, 126, 127)  # exit status: internal compiler error, no assembler, sandbox
_OFTEN = 6  # programs with the same further headers, before a compiler of their own is started


SMUGGLED = "assembly language could lead to the end of the tests without them"
_APP = re.compile(rb"^[ \t]*(?:#|//|/\*) ?#?APP\b", re.M)
_CALLS = re.compile(rb"^\t(?:call|bl)[ \t]+geex_(?:fail|done)\b", re.M)
_MACROS = (b".macro", b".irp", b".rept", b".altmacro", b".include", b".incbin")
_MACRO_LINE = re.compile(
    rb"^(?!\t\.(?:string|ascii)\b).*\.(?:macro|irpc?|rept|altmacro|include|incbin)\b", re.M
)


class Unusual(Exception):
    """The quick way cannot or should not decide about this program."""


@dataclasses.dataclass(frozen=True)
class Built:
    """How a build ended. `outcome` is None if there is a program now."""

    outcome: Outcome | None
    message: str
    cpu_seconds: float

    @staticmethod
    def of(run: Finished, before: float = 0.0) -> Built:
        """Reads it off how the compiler ended, after steps that took `before` seconds."""
        cpu = run.cpu_seconds + before
        if run.timed_out:
            return Built(Outcome.TIMEOUT, f"compiler {run.timed_out}", cpu)
        if run.status:
            return Built(Outcome.COMPILE_ERROR, _complaint(run), cpu)
        return Built(None, "", cpu)


def _complaint(run: Finished) -> str:
    """What a compiler said, from its first error on."""
    text = run.stderr.decode("utf-8", "replace")
    text = _MARKS.sub("", text)
    error = _ERROR.search(text)
    return head(text[error.start() :] if error else text) or run.how


def split_lead(code: str) -> tuple[frozenset[str], str]:
    """Looks at the includes that stand before everything else.

    Returns:
      The names of these headers, and the code with empty lines instead of those lines that
      include one of the nine of every program.
    """
    names, kept, at = set(), [], 0
    while found := _LEAD.match(code, at):
        name = found["name"]
        if name:
            names.add(name)
        kept.append("\n" if name in HEADERS else found[0])
        at = found.end()
    return frozenset(names), "".join(kept) + code[at:]


def smuggled(assembly: bytes) -> bool:
    """Whether a program's assembly holds what no C++ is compiled to.

    `asm` (between #APP and #NO_APP), or a line break in a name, could give another meaning to
    the instructions of the tests, or another target to their calls.
    """
    if _APP.search(assembly):
        return True
    calls = _CALLS.findall(assembly)
    if assembly.count(b"geex_fail") + assembly.count(b"geex_done") != len(calls):
        return True
    return any(word in assembly for word in _MACROS) and bool(_MACRO_LINE.search(assembly))


class Forks:
    """The fork servers of one sandbox.

    Args:
      jail: the sandbox.
      folder: what `cpp_tools.build` made.
      parts: the command lines.
      linker: path of the linker.
      warm: let the compiler do beforehand what it does for every program.
    """

    def __init__(self, jail: Jail, folder: pathlib.Path, parts: Commands, linker: str, warm: bool):
        self.jail, self.folder, self.parts, self.linker, self.warm = (
            jail, folder, parts, linker, warm,
        )  # fmt: skip
        self.object, self.script = f"{jail.work}/sample.o", f"{jail.work}/link.ld"
        self.program = f"{jail.work}/program"
        self._seen: collections.Counter[tuple[str, ...]] = collections.Counter()
        self._compilers: dict[tuple[str, ...], Zygote] = {}
        self._write_script()
        self._ld = jail.zygote(
            cpp_tools.linking(parts, linker, str(folder), self.script, self.program),
            env={"LD_PRELOAD": f"{folder}/serve.so", "GEEX_SAMPLE": self.object}, cwd=jail.work,
        )  # fmt: skip
        self._compiler(frozenset())

    def close(self) -> None:
        """Ends them."""
        for server in (self._ld, *self._compilers.values()):
            server.close()

    def _write_script(self) -> None:
        if not os.path.exists(self.script):  # the folder is emptied after each batch
            pathlib.Path(self.script).write_text(f'INPUT("{self.object}")\n')

    def _compiler(self, headers: frozenset[str]) -> Zygote:
        """The server that has read the most of these headers, and no others."""
        best: tuple[str, ...] = max((x for x in PREFIXES if headers.issuperset(x)), key=len)
        self._seen[best] += 1
        if best and best not in self._compilers and self._seen[best] < _OFTEN:
            best = ()
        if best not in self._compilers:
            assembler = [*self.parts.assemble, "-o", self.object]
            env = {
                "LD_PRELOAD": f"{self.folder}/serve.so", "GEEX_SAMPLE": "sample.cpp",
                "GEEX_ASSEMBLY": "sample.s", "GEEX_ASSEMBLE": "\n".join(assembler),
                "LC_ALL": "C.UTF-8",
            }  # fmt: skip
            if self.warm:
                env["GEEX_WARM"] = _WARM
            self._compilers[best] = self.jail.zygote(
                [*self.parts.compile, "-fmax-errors=5", "main.cpp", "-o", "sample.s"], env=env,
                cwd=str(self.folder / cpp_tools.prefix_name(best)),
            )  # fmt: skip
        return self._compilers[best]

    def build(self, program: Program, test: str, limits: Limits) -> Built:
        """Compiles and links a program to `self.program`.

        Args:
          program: the program.
          test: its tests, with the proof.
          limits: for each step.

        Raises:
          Unusual: only plain g++ can tell.
          HelperDied: a server is gone, and was started again.
        """
        headers, code = split_lead(program.code)
        if not headers.issuperset(HEADERS) or _UNUSUAL.search(_USING.sub("", code)):
            raise Unusual("not only what the quick way knows")
        if not all(x.startswith("-l") for x in program.options):
            raise Unusual("options")
        self._write_script()
        source = memory_file("sample", (code + test).encode("utf-8", "replace"))
        assembly = memory_file("assembly")
        try:
            run = self._compiler(headers).run(
                b"", [source, assembly], limits=limits, compiling=True
            )
            text = os.pread(assembly, os.fstat(assembly).st_size, 0)
        finally:
            os.close(source)
            os.close(assembly)
        if not run.timed_out and (run.status < 0 or run.status in _TROUBLE):
            raise Unusual(f"compiler: {run.how}: {_complaint(run)}")
        built = Built.of(run)
        if built.outcome is not None:
            return built
        if smuggled(text):
            return Built(Outcome.VIOLATION, SMUGGLED, built.cpu_seconds)
        run = self._link(program.options, limits)
        with contextlib.suppress(OSError):
            os.unlink(self.object)
        if run.status:
            raise Unusual(f"linker: {_complaint(run)}")
        return Built.of(run, built.cpu_seconds)

    def _link(self, options: tuple[str, ...], limits: Limits) -> Finished:
        if not options:
            return self._ld.run(b"", limits=limits, compiling=True)
        return self.jail.run(
            [self.linker, *self.parts.link_head, "-o", self.program, f"{self.folder}/proof.o",
             self.object, f"{self.folder}/classes.a", *options, *self.parts.link_tail],
            limits=limits, compiling=True,
        )  # fmt: skip
