"""Processes that live as long as the sandbox: fork servers and resident tools."""

from __future__ import annotations

import array
import contextlib
import os
import resource
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from geex_jax.benchmark.languages.types import Limits
from geex_jax.benchmark.sandbox import child, linux, seccomp
from geex_jax.benchmark.sandbox.finished import (
    Channel,
    Finished,
    Outputs,
    judge_end,
    memory_file,
)

if TYPE_CHECKING:
    from geex_jax.benchmark.sandbox.jail import Jail

_EVENT = struct.Struct("=IiiIQQQ")  # struct zygote_event
_STARTED, _ENDED = 1, 2
# What a fork server needs to put its children into their places.
KEPT = (linux.CAP_KILL, linux.CAP_SETGID, linux.CAP_SETUID, linux.CAP_SETPCAP, linux.CAP_SYS_ADMIN)


class HelperDied(Exception):
    """A fork server or a resident tool is gone; it has to be started again."""


class _Helper:
    """Common to both: a child process that is trusted and lives on."""

    def __init__(self, jail: Jail, argv: Sequence[str], env: Mapping[str, str]):
        self.jail = jail
        self.argv = list(argv)
        self.env = dict(env)
        self.pid = 0

    def _spawn(self, table: dict[int, int], cwd: str, become: object) -> None:
        pid = linux.fork()
        if pid == 0:
            try:
                os.setsid()
                linux.place(table)
                os.chdir(cwd)
                become()  # type: ignore[operator]
                os.execve(self.argv[0], self.argv, self.env)
            except BaseException as error:
                with contextlib.suppress(OSError):
                    os.write(2, f"sandbox: {error}\n".encode())
            finally:
                os._exit(127)
        self.pid = pid

    def kill(self) -> None:
        """Ends the process and what it started."""
        if self.pid:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            self.pid = 0


class Zygote(_Helper):
    """A fork server. The protocol is in native/zygote.h.

    It keeps the sandbox's capabilities until it forks: it runs trusted code only, and its
    children give them up before they go on.
    """

    def __init__(self, jail: Jail, argv: Sequence[str], env: Mapping[str, str], cwd: str | None):
        super().__init__(jail, argv, env)
        self.cwd = cwd or jail.work
        self.errors = -1
        self._start()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.errors = memory_file("zygote-errors")
        null = os.open("/dev/null", os.O_RDWR)

        def become() -> None:
            if self.jail.identity.namespaces and os.getuid() != 0:
                linux.keep_over_exec(KEPT)

        self._spawn({0: null, 1: null, 2: self.errors, 3: theirs.fileno()}, self.cwd, become)
        os.close(null)
        theirs.close()
        self.socket = ours

    def restart(self) -> None:
        """Starts it anew."""
        self.close()
        self._start()

    def close(self) -> None:
        """Ends it."""
        self.kill()
        self.socket.close()
        if self.errors >= 0:
            os.close(self.errors)
            self.errors = -1

    def said(self) -> str:
        """What it wrote to its standard error before it forked."""
        return os.pread(self.errors, 4000, 0).decode("utf-8", "replace")

    def run(
        self, payload: bytes, descriptors: Sequence[int] = (), *, limits: Limits,
        compiling: bool = False, channel: Channel | None = None, stdin: bytes = b"",
        may_exec: bool = False,
    ) -> Finished:  # fmt: skip
        """Forks it and waits for the child's end.

        Args:
          payload: given to the child.
          descriptors: further open files for the child.
          limits: what the child may use.
          compiling: the child is a compiler.
          channel: proves success; see `Channel`.
          stdin: what the child reads.
          may_exec: whether it may exec another program.

        Raises:
          HelperDied: the fork server itself is gone. It has been started again.
        """
        file = memory_file("payload", payload)
        try:
            with Outputs(stdin) as outputs:
                started = time.monotonic()
                try:
                    pid = self._ask(file, outputs, descriptors, limits, compiling, channel,
                                    may_exec)  # fmt: skip
                    wall = limits.compile_seconds * 3 if compiling else limits.wall_seconds
                    stopped = self.jail.watch(self.socket.fileno(), pid, wall)
                    kind, _, status, _, cpu, memory, _ = self._event()
                except (OSError, HelperDied) as error:
                    said = self.said()
                    self.restart()
                    raise HelperDied(f"{os.path.basename(self.argv[0])}: {error} {said}") from None
                assert kind == _ENDED
                self.jail.after_run()
                if compiling:
                    with contextlib.suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)
                return judge_end(
                    outputs, channel, limits, status, cpu / 1e6, memory,
                    time.monotonic() - started, stopped, compiling,
                )  # fmt: skip
        finally:
            os.close(file)

    def _ask(
        self, payload: int, outputs: Outputs, descriptors: Sequence[int], limits: Limits,
        compiling: bool, channel: Channel | None, may_exec: bool,
    ) -> int:  # fmt: skip
        head, program = child.request(
            self.jail.identity, limits, compiling=compiling, may_exec=may_exec or compiling,
            tmp=self.jail.tmp, channel_fd=channel.fd if channel else -1,
        )  # fmt: skip
        files = [payload, outputs.stdin, outputs.stdout, outputs.stderr]
        files += [channel.file] if channel else []
        files += descriptors
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))
        self.socket.sendmsg([head, program], [rights])
        kind, pid, *_ = self._event()
        if kind != _STARTED:
            raise HelperDied("it did not fork")
        return pid

    def _event(self) -> tuple[int, int, int, int, int, int, int]:
        poller = select.poll()
        poller.register(self.socket, select.POLLIN)
        if not poller.poll(60_000):
            raise HelperDied("it does not answer")
        data = self.socket.recv(256)
        if len(data) != _EVENT.size:
            raise HelperDied("it died")
        return _EVENT.unpack(data)


