"""The supervisor's side of a sandbox: runs, fork servers, resident tools."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geex_jax.benchmark.languages.types import Limits
from geex_jax.benchmark.sandbox import child, linux
from geex_jax.benchmark.sandbox.finished import Channel, Finished, Outputs, judge_end
from geex_jax.benchmark.sandbox.helpers import KEPT, Service, Twin, Zygote

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TICKS = os.sysconf("SC_CLK_TCK")


class HostGone(Exception):
    """The other end of the control socket closed: there is nobody left to work for."""


class Jail:
    """Runs programs inside the sandbox that this process is the supervisor of.

    Attributes:
      work: the supervisor's folder; compilers may write in it, programs may not.
      tmp: where programs run: a new, empty folder for each.
      cache: what the language's `prepare` built, read-only.
    """

    def __init__(
        self, settings: Mapping[str, Any], control: socket.socket, warn: Callable[[str], None]
    ):
        self.work: str = settings["work"]
        self.tmp: str = settings["tmp"]
        self.cache: str = settings["cache"]
        self.warn = warn
        self.identity = child.Identity(
            settings["namespaces"], settings["several_users"], settings["filters"]
        )
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # as before Python came
            signal.signal(number, signal.SIG_DFL)
        if settings["namespaces"]:
            linux.bound_capabilities(KEPT)
        self.control = control
        self._random = random.SystemRandom()
        self._helpers: list[Zygote | Service | Twin] = []
        self._spawn = None
        if settings["spawn"]:
            self._spawn = ctypes.PyDLL(settings["spawn"]).geex_spawn

    def channel(self, late: bool = False) -> Channel:
        """A secret for one run."""
        return Channel(self._random, late)

    def run(
        self,
        argv: Sequence[str] | None = None,
        *,
        limits: Limits,
        compiling: bool = False,
        child_call: Callable[[], None] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: bytes = b"",
        channel: Channel | None = None,
        descriptors: Mapping[int, int] | None = None,
    ) -> Finished:
        """Runs one program to its end.

        Args:
          argv: path and arguments; or None and
          child_call: what a fork of this process does (it must not return to its caller).
          limits: what it may use.
          compiling: see `child.enter`.
          env: its whole environment besides PATH, HOME and LANG.
          cwd: default `tmp`, for compilers `work`.
          stdin: what it reads.
          channel: proves success; see `Channel`.
          descriptors: further descriptors: number there -> number here.
        """  # fmt: skip
        cwd = cwd or (self.work if compiling else self.tmp)
        environment = {"PATH": _PATH, "HOME": cwd, "LANG": "C.UTF-8", **(env or {})}
        with Outputs(stdin) as outputs:
            table = {0: outputs.stdin, 1: outputs.stdout, 2: outputs.stderr}
            table |= dict(descriptors or {})
            if channel is not None:
                table |= channel.descriptors
            started = time.monotonic()
            start = self._spawn_child if self._spawn else self._fork_child
            pid = start(argv, child_call, environment, cwd, limits, compiling, table)
            if channel is not None and channel.late:
                channel.draw()
            try:
                why = self._wait(pid, limits, compiling)
                _, status, usage = os.wait4(pid, 0)
            finally:
                if compiling:
                    with contextlib.suppress(OSError):
                        os.killpg(pid, signal.SIGKILL)
            self.after_run()
            return judge_end(
                outputs, channel, limits, status, usage.ru_utime + usage.ru_stime,
                usage.ru_maxrss * 1024, time.monotonic() - started, why, compiling,
            )  # fmt: skip

    def _spawn_child(
        self, argv: Sequence[str] | None, call: Callable[[], None] | None,
        environment: dict[str, str], cwd: str, limits: Limits, compiling: bool,
        table: dict[int, int],
    ) -> int:  # fmt: skip
        """The quick way; see native/spawn.c."""
        assert self._spawn is not None
        head, program = child.request(
            self.identity, limits, compiling=compiling, may_exec=argv is not None, tmp=self.tmp
        )
        wanted = sorted(table)
        there = (ctypes.c_int * len(wanted))(*wanted)
        here = (ctypes.c_int * len(wanted))(*[table[x] for x in wanted])
        words = None if argv is None else _words(argv)
        pairs = None if argv is None else _words([f"{k}={v}" for k, v in environment.items()])
        pid = self._spawn(
            ctypes.create_string_buffer(head, len(head)),
            ctypes.create_string_buffer(program, len(program)), there, here, len(wanted),
            os.fsencode(cwd), None if argv is None else os.fsencode(argv[0]), words, pairs,
        )  # fmt: skip
        if pid == 0:
            try:
                assert call is not None
                call()
            finally:
                os._exit(127)
        if pid < 0:
            raise OSError("cannot start a process")
        return pid

    def _fork_child(
        self, argv: Sequence[str] | None, call: Callable[[], None] | None,
        environment: dict[str, str], cwd: str, limits: Limits, compiling: bool,
        table: dict[int, int],
    ) -> int:  # fmt: skip
        """The way without a C compiler."""
        pid = linux.fork()
        if pid:
            return pid
        try:
            child.enter(
                self.identity, limits, compiling=compiling, may_exec=argv is not None,
                tmp=self.tmp, work=self.work, descriptors=table,
            )  # fmt: skip
            os.chdir(cwd)
            if argv is not None:
                os.execve(argv[0], list(argv), environment)
            assert call is not None
            call()
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(2, f"sandbox: {error}\n".encode())
        finally:
            os._exit(127)

    def _wait(self, pid: int, limits: Limits, compiling: bool) -> str:
        """Waits for the end of `pid`, or ends it. Returns why it was ended, or ""."""
        handle = os.pidfd_open(pid)
        try:
            return self.watch(
                handle, pid, limits.compile_seconds * 3 if compiling else limits.wall_seconds
            )
        finally:
            os.close(handle)

    def watch(self, handle: int, pid: int, wall: float) -> str:
        """Waits until `handle` is readable; ends `pid` when it is idle or starved for too long.

        A process that is only starved of CPU by others gets up to four times the wall time,
        since its CPU time is what decides.
        """
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        poller.register(self.control, select.POLLHUP | select.POLLRDHUP)
        started = time.monotonic()
        last_cpu, last_time = 0.0, started
        deadline = started + wall
        while True:
            now = time.monotonic()
            ready = poller.poll(max(deadline - now, 0) * 1000)
            if any(fd == self.control.fileno() for fd, _ in ready):
                raise HostGone
            if ready:
                return ""
            now = time.monotonic()
            used = process_cpu(pid)
            starved = used is not None and used - last_cpu > 0.05 * (now - last_time)
            if starved and now - started < 4 * wall:
                last_cpu, last_time = used or 0.0, now
                deadline = now + wall / 2
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            poller.unregister(self.control)
            poller.poll(10_000)
            return f"stopped after {now - started:.0f} s of wall time"

    def zygote(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
    ) -> Zygote:
        """Starts a fork server; see native/zygote.h. It is trusted until it forks."""
        helper = Zygote(self, argv, {"PATH": _PATH, "HOME": self.work, **(env or {})}, cwd)
        self._helpers.append(helper)
        return helper

    def service(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Service:  # fmt: skip
        """Starts a resident tool that answers requests on its standard input and output."""
        helper = Service(self, argv, {"PATH": _PATH, "HOME": self.work, **(env or {})}, limits)
        self._helpers.append(helper)
        return helper

    def twin(self, serve: Callable[[bytes], bytes]) -> Twin:
        """Forks this process into one that has `serve` answer requests."""
        helper = Twin(self, serve)
        self._helpers.append(helper)
        return helper

    def fresh(self) -> None:
        """Empties `work`."""
        _empty(self.work)

    def after_run(self) -> None:
        """Leaves nothing of a run behind."""
        if not self.identity.namespaces:
            _empty(self.tmp)
            return
        # As the first process of its namespace this one inherits orphans.
        with contextlib.suppress(ChildProcessError):
            while True:
                info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if info is None or any(h.pid == info.si_pid for h in self._helpers):
                    return
                os.waitpid(info.si_pid, 0)

    def cpu_seconds(self) -> float:
        """CPU time of this process, its dead children and its living helpers so far."""
        now = os.times()
        return sum(now[:4]) + sum(
            (process_cpu(h.pid, children=True) or 0.0) for h in self._helpers if h.pid
        )

    def close(self) -> None:
        """Ends all helpers."""
        for helper in self._helpers:
            helper.close()


def _words(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*[os.fsencode(x) for x in words], None)


def _empty(folder: str) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)


def process_cpu(pid: int, children: bool = False) -> float | None:
    """CPU seconds of a process (and of its dead children), or None if it can't be told."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(int(x) for x in fields[11 : 15 if children else 13]) / _TICKS
