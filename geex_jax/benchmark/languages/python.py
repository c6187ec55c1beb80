"""Python: a fork of the supervisor, which has imported what the reference imports."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import gc
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from geex_jax.benchmark.languages.base import Language, verdict_of_run, version
from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.helpers import Twin
    from geex_jax.benchmark.sandbox.jail import Jail

# The reference's helper lines, in its order.
IMPORTS = (
    "import math", "import re", "import sys", "import copy", "import datetime",
    "import itertools", "import collections", "import heapq", "import statistics",
    "import functools", "import hashlib", "import numpy", "import numpy as np",
    "import string", "from typing import *", "from collections import *",
)  # fmt: skip
_HEADER = "\n".join(IMPORTS) + "\n"
_LIGHT = "\n".join(line for line in IMPORTS if "numpy" not in line)
# Words by which a program could come upon numpy or find that its name is missing.
_MAY_NEED_NUMPY = re.compile(
    r"\bnp\b|numpy|globals|locals|vars|eval|exec|__import__|importlib|modules|dir\s*\(|inspect"
)
# What tests call, and how it is known: a program that replaces it in `builtins` has cheated.
_TRUSTED = tuple(
    (name, id(getattr(builtins, name)))
    for name in (
        "abs", "all", "any", "bool", "dict", "enumerate", "float", "int", "isinstance", "len",
        "list", "map", "max", "min", "pow", "print", "range", "repr", "reversed", "round", "set",
        "sorted", "str", "sum", "tuple", "type", "zip", "AssertionError", "Exception",
    )
)  # fmt: skip
_SYNTAX = 90  # exit status of a child whose program does not compile


class Python(Language):
    """Runs in the interpreter that runs this library."""

    name, title, prefix, data = "python", "Python", "Python", "python"

    def toolchain(self) -> Toolchain:
        """The interpreter of this process, and numpy."""
        numpy = version([sys.executable, "-c", "import numpy; print(numpy.__version__)"])
        versions = {"python": sys.version.split()[0]} | ({"numpy": numpy} if numpy else {})
        missing = () if numpy else (("numpy", "pip install numpy"),)
        return Toolchain(versions, missing)

    def assemble(self, problem: Problem, code: str) -> Program:
        """Helper imports, prompt, the code up to its first unindented line, tests."""
        kept = []
        for line in code.split("\n"):
            if line.strip() and line[0] not in " \t":
                break
            kept.append(line)
        program = "\n".join(IMPORTS) + "\n" + problem["prompt"] + "\n".join(kept)
        return Program(program + "\n", problem["test"] + "\n", task_id=problem["task_id"])

    def start(self, jail: Jail) -> None:
        """Imports once what every program imports; a fork has it for nothing."""
        self._names: dict[str, Any] = {}
        self._twin: Twin | None = None
        exec(_LIGHT, self._names)
        # A process of its own for the few programs that use numpy: the size of a process is
        # most of what a fork of it costs.
        gc.collect()
        gc.freeze()

    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """One fork for each program."""
        for index, program in enumerate(programs):
            whole = program.text
            headed = whole.startswith(_HEADER)
            rest = whole[len(_HEADER) :] if headed else whole
            if _MAY_NEED_NUMPY.search(rest):
                yield index, self._with_numpy(jail, program, limits)
            elif headed:
                yield index, _judge(jail, "\n" * len(IMPORTS) + rest, self._names, limits)
            else:
                yield index, _judge(jail, whole, {}, limits)

    def _with_numpy(self, jail: Jail, program: Program, limits: Limits) -> Verdict:
        def serve(message: bytes) -> bytes:
            with contextlib.suppress(ImportError):
                import numpy  # noqa: F401 - once, then each fork has it

            fields = json.loads(message)
            return json.dumps(
                vars(_judge(jail, fields["text"], {}, Limits(**fields["limits"])))
            ).encode()

        if self._twin is None:
            self._twin = jail.twin(serve)
        message = json.dumps({"text": program.text, "limits": dataclasses.asdict(limits)})
        fields = json.loads(self._twin.request(message.encode()))
        return Verdict(**{**fields, "outcome": Outcome(fields["outcome"])})


def _judge(jail: Jail, text: str, names: dict[str, Any], limits: Limits) -> Verdict:
    channel = jail.channel(late=True)
    run = jail.run(
        child_call=_runner(text, names, channel.fd, channel.parts_fd),
        limits=limits,
        channel=channel,
    )
    verdict = verdict_of_run(
        run, assertion=r"(?m)^AssertionError", memory=r"(?m)^(numpy\S+)?\S*MemoryError"
    )
    if run.status == _SYNTAX and verdict.outcome is Outcome.RUNTIME_ERROR:
        verdict.outcome = Outcome.COMPILE_ERROR
    return verdict


def _runner(
    text: str, names: dict[str, Any], proof_fd: int, parts_fd: int
) -> Callable[[], None]:  # fmt: skip
    """What the fork does: all functions that it needs later are locals, which nobody patches."""

    def run(
        read: Any = os.read, write: Any = os.write, leave: Any = os._exit,
        identify: Any = id, builtin: Any = vars(builtins),  # noqa: B008
    ) -> None:  # fmt: skip
        status = 1
        try:
            try:
                code = compile(text, "<program>", "exec")
            except BaseException:
                status = _SYNTAX
                raise
            # No __name__, as in the reference: `if __name__ == "__main__"` is not entered.
            exec(code, names)
            for name, number in _TRUSTED:
                if identify(builtin.get(name)) != number:
                    raise SystemExit(f"the program changed the builtin {name}")
            first, second = read(parts_fd, 64).split()
            write(proof_fd, b"%d" % (int(first) ^ int(second)))
            status = 0
        except BaseException as error:
            _complain(error)
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
            leave(status)

    return run


def _complain(error: BaseException) -> None:
    """The end of the traceback, to standard error, whatever the program did to sys.stderr."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    lines = traceback.format_exception(type(error), error, trace, limit=-3)
    os.write(2, "".join(lines).encode("utf-8", "replace")[-4000:])
