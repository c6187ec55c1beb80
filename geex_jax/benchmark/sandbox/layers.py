"""Entering namespaces and building a root that shows nothing but tools."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence

from geex_jax.benchmark.sandbox import linux

# Paths inside; those of ours have names that no host path to be shown will have.
TMP, WORK, CACHE, PACKAGES = "/tmp", "/geex-work", "/geex-cache", "/geex-packages"
SAMPLE, SERVICE = 1000, 1001  # user ids inside, where there is more than one
OUTSIDE = 0x70000000  # what they are outside: nobody's
NAMESPACES = (
    linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS | linux.CLONE_NEWCGROUP
)  # fmt: skip
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "java-8-openjdk",
    "java-11-openjdk", "java-17-openjdk", "java-21-openjdk", "java-25-openjdk",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom")


def id_maps(uid: int, gid: int) -> tuple[str, str]:
    """Contents of uid_map and gid_map: root gets users for samples and services, others one."""
    if uid == 0:
        line = f"0 0 1\n1 {OUTSIDE + 1} 65000\n"
        return line, line
    return f"{SAMPLE} {uid} 1\n", f"{SAMPLE} {gid} 1\n"


def build_root(binds: Sequence[tuple[str, str]], work_bytes: int, several_users: bool) -> list[str]:
    """Makes `/` a read-only tree of system folders and `binds`, with /tmp and `WORK` of its own.

    Must run as the first process of new mount and PID namespaces, with all capabilities there.

    Args:
      binds: (host path, path inside) that are shown read-only.
      work_bytes: size of `WORK`.
      several_users: `WORK` belongs to `SERVICE` instead of to the only user.

    Returns:
      What could not be done, in words; the rest of the sandbox stands without it.
    """
    lacking: list[str] = []
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    base = "/tmp"  # any folder: the tmpfs hides it only until the first pivot
    linux.mount("tmpfs", base, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=16m")
    os.mkdir(f"{base}/new")
    os.mkdir(f"{base}/old")
    linux.pivot_root(base, f"{base}/old")
    os.chdir("/")
    linux.mount("/new", "/new", None, linux.MS_BIND)
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        _show(path, path)
    for path, inside in binds:
        _show(path, inside)
    os.makedirs("/new/etc", exist_ok=True)
    for name in _ETC:
        _show(f"/etc/{name}", f"/etc/{name}")
    _write("/new/etc/passwd", f"root:x:0:0::/:/bin/false\nsample:x:{SAMPLE}:{SAMPLE}::/tmp:\n"
           f"service:x:{SERVICE}:{SERVICE}::{WORK}:\n")  # fmt: skip
    _write("/new/etc/group", f"root:x:0:\nsample:x:{SAMPLE}:\nservice:x:{SERVICE}:\n")
    _write("/new/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
    _write("/new/etc/hosts", "127.0.0.1 localhost\n")
    os.mkdir("/new/dev")
    for name in _DEVICES:
        _write(f"/new/dev/{name}", "")
        linux.mount(f"/old/dev/{name}", f"/new/dev/{name}", None, linux.MS_BIND)
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"/new/dev/{name}")
    os.makedirs("/new/proc", exist_ok=True)
    quiet = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    try:
        linux.mount("proc", "/new/proc", "proc", quiet, "hidepid=2")
    except OSError as error:
        lacking.append(f"no /proc ({error.strerror})")
    for path, data in ((TMP, "mode=1777,size=1m"), (WORK, f"mode=711,size={work_bytes}")):
        os.makedirs(f"/new{path}", exist_ok=True)
        linux.mount("tmpfs", f"/new{path}", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, data)
    if several_users:
        os.chown(f"/new{WORK}", SERVICE, SERVICE)
    linux.mount("none", "/new", None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY
                | linux.MS_NOSUID | linux.MS_NODEV)  # fmt: skip
    os.chdir("/new")
    linux.pivot_root(".", ".")  # the old root now lies on top of the new one
    linux.umount(".")
    os.chdir("/")
    with contextlib.suppress(OSError):
        linux.sethostname("sandbox")
    return lacking


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _show(path: str, inside: str) -> None:
    """Puts the host's `path` under /new, read-only; links stay links, missing paths are left."""
    source, target = f"/old{path}", f"/new{inside}"
    try:
        kind = os.lstat(source).st_mode
    except OSError:
        return
    if os.path.lexists(target):
        return  # lies in what is shown already
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if stat.S_ISLNK(kind):
        os.symlink(os.readlink(source), target)
        return
    if stat.S_ISDIR(kind):
        os.mkdir(target)
    else:
        _write(target, "")
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)
    flags = linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | linux.MS_NOSUID
    have = os.statvfs(target).f_flag
    # Flags that the host has set are locked: a remount must keep them.
    flags |= linux.MS_NODEV  # device files come by /dev alone
    for bit, flag in ((os.ST_NOEXEC, linux.MS_NOEXEC), (os.ST_NOATIME, 1024),
                      (os.ST_NODIRATIME, 2048), (os.ST_RELATIME, 1 << 21)):  # fmt: skip
        flags |= flag if have & bit else 0
    linux.mount("none", target, None, flags)
