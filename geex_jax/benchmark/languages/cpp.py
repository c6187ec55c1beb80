"""C++: g++ as the reference runs it, but forked from a cc1plus that has read the headers."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages import cpp_tools
from geex_jax.benchmark.languages.base import Language, verdict_of_run, version
from geex_jax.benchmark.languages.cpp_forks import SMUGGLED, Built, Forks, Unusual, smuggled
from geex_jax.benchmark.languages.cpp_tools import HEADERS, STANDARD, Commands
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
    from geex_jax.benchmark.sandbox.finished import Channel
    from geex_jax.benchmark.sandbox.jail import Jail

_PACKAGES = (
    ("boost/any.hpp", "libboost-dev", "tasks 22 and 137"),
    ("openssl/md5.h", "libssl-dev", "task 162"),
)
_FOLDERS = ("/usr/include", "/usr/local/include")
_ASSERT = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<(?:assert\.h|cassert)>[ \t]*$", re.M)
_MAIN = re.compile(r"\bint\s+main\s*\(")
_END = re.compile(r"(?:\breturn\s+0\s*;\s*)?\}\s*\Z")
_TESTS = '#include "tests.hpp"'
# What the fork servers have to judge rightly before they are trusted.
_TRIAL = {
    "task_id": "trial", "prompt": "/* trial */\nusing namespace std;\n",
    "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n"
            "    assert (f({3, 1, 2}) == \"1 2 3\");\n}\n",
}  # fmt: skip
_TRIALS = (
    ("string f(vector<int> v){ sort(v.begin(), v.end()); string s; for (int x: v) "
     "s += (s.size() ? \" \" : \"\") + to_string(x); cout << s << endl; return s; }",
     Outcome.PASSED),
    ("template<class T> string g(T t){ return t(); }\n"
     "string f(vector<float> v){ return g([&]{ return string(v.size(), 'x'); }); }",
     Outcome.WRONG_ANSWER),
    ("string f(vector<int> v){ throw v.at(5); }", Outcome.RUNTIME_ERROR),
    ("string f(vector<int> v){ return v; }", Outcome.COMPILE_ERROR),
)  # fmt: skip


def with_proof(test: str, channel: Channel) -> str:
    """The tests, with the proof of success behind them and an `assert` of our own.

    Whatever macros and functions the program before them defines, no text leads to the proof
    without the tests: what `assert` calls cannot be defined by others, and the proof compiles
    only if the beginning of `main` does, since it uses a random name from there. (Machine code
    that looks for the numbers in its own memory could still find them, as in any process.)
    Lines keep their numbers.
    """
    name = f"geex_{os.urandom(8).hex()}"
    test, count = _ASSERT.subn(_TESTS, test)
    if not count:
        test = f"{_TESTS}\n{test}"
    mains = list(_MAIN.finditer(test))
    end = _END.search(test)
    if not mains or end is None:
        return test  # never proves anything: such tests are not in the data sets
    begin = mains[-1].start()
    return (
        f"{test[:begin]}enum{{{name}={channel.first}}};{test[begin : end.start()]}"
        f"::__geex::__geex_done({channel.fd},{name},{channel.second});{test[end.start() :]}"
    )


def _has(header: str) -> bool:
    return any(os.path.exists(f"{folder}/{header}") for folder in _FOLDERS)


class Cpp(Language):
    """g++ in C++11."""

    name, title, prefix, data = "cpp", "C++", "CPP", "cpp"

    def __init__(self) -> None:
        self._forks: Forks | None = None

    def toolchain(self) -> Toolchain:
        """g++, and the libraries that three problems need."""
        compiler = version([cpp_tools.driver() or "g++", "--version"])
        versions = {"g++": compiler} if compiler else {}
        missing = () if compiler else (("g++", "apt-get install g++"),)
        advice = tuple(
            (f"{header} ({tasks}, not run without it)", f"apt-get install {package}")
            for header, package, tasks in _PACKAGES
            if not _has(header)
        )
        return Toolchain(versions, missing, advice)

    def prepare(self, cache: pathlib.Path) -> None:
        """Precompiles the headers (some seconds, once for each version of g++)."""
        cpp_tools.build(cache)

    def assemble(self, problem: Problem, code: str) -> Program:
        """Those of nine headers that the prompt lacks, prompt, code, tests."""
        lines = [f"#include<{x}>" for x in HEADERS]
        lacking = "".join(f"{x}\n" for x in lines if x not in problem["prompt"])
        options = ("-lcrypto", "-lssl") if "162" in problem["task_id"] else ()
        return Program(
            f"{lacking}\n{problem['prompt']}{code}\n", problem["test"], options,
            problem["task_id"],
        )  # fmt: skip

    def is_finished(self, code: str) -> bool:
        """The function's closing brace is there."""
        return code.count("{") + 1 == code.count("}")

    def clean(self, code: str) -> str:
        """Cuts behind the last brace."""
        return code[: code.rfind("}") + 1] if "}" in code else code

    # In the sandbox ----------------------------------------------------------------------

    def start(self, jail: Jail) -> None:
        """Starts the fork servers and tries them; plain g++ is what is left without them."""
        os.umask(0o022)
        cache = pathlib.Path(jail.cache)
        self._folder = cache / (cache / "current").read_text()
        try:
            parts = Commands(**json.loads((self._folder / "commands.json").read_text()))
        except FileNotFoundError:
            why = (self._folder / "why").read_text()
        else:
            why = "no linker"
            for warm, linker in itertools.product((True, False), parts.linkers):
                self._forks = Forks(jail, self._folder, parts, linker, warm)
                why = self._try(jail)
                if not why:
                    return
                self._forks.close()
        self._forks = None
        jail.warn(f"C++: one g++ for each program, several times slower than forks ({why})")

    def _try(self, jail: Jail) -> str:
        """Judges programs whose verdicts are known. Returns what is wrong, or ""."""
        limits = Limits(cpu_seconds=2)
        for body, outcome in _TRIALS:
            program = self.assemble(_TRIAL, body)
            try:
                verdict = self._judge(jail, program, limits, only_forks=True)
            except (HelperDied, Unusual) as error:
                return str(error)
            if verdict.outcome is not outcome:
                return f"{outcome} expected of a trial, not {verdict.outcome}: {verdict.message}"
        return ""

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Compiles, links and runs one program after the other."""
        for index, program in enumerate(programs):
            lacking = [
                x for x in _PACKAGES if f"#include<{x[0]}>" in program.code and not _has(x[0])
            ]
            if lacking:  # the data set's own includes: the program is not at fault
                message = f"{lacking[0][0]} is missing: apt-get install {lacking[0][1]}"
                yield index, Verdict(Outcome.NOT_RUN, message)
                continue
            yield index, self._judge(jail, program, limits)

    def _judge(
        self, jail: Jail, program: Program, limits: Limits, only_forks: bool = False
    ) -> Verdict:
        channel = jail.channel()
        test = with_proof(program.test, channel)
        path = f"{jail.work}/program"
        try:
            built = self._forks and self._forks.build(program, test, limits)
        except (HelperDied, Unusual):
            built = None
            if only_forks:
                channel.close()
                raise
        built = built or self._build_plainly(jail, program, test, path, limits)
        if built.outcome is not None:
            channel.close()
            return Verdict(built.outcome, built.message, compile_seconds=built.cpu_seconds)
        run = jail.run([path], limits=limits, channel=channel)
        os.unlink(path)
        return verdict_of_run(
            run, assertion=r"Assertion `.*' failed", memory=r"std::bad_alloc",
            compile_seconds=built.cpu_seconds,
        )  # fmt: skip

    def _build_plainly(
        self, jail: Jail, program: Program, test: str, path: str, limits: Limits
    ) -> Built:
        """As the reference does, but for the proof."""
        jail.fresh()
        work = pathlib.Path(jail.work)
        (work / "sample.cpp").write_text(program.code + test, "utf-8", "replace")
        for name in ("tests.hpp", "proof.hpp", "proof.o"):  # the folder may be closed to services
            (work / name).write_bytes((self._folder / name).read_bytes())
        gxx, env = cpp_tools.driver() or "g++", {"TMPDIR": jail.work}
        run = jail.run(
            [gxx, STANDARD, "-include", "proof.hpp", "-S", "sample.cpp"],
            limits=limits, compiling=True, env=env,
        )  # fmt: skip
        built = Built.of(run)
        (work / "sample.cpp").unlink()
        if built.outcome is not None:
            return built
        if smuggled((work / "sample.s").read_bytes()):
            return Built(Outcome.VIOLATION, SMUGGLED, built.cpu_seconds)
        run = jail.run(
            [gxx, "sample.s", "proof.o", *program.options, "-o", path],
            limits=limits, compiling=True, env=env,
        )  # fmt: skip
        (work / "sample.s").unlink()
        return Built.of(run, built.cpu_seconds)