class Service(_Helper):
    """A resident tool, such as a compiler, that answers requests on its pipes.

    A message is its length in four bytes, most significant first, and its bytes, both ways.
    """

    def __init__(
        self, jail: Jail, argv: Sequence[str], env: Mapping[str, str], limits: Limits | None
    ):
        super().__init__(jail, argv, env)
        self.limits = limits or Limits()
        self.errors = -1
        self._start()

    def _start(self) -> None:
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        self.errors = memory_file("service-errors")
        identity = self.jail.identity

        def become() -> None:
            for which, value, extra in child.rlimits(self.limits, True):
                if which not in (resource.RLIMIT_CPU, resource.RLIMIT_AS):
                    linux.limit(which, value, extra)
            uid = identity.uid(True)
            if uid is not None:
                linux.drop_privileges(uid)
            linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
            if identity.filters:
                linux.install_filter(seccomp.build(True))

        self._spawn({0: read, 1: write, 2: self.errors}, self.jail.work, become)
        os.close(read)
        os.close(write)
        os.set_blocking(self._out, False)

    def restart(self) -> None:
        """Starts it anew."""
        self.close()
        self._start()

    def close(self) -> None:
        """Ends it."""
        self.kill()
        for file in (self._in, self._out, self.errors):
            with contextlib.suppress(OSError):
                os.close(file)

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        size = os.fstat(self.errors).st_size
        return os.pread(self.errors, 4000, max(0, size - 4000)).decode("utf-8", "replace")

    def request(self, message: bytes, seconds: float, wall: float | None = None) -> bytes:
        """Sends a request and waits for the answer.

        Args:
          message: the request.
          seconds: CPU time that the tool may spend on it.
          wall: seconds to wait at most; default three times as long.

        Raises:
          TimeoutError: it took longer. HelperDied: it died. Call `restart` after either.
        """
        from geex_jax.benchmark.sandbox.jail import process_cpu

        began = process_cpu(self.pid) or 0.0
        deadline = time.monotonic() + (wall or 3 * seconds)
        pending = memoryview(struct.pack(">I", len(message)) + message)
        received = bytearray()
        poller = select.poll()
        poller.register(self._in, select.POLLIN)
        poller.register(self._out, select.POLLOUT)
        while True:
            for file, _ in poller.poll(50):
                if file == self._out:
                    try:
                        pending = pending[os.write(self._out, pending[: 1 << 16]) :]
                    except BlockingIOError:
                        pass
                    except OSError:
                        raise HelperDied(self.said()) from None
                    if not pending:
                        poller.unregister(self._out)
                else:
                    data = os.read(self._in, 1 << 20)
                    if not data:
                        raise HelperDied(self.said())
                    received += data
            if len(received) >= 4:
                length = int.from_bytes(received[:4], "big")
                if len(received) >= 4 + length:
                    return bytes(received[4 : 4 + length])
            if (process_cpu(self.pid) or 0.0) - began > seconds or time.monotonic() > deadline:
                raise TimeoutError(f"{os.path.basename(self.argv[0])} took too long")


class Twin(_Helper):
    """A fork of the supervisor that answers requests in its stead, as trusted as it is."""

    def __init__(self, jail: Jail, serve: Callable[[bytes], bytes]):
        super().__init__(jail, [], {})
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        pid = linux.fork()
        if pid == 0:
            try:
                ours.close()
                stream = theirs.makefile("rwb")
                while head := stream.read(4):
                    answer = serve(stream.read(int.from_bytes(head, "big")))
                    stream.write(len(answer).to_bytes(4, "big") + answer)
                    stream.flush()
            finally:
                os._exit(0)
        theirs.close()
        self.pid = pid
        self._stream = ours.makefile("rwb")
        ours.close()

    def request(self, message: bytes) -> bytes:
        """Returns the answer.

        Raises:
          HelperDied: it is gone.
        """
        self._stream.write(len(message).to_bytes(4, "big") + message)
        self._stream.flush()
        head = self._stream.read(4)
        if len(head) < 4:
            raise HelperDied("the second supervisor died")
        return self._stream.read(int.from_bytes(head, "big"))

    def close(self) -> None:
        """Ends it."""
        self.kill()
