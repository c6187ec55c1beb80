"""What goes to a judge and what comes back. Standard library only: this runs inside sandboxes."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
from collections.abc import Mapping

Problem = Mapping[str, str]  # one row of a HumanEval-X file


class Outcome(enum.StrEnum):
    """How one program ended. The classes of the paper's error analysis, and three of a sandbox."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong answer"  # an assertion of the tests failed
    RUNTIME_ERROR = "runtime error"  # also: it ended before its tests did
    COMPILE_ERROR = "compile error"  # syntax errors of interpreted languages too
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT_LIMIT = "output limit"
    VIOLATION = "sandbox violation"
    NOT_RUN = "not run"  # its toolchain is missing; never counted as a failure


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
      cpu_seconds: CPU time of a run; this decides timeouts, so that load does not.
      wall_seconds: a run that sleeps or is blocked ends after this; one that is merely starved
        of CPU may go on to `4 * wall_seconds`.
      compile_seconds: CPU time of each step of a compilation.
      memory_bytes: of a run. A compiler may take twice as much.
      output_bytes: of standard output and of standard error, each, and of any file.
      tmp_bytes: of the private /tmp.
      threads: of a run.
    """

    cpu_seconds: float = 5.0
    wall_seconds: float = 15.0
    compile_seconds: float = 20.0
    memory_bytes: int = 2 << 30
    output_bytes: int = 4 << 20
    tmp_bytes: int = 64 << 20
    threads: int = 64


@dataclasses.dataclass(frozen=True)
class Program:
    """One assembled program.

    Attributes:
      code: everything before the tests: what the model wrote, with prompt, imports, helpers.
      test: the tests, from the data set. `code + test` is the reference's program, to the letter.
      options: what else changes the build ("-lcrypto"), in order.
      task_id: of the problem, for messages only.
    """

    code: str
    test: str
    options: tuple[str, ...] = ()
    task_id: str = ""

    @property
    def text(self) -> str:
        """The program as the reference would write it to a file."""
        return self.code + self.test

    def key(self, toolchain: str, limits: Limits) -> str:
        """SHA-256 of all that decides the verdict: text, options, toolchain and limits."""
        digest = hashlib.sha256()
        for part in (self.code, self.test, *self.options, toolchain, repr(limits)):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


@dataclasses.dataclass
class Verdict:
    """The judgement of one program.

    Attributes:
      outcome: its class.
      message: the end of what it or its compiler said, at most 2,000 characters.
      cpu_seconds: of the run. compile_seconds: CPU time of the compilation (its share of a
        batch). wall_seconds: of the run.
      memory_bytes: largest resident set of the run.
    """

    outcome: Outcome
    message: str = ""
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Toolchain:
    """What is installed for a language.

    Attributes:
      versions: tool -> version line, of what is there.
      missing: (what is missing, the command that installs it on Debian, Ubuntu and TPU VMs).
        Empty: the language can be run.
      advice: (what would make it faster or more complete, the command); never needed.
    """

    versions: Mapping[str, str]
    missing: tuple[tuple[str, str], ...] = ()
    advice: tuple[tuple[str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        """Part of the cache key: verdicts of other versions are not reused."""
        return "; ".join(f"{k} {v}" for k, v in sorted(self.versions.items()))
