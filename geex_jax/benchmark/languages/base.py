"""What a language brings to the judge. Standard library only: this runs inside sandboxes."""

from __future__ import annotations

import abc
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages.types import (
    Limits,
    Outcome,
    Problem,
    Program,
    Toolchain,
    Verdict,
)

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.jail import Finished, Jail

NATIVE = pathlib.Path(__file__).parent / "native"  # sources of helpers in other languages
MESSAGE = 2000


class Language(abc.ABC):
    """One programming language: how programs are put together, built, run and judged.

    Class attributes:
      name: "cpp"; also what `--language` takes. title: "C++", as in prompts and tables.
      prefix: of its task ids ("CPP"). data: humaneval_{data}.jsonl.gz.
      batch: most programs that one call of `judge` gets.
    """

    name = title = prefix = data = ""
    batch = 1

    # On the host -------------------------------------------------------------------------

    @abc.abstractmethod
    def toolchain(self) -> Toolchain:
        """Looks for compilers and interpreters; runs nothing but `--version`."""

    def prepare(self, cache: pathlib.Path) -> None:  # noqa: B027 - many need none
        """Builds the language's helpers into `cache` (once for each toolchain, atomically).

        Raises:
          GeexError: a helper cannot be built and there is no slower way without it.
        """

    def mounts(self, cache: pathlib.Path) -> list[str]:
        """Host paths that its sandbox shows read-only, beyond /usr, /bin, /lib* and /etc's few."""
        return []

    @abc.abstractmethod
    def assemble(self, problem: Problem, code: str) -> Program:
        """Joins a problem and what a model wrote, exactly as the reference does."""

    def is_finished(self, code: str) -> bool:
        """The reference's stop rule at generation time: whether a completion is over."""
        return False

    def clean(self, code: str) -> str:
        """The reference's clean-up of a completion, at generation time only."""
        return code

    # In the sandbox ----------------------------------------------------------------------

    def start(self, jail: Jail) -> None:  # noqa: B027 - many need none
        """Starts what serves many programs (fork servers, resident compilers)."""

    @abc.abstractmethod
    def judge(
        self, jail: Jail, programs: Sequence[Program], limits: Limits
    ) -> Iterator[tuple[int, Verdict]]:
        """Yields (index into `programs`, verdict), each index once, in any order.

        A verdict must not depend on the other programs of the batch.
        """


def tail(text: bytes | str, limit: int = MESSAGE) -> str:
    """The last `limit` characters, as text, without the white space around them."""
    if isinstance(text, bytes):
        text = text[-4 * limit :].decode("utf-8", "replace")
    return text.strip()[-limit:]


def head(text: bytes | str, limit: int = MESSAGE) -> str:
    """The first `limit` characters: compilers say what matters first."""
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    return text.strip()[:limit]


def version(command: Sequence[str]) -> str | None:
    """First line of `command`'s output, or None if it is not installed or fails."""
    path = shutil.which(command[0])
    if path is None:
        return None
    try:
        done = subprocess.run(
            [path, *command[1:]], capture_output=True, text=True, timeout=30, errors="replace",
            env=dict(os.environ, LC_ALL="C"),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [x.strip() for x in (done.stdout + done.stderr).splitlines() if x.strip()]
    return lines[0] if done.returncode == 0 and lines else None


def verdict_of_run(
    run: Finished, *, assertion: str, memory: str, compile_seconds: float = 0.0
) -> Verdict:
    """Turns how a run ended into its class.

    Args:
      run: the finished process.
      assertion: regular expression; standard error that matches is a failed assertion.
      memory: regular expression; standard error that matches is memory exhausted.
      compile_seconds: to be put into the verdict.
    """
    errors = run.stderr.decode("utf-8", "replace")
    if run.violation:
        outcome, message = Outcome.VIOLATION, run.violation
    elif run.timed_out:
        outcome, message = Outcome.TIMEOUT, run.timed_out
    elif run.output_full:
        outcome, message = Outcome.OUTPUT_LIMIT, "wrote more than the limit"
    elif run.proved and run.status == 0:
        outcome, message = Outcome.PASSED, ""
    elif re.search(memory, errors):
        outcome, message = Outcome.MEMORY, tail(errors)
    elif re.search(assertion, errors):
        outcome, message = Outcome.WRONG_ANSWER, tail(errors)
    else:
        outcome, message = Outcome.RUNTIME_ERROR, tail(errors) or run.how
    return Verdict(
        outcome, message, run.cpu_seconds, compile_seconds, run.wall_seconds, run.memory_bytes
    )
