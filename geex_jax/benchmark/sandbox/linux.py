"""The few system calls that Python does not offer, by ctypes. Errors are OSError."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import struct
from collections.abc import Mapping

_libc = ctypes.CDLL(None, use_errno=True)
_fork = ctypes.PyDLL(None, use_errno=True).fork  # keeps the interpreter's lock

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x8000000, 0x10000000, 0x20000000
CLONE_NEWNET = 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
PR_SET_NAME = 15
PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 47, 2, 4
CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_ADMIN = 5, 6, 7, 8, 21
_X86 = os.uname().machine == "x86_64"
_NR_SECCOMP, _NR_PIVOT_ROOT = (317, 155) if _X86 else (277, 41)
_NR_CAPSET = 126 if _X86 else 91
_CAPS_VERSION = 0x20080522


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def fork() -> int:
    """fork(2) without what Python does in the child for the sake of other threads.

    Only for a process of one thread. `os.fork` seeds generators and sets up locks anew, which
    costs more than the fork itself.
    """
    return _check(_fork(), "fork")


def unshare(flags: int) -> None:
    """Leaves the namespaces that `flags` (CLONE_NEW*) name for new ones."""
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    _check(
        _libc.mount(
            source.encode(), target.encode(), kind.encode() if kind else None,
            ctypes.c_ulong(flags), data.encode() or None,
        ),
        f"mount {target}",
    )  # fmt: skip


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(_libc.syscall(_NR_PIVOT_ROOT, new.encode(), old.encode()), "pivot_root")


def prctl(option: int, *args: int) -> int:
    """prctl(2); missing arguments are 0."""
    padded = [ctypes.c_ulong(x) for x in (*args, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *padded), f"prctl {option}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    _check(_libc.sethostname(name.encode(), len(name)), "sethostname")


def _capset(effective: int, inheritable: int) -> None:
    header = struct.pack("=Ii", _CAPS_VERSION, 0)
    low, high = effective & 0xFFFFFFFF, effective >> 32
    inherit_low, inherit_high = inheritable & 0xFFFFFFFF, inheritable >> 32
    data = struct.pack("=6I", low, low, inherit_low, high, high, inherit_high)
    _check(_libc.syscall(_NR_CAPSET, header, data), "capset")


def last_capability() -> int:
    """Number of the highest capability that this kernel knows."""
    try:
        with open("/proc/sys/kernel/cap_last_cap") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 40


def keep_over_exec(capabilities: tuple[int, ...]) -> None:
    """Makes a process with a user id other than 0 keep `capabilities` when it execs."""
    bits = sum(1 << number for number in capabilities)
    _capset(bits, bits)
    for number in capabilities:
        with contextlib.suppress(OSError):
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def bound_capabilities(keep: tuple[int, ...]) -> None:
    """Makes sure that no exec from here on can gain a capability that is not in `keep`."""
    for number in range(last_capability() + 1):
        if number not in keep:
            with contextlib.suppress(OSError):
                prctl(PR_CAPBSET_DROP, number)


def drop_privileges(uid: int) -> None:
    """Becomes `uid` (user and group, as seen in the namespace) with no capability."""
    with contextlib.suppress(OSError):  # refused in a user namespace of one user
        os.setgroups([])
    if os.getgid() != uid:
        os.setresgid(uid, uid, uid)
    if os.getuid() != uid:
        os.setresuid(uid, uid, uid)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    _capset(0, 0)


def install_filter(program: bytes) -> None:
    """Installs a seccomp filter for this process and all that come from it.

    Args:
      program: an array of `struct sock_filter`.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _check(_libc.syscall(_NR_SECCOMP, 1, 0, header), "seccomp")


def limit(which: int, value: int, extra: int = 0) -> None:
    """Sets a resource limit; a lower limit that already holds stays."""
    hard = resource.getrlimit(which)[1]
    soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
    top = value + extra if hard == resource.RLIM_INFINITY else min(value + extra, hard)
    resource.setrlimit(which, (soft, top))


def place(descriptors: Mapping[int, int]) -> None:
    """Puts each descriptor where it is wanted, and closes all others.

    Args:
      descriptors: wanted number -> descriptor now. 0, 1 and 2 must be among the wanted.
    """
    wanted = sorted(descriptors)
    high = max(wanted[-1], *descriptors.values()) + 1
    moved = [(there, fcntl.fcntl(descriptors[there], fcntl.F_DUPFD, high)) for there in wanted]
    for there, here in moved:
        os.dup2(here, there)
    start = 3
    for there in [*wanted[3:], 1 << 16]:
        os.closerange(start, there)
        start = there + 1
