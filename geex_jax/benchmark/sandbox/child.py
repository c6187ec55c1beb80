"""What a forked child does before it becomes the program: descriptors, limits, identity, filter."""

from __future__ import annotations

import dataclasses
import math
import os
import resource
import struct

from geex_jax.benchmark.languages.types import Limits
from geex_jax.benchmark.sandbox import layers, linux, seccomp

_QUIET = linux.MS_NOSUID | linux.MS_NODEV
_MAGIC = 0x67656578
_COMPILING, _NEW_TMP, _LOCK_WORK = 1, 2, 4
_REQUEST = struct.Struct("=IIiiiIIII4I9Q64s")  # struct zygote_request of native/zygote.h


@dataclasses.dataclass(frozen=True)
class Identity:
    """What the sandbox around a child is like.

    Attributes:
      namespaces: whether it has its own mounts, so that /tmp can be made anew for each run.
      several_users: whether samples and services have user ids of their own.
      filters: whether seccomp works.
    """

    namespaces: bool
    several_users: bool
    filters: bool

    def uid(self, compiling: bool) -> int | None:
        """User id of a child, or None to stay who one is."""
        if not self.several_users:
            return layers.SAMPLE if self.namespaces else None
        inside = layers.SERVICE if compiling else layers.SAMPLE
        return inside if self.namespaces else layers.OUTSIDE + inside


def rlimits(limits: Limits, compiling: bool) -> list[tuple[int, int, int]]:
    """Returns (resource, soft limit, how much higher the hard limit is).

    Private writable memory counts as memory; the address space, in which runtimes reserve far
    more than they use, is bounded because shared mappings would otherwise escape the count.
    """
    cpu = math.ceil(limits.compile_seconds if compiling else limits.cpu_seconds)
    memory = limits.memory_bytes * (2 if compiling else 1)
    files = (1 << 29) if compiling else limits.output_bytes
    return [
        (resource.RLIMIT_CPU, cpu, 1),
        (resource.RLIMIT_DATA, memory, 0),
        (resource.RLIMIT_AS, memory + (2 << 30), 0),
        (resource.RLIMIT_FSIZE, files, 0),
        (resource.RLIMIT_NPROC, max(limits.threads, 64 if compiling else 1), 0),
        (resource.RLIMIT_NOFILE, 1024 if compiling else 256, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ]


def request(
    identity: Identity, limits: Limits, *, compiling: bool, may_exec: bool, tmp: str,
    channel_fd: int = -1,
) -> tuple[bytes, bytes]:  # fmt: skip
    """What native/zygote.h does in place of `enter`: a struct zygote_request, and its filter."""
    program = seccomp.build(compiling, may_exec) if identity.filters else b""
    offsets = seccomp.pid_offsets(program)
    flags = _COMPILING if compiling else 0
    if identity.namespaces and not compiling:
        flags |= _NEW_TMP | (0 if identity.several_users else _LOCK_WORK)
    table = {which: value for which, value, _ in rlimits(limits, compiling)}
    uid = identity.uid(compiling)
    head = _REQUEST.pack(
        _MAGIC, flags, -1 if uid is None else uid, channel_fd, 0, len(program), len(offsets), 0, 0,
        *[*offsets, 0, 0, 0, 0][:4],
        table[resource.RLIMIT_CPU], table[resource.RLIMIT_DATA], table[resource.RLIMIT_AS],
        table[resource.RLIMIT_FSIZE], table[resource.RLIMIT_NPROC], table[resource.RLIMIT_NOFILE],
        limits.tmp_bytes, 0, 0, tmp.encode(),
    )  # fmt: skip
    return head, program


def enter(
    identity: Identity,
    limits: Limits,
    *,
    compiling: bool,
    may_exec: bool,
    tmp: str,
    work: str,
    descriptors: dict[int, int],
) -> None:
    """Turns this fresh fork into a process that is ready for a program that nobody trusts.

    Args:
      identity: the sandbox around it.
      limits: what it may use.
      compiling: it is a compiler: it may start processes, and sees no new /tmp.
      may_exec: it is about to exec; else it stays in this process image.
      tmp: the path of the private temporary folder.
      work: the supervisor's folder, which it must not be able to write in.
      descriptors: number in the child -> descriptor here; all others are closed.
    """  # fmt: skip
    os.setsid()
    linux.place(descriptors)
    if identity.namespaces and not compiling:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount("tmpfs", tmp, "tmpfs", _QUIET,
                    f"mode=1777,size={limits.tmp_bytes},nr_inodes=10000")  # fmt: skip
        if not identity.several_users:
            linux.mount("none", work, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
                        | _QUIET)  # fmt: skip
    for which, value, extra in rlimits(limits, compiling):
        linux.limit(which, value, extra)
    uid = identity.uid(compiling)
    if uid is not None:
        linux.drop_privileges(uid)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if identity.filters:
        linux.install_filter(seccomp.for_pid(seccomp.build(compiling, may_exec), os.getpid()))
