"""How a run ended, and the proof that it ended well."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import random
import re
import signal
import types

from geex_jax.benchmark.languages.types import Limits

_HEAD, _TAIL = 16 << 10, 48 << 10
# glibc and the kernel know these; Python's fcntl names only some of them.
_ADD_SEALS, _SEAL_SEAL, _SEAL_SHRINK = 1033, 1, 2
_DENIED = re.compile(
    r"PermissionError|Permission denied|Operation not permitted|Read-only file system|"
    r"\bE(PERM|ACCES|ROFS)\b|AccessDenied|Network is unreachable|ENETUNREACH"
)


def memory_file(name: str, data: bytes = b"", sealed: bool = False) -> int:
    """An anonymous file in memory.

    Args:
      name: for /proc only.
      data: what is in it, to be read from its start.
      sealed: it can never be made shorter, so that what was written stays.
    """
    file = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if data:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.lseek(file, 0, os.SEEK_SET)
    if sealed:
        fcntl.fcntl(file, _ADD_SEALS, _SEAL_SHRINK | _SEAL_SEAL)
        fcntl.fcntl(file, fcntl.F_SETFL, os.O_APPEND)
    return file


class Channel:
    """A secret by which a run proves that it got to the end of its tests.

    The program finds a file open at a random descriptor number. What stands behind the tests
    writes `str(first ^ second)` there. Exit codes and printed words prove nothing, and text
    copied from the program's own source is not the proof either, since it holds only the parts.

    Attributes:
      fd: descriptor number in the program.
      first, second: random integers in [0, 2**31).
      file: the descriptor here.
      late: the parts are drawn after the fork, and wait in a pipe at descriptor `parts_fd` of
        the program: for programs that are forks of this process and could find them in it.
    """

    def __init__(self, source: random.Random, late: bool = False):
        self._source, self.late = source, late
        self.fd, self.parts_fd = source.sample(range(64, 250), 2)
        self.first = self.second = 0
        if late:
            self.reader, self._writer = os.pipe()
        else:
            self.draw()
        self.file = memory_file("channel")

    def draw(self) -> None:
        """Draws the two parts, and sends them if the channel is a late one."""
        self.first, self.second = self._source.getrandbits(31), self._source.getrandbits(31)
        if self.late:
            os.write(self._writer, b"%d %d" % (self.first, self.second))
            os.close(self._writer)
            os.close(self.reader)  # not before: the program may have ended already

    @property
    def descriptors(self) -> dict[int, int]:
        """Number in the program -> descriptor here."""
        return {self.fd: self.file} | ({self.parts_fd: self.reader} if self.late else {})

    @property
    def proof(self) -> bytes:
        """What the file holds after a success, and then only."""
        return str(self.first ^ self.second).encode()

    def close(self) -> bool:
        """Closes the file. Returns whether the proof was in it, and nothing else."""
        found = os.pread(self.file, 64, 0) == self.proof
        os.close(self.file)
        return found


class Outputs:
    """Standard input, output and error of one run, in memory."""

    def __init__(self, stdin: bytes = b""):
        self.stdin = memory_file("stdin", stdin) if stdin else os.open("/dev/null", os.O_RDONLY)
        self.stdout = memory_file("stdout", sealed=True)
        self.stderr = memory_file("stderr", sealed=True)

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:  # fmt: skip
        for file in (self.stdin, self.stdout, self.stderr):
            os.close(file)


@dataclasses.dataclass
class Finished:
    """How a run ended.

    Attributes:
      status: exit status, or minus the signal.
      how: the same in words.
      cpu_seconds, wall_seconds: of the run. memory_bytes: its largest resident set.
      stdout, stderr: their first 16 and last 48 KiB. stdout_size, stderr_size: bytes written.
      proved: whether the channel holds the proof.
      timed_out: why it was stopped for time, or "".
      output_full: it hit the limit of output.
      violation: what the sandbox refused it, or "".
    """

    status: int
    how: str
    cpu_seconds: float
    wall_seconds: float
    memory_bytes: int
    stdout: bytes
    stderr: bytes
    stdout_size: int
    stderr_size: int
    proved: bool
    timed_out: str
    output_full: bool
    violation: str


def _read(file: int) -> tuple[bytes, int]:
    size = os.fstat(file).st_size
    if size <= _HEAD + _TAIL:
        return os.pread(file, size, 0), size
    return os.pread(file, _HEAD, 0) + b"\n[...]\n" + os.pread(file, _TAIL, size - _TAIL), size


def judge_end(
    outputs: Outputs, channel: Channel | None, limits: Limits, wait_status: int, cpu: float,
    memory: int, wall: float, stopped: str, compiling: bool,
) -> Finished:  # fmt: skip
    """Puts together what is known of a run that has ended.

    Args:
      outputs: its files.
      channel: its secret; closed here.
      limits: what it was given.
      wait_status: as wait4 gives it.
      cpu, wall: seconds. memory: bytes.
      stopped: why the supervisor ended it, or "".
      compiling: it was a compiler.
    """
    status = os.waitstatus_to_exitcode(wait_status)
    stdout, stdout_size = _read(outputs.stdout)
    stderr, stderr_size = _read(outputs.stderr)
    proved = channel.close() if channel is not None else False
    allowed = limits.compile_seconds if compiling else limits.cpu_seconds
    timed_out = stopped
    if not timed_out and (status == -signal.SIGXCPU or (status and cpu >= allowed - 0.05)):
        timed_out = f"stopped after {cpu:.1f} s of CPU time"
    full = limits.output_bytes - 1
    violation = ""
    if status == -signal.SIGSYS:
        violation = "made a forbidden system call (a process, the network, tracing, mounting)"
    elif status and not proved and not compiling:
        denied = _DENIED.search(stderr.decode("utf-8", "replace"))
        violation = f"was refused something: {denied[0]}" if denied else ""
    return Finished(
        status, _how(status), cpu, wall, memory, stdout, stderr, stdout_size, stderr_size,
        proved, timed_out,
        status == -signal.SIGXFSZ or (not compiling and max(stdout_size, stderr_size) >= full),
        violation,
    )  # fmt: skip


def _how(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status} before its tests did"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
