"""The optional C++ kernels of CPUs: built by the user's compiler, called through `jax.ffi`.

`build` compiles `native/*.cc` into the cache folder (`files.cache_folder`), under a name that holds
the sources, the flags, the CPU's features and jaxlib's version: what another machine or an older
release built is never loaded. Where nothing is built, or GEEX_KERNELS is "off", the plain way of
`kernels.cpu` runs; W8A8 results are the same to the bit.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pathlib
import platform as machine
import shutil
import subprocess
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from geex_jax import files
from geex_jax.errors import GeexError

SOURCES = pathlib.Path(__file__).parent / "native"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fPIC", "-shared", "-w")
TARGETS = (
    "geex_int8_matmul", "geex_int4_matmul", "geex_float_matmul", "geex_decode_attention",
)  # fmt: skip


def build(compiler: str | None = None) -> pathlib.Path:
    """Compiles the kernels if they are not there yet, tests them, and returns the library's path.

    Args:
      compiler: a C++ compiler that knows GCC's flags; by default $CXX, else g++, else clang++.

    Raises:
      GeexError: no compiler, or one that fails; Windows.
    """
    target = library()
    if target.is_file():
        return target
    found = compiler or os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if not found or os.name == "nt":
        raise GeexError(
            "no C++ compiler found",
            "install g++ (Debian: apt install g++), or go without: the plain way needs none",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = pathlib.Path(folder) / target.name
        command = [found, *FLAGS, f"-I{jax.ffi.include_dir()}", "-o", str(made)]
        command += sorted(map(str, SOURCES.glob("*.cc")))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GeexError(f"{found}: {error}", "give a working compiler in CXX") from None
        if done.returncode:
            line = next((x for x in done.stderr.splitlines() if "error" in x), "no message")
            raise GeexError(f"{found} failed: {line}", "GCC 10 or clang 12 or later is needed")
        os.replace(made, target)
    _load.cache_clear()
    try:
        _check(target)
    except GeexError:
        target.unlink()
        _load.cache_clear()
        raise
    return target


def _check(target: pathlib.Path) -> None:
    # Against the plain way, with rows for every size of tile and columns for every tail.
    from geex_jax.kernels import cpu, cpu_native_floats

    wrong = GeexError("the C++ kernels compute something else", "try another compiler (--compiler)")

    if not _load(target):
        raise GeexError("the C++ kernels do not load", "was another Python's jaxlib used?")
    plain = jax.jit(cpu.plain_matmul, static_argnums=2)  # divides through reciprocals
    random = np.random.default_rng(0)
    for rows, width, outputs in ((1, 64, 16), (3, 130, 21), (14, 1100, 37), (33, 70, 150)):
        x = jnp.asarray(random.standard_normal((rows, width)), jnp.float32)
        scale = jnp.asarray(random.random(outputs), jnp.float32)
        int8 = random.integers(-128, 128, (outputs, width), np.int8)
        int4 = random.integers(0, 256, (outputs, width // 2), np.uint8)
        for name, kernel in (("kernel_int8", int8), ("kernel_int4", int4)):
            for count in (1, 2, 3):
                expected = plain(x, {name: kernel, "kernel_scale": scale}, count)
                same = np.array_equal(matmul(x, jnp.asarray(kernel), scale, count), expected)
                if not same:
                    raise wrong
    if not cpu_native_floats.right():
        raise wrong


def library() -> pathlib.Path:
    """Where the library for these sources and this machine is, or would be."""
    return files.cache_folder() / "kernels" / f"geex_kernels_{_fingerprint()}.so"


@functools.cache
def _fingerprint() -> str:
    sources = [p.read_bytes() for p in sorted(SOURCES.iterdir()) if p.suffix in (".cc", ".h")]
    return files.fingerprint(*sources, *FLAGS, _features(), jaxlib.__version__)


@functools.cache
def _features() -> str:
    # What -march=native depends on.
    for line in _cpuinfo():
        if line.startswith(("flags", "Features")):
            return " ".join(sorted(line.split(":")[1].split()))
    return f"{machine.machine()} {machine.processor()} {machine.node()}"


def _cpuinfo() -> list[str]:
    try:
        return pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def available() -> bool:
    """Whether the kernels are built and wanted, and one device runs what is traced."""
    if os.environ.get("GEEX_KERNELS", "").lower() in ("off", "0", "no"):
        return False
    mesh = jax.sharding.get_abstract_mesh()
    # XLA cannot cut a call into parts.
    return (mesh.empty or mesh.size == 1) and _load(library())


@functools.cache
def _load(path: pathlib.Path) -> bool:
    if not path.is_file():
        return False
    try:
        loaded = ctypes.CDLL(str(path))
        for name in TARGETS:
            capsule = jax.ffi.pycapsule(getattr(loaded, name))
            jax.ffi.register_ffi_target(target(name), capsule, platform="cpu")
    except (OSError, AttributeError):
        return False
    return True


def target(name: str) -> str:
    """The name that a kernel has for XLA: of this library alone, since XLA keeps it for good."""
    return f"{name}_{files.fingerprint(str(library()))}"


def matmul(x: jax.Array, kernel: jax.Array, scale: jax.Array, limbs: int) -> jax.Array:
    """(x kernel^T) * scale, in float32 [M, out].

    Args:
      x: float [M, in]; each row is made of integers as `cpu.limbs` does, or with one limb (W8A8)
        as `int8_matmul.quantize`.
      kernel: int8 [out, in], or int4 packed in uint8 [out, in/2].
      scale: float [out], or for int4 [out, groups] where each in/groups columns, a multiple of
        four, have one.
      limbs: int8 digits of a number, 1 to 3.
    """
    shape = jax.ShapeDtypeStruct((x.shape[0], kernel.shape[0]), jnp.float32)
    name = "geex_int8_matmul" if kernel.dtype == jnp.int8 else "geex_int4_matmul"
    call: Any = jax.ffi.ffi_call(target(name), shape, vmap_method="sequential")
    scale = scale.astype(jnp.float32).reshape(kernel.shape[0], -1)
    return call(x.astype(jnp.float32), kernel, scale, limbs=np.int64(limbs))
