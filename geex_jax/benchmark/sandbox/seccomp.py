"""The system calls that a compiler and a model-written program may not make.

A forbidden call ends the process by SIGSYS, which no program can catch away: so an attempt
is told from a mere error, and has its own class. Calls that honest runtimes try and do
without answer ENOSYS or EPERM.
"""

from __future__ import annotations

import errno
import functools
import os
import struct

_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_LOAD, _EQ, _GE, _SET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF opcodes; _SET is JSET
_ARCH, _NR, _ARG0, _ARG0_HIGH = 4, 0, 16, 20
PID = 0x7E57_0DED  # stands for the process's own id until it is known

# name -> (x86_64, aarch64); None: the call does not exist there.
_CALLS: dict[str, tuple[int | None, int | None]] = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "acct": (163, 89),
    "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "iopl": (172, None), "ioperm": (173, None), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "syslog": (103, 116), "lookup_dcookie": (212, 18),
    "fanotify_init": (300, 262), "landlock_create_ruleset": (444, 444),
    "seccomp": (317, 277), "fork": (57, None), "vfork": (58, None), "clone": (56, 220),
    "clone3": (435, 435), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "socket": (41, 198),
    "execve": (59, 221), "execveat": (322, 281), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "personality": (135, 92),
}  # fmt: skip
_X86 = os.uname().machine == "x86_64"

_NEVER = (
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "process_madvise",
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount",
    "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "swapon", "swapoff", "reboot",
    "acct", "init_module", "delete_module", "finit_module", "kexec_load", "kexec_file_load",
    "bpf", "perf_event_open", "userfaultfd", "add_key", "request_key", "keyctl", "quotactl",
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname",
    "setdomainname", "iopl", "ioperm", "name_to_handle_at", "open_by_handle_at", "syslog",
    "lookup_dcookie", "fanotify_init",
)  # fmt: skip
_RUN_NEVER = ("fork", "vfork", "tkill", "pidfd_send_signal", "pidfd_open")
_ABSENT = ("io_uring_setup", "io_uring_enter", "io_uring_register", "clone3")  # have fallbacks
_RUN_ABSENT = ("memfd_create", "memfd_secret", "shmget", "semget", "msgget", "mq_open")
_OWN_ONLY = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_CLONE_THREAD = 0x10000
_AF_UNIX = 1


def _nr(name: str) -> int | None:
    return _CALLS[name][0 if _X86 else 1]


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF)


@functools.cache
def build(compiling: bool, may_exec: bool = True) -> bytes:
    """Returns the filter as an array of `struct sock_filter`.

    Args:
      compiling: for compilers, which start other programs; else for model-written programs,
        which may start threads only and send signals to nobody but themselves.
      may_exec: whether execve is let through: a program that is exec'ed needs it once.

    Returns:
      A filter in which the constant `PID` stands for the process's own id; see `for_pid`.
    """
    kill, allow = _op(_RET, _KILL), _op(_RET, _ALLOW)
    absent = _op(_RET, _ERRNO | errno.ENOSYS)
    rules: dict[str, tuple[bytes, ...]] = dict.fromkeys(_NEVER, (kill,))
    rules |= dict.fromkeys(_ABSENT, (absent,))
    rules["socket"] = (_op(_LOAD, _ARG0), _op(_EQ, _AF_UNIX, 1, 0), kill, allow)
    if not compiling:
        rules |= dict.fromkeys(_RUN_NEVER, (kill,))
        rules |= dict.fromkeys(_RUN_ABSENT, (absent,))
        rules["clone"] = (_op(_LOAD, _ARG0), _op(_SET, _CLONE_THREAD, 1, 0), kill, allow)
        own = (_op(_LOAD, _ARG0), _op(_EQ, PID, 1, 0), kill, allow)
        rules |= dict.fromkeys(_OWN_ONLY, own)
        if not may_exec:
            rules |= {"execve": (kill,), "execveat": (kill,)}
    numbered = sorted((_nr(k), b"".join(v)) for k, v in rules.items() if _nr(k) is not None)
    arch = 0xC000003E if _X86 else 0xC00000B7
    out = _op(_LOAD, _ARCH) + _op(_EQ, arch, 1, 0) + kill + _op(_LOAD, _NR)
    if _X86:  # numbers of the x32 interface
        out += _op(_GE, 0x40000000, 0, 1) + kill
    return out + _tree(numbered, allow)


def _tree(rules: list[tuple[int | None, bytes]], allow: bytes) -> bytes:
    """A search tree: the kernel runs the filter for every call number when it is installed."""
    if len(rules) <= 2:
        parts = [_op(_EQ, number or 0, 0, len(body) // 8) + body for number, body in rules]
        return b"".join(parts) + allow
    middle = len(rules) // 2
    left, right = _tree(rules[:middle], allow), _tree(rules[middle:], allow)
    return _op(_GE, rules[middle][0] or 0, len(left) // 8, 0) + left + right


@functools.cache
def pid_offsets(program: bytes) -> list[int]:
    """Byte offsets of the constants that stand for the process's own id."""
    return [
        i + 4
        for i in range(0, len(program), 8)
        if struct.unpack_from("=I", program, i + 4)[0] == PID
    ]


def for_pid(program: bytes, pid: int) -> bytes:
    """The filter with the process's own id in place."""
    changed = bytearray(program)
    for offset in pid_offsets(program):
        struct.pack_into("=I", changed, offset, pid)
    return bytes(changed)
