"""PyTorch's zip checkpoints, written without PyTorch and with one tensor in memory at a time.

The pickle is of protocol 2 and uses only what `torch.load(weights_only=True)` and the
`torch.load` of old releases (1.6 and later) read.
"""

from __future__ import annotations

import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from geex_jax import files
from geex_jax.checkpoints.tensors import Lazy
from geex_jax.checkpoints.torch_pickle import STORAGES
from geex_jax.errors import GeexError

ALIGNMENT = 64  # torch's, so that a memory map of the file has aligned arrays
_ROOT = "archive"  # the same for every file name: equal trees make equal files
_ZIP64_FROM = 1 << 30  # safely below what needs it
_CLASSES = {dtype.name: dotted.removeprefix("torch.") for dotted, dtype in STORAGES.items()}


def write(
    path: str | os.PathLike[str], tree: Any, progress: Callable[[int], None] | None = None
) -> None:
    """Writes a checkpoint that `torch.load` reads; the file is whole or absent.

    Each tensor becomes a contiguous array with a storage of its own.

    Args:
      path: the file, usually *.pt or *.bin.
      tree: nested dicts with str or int keys, whose leaves follow `tensors.Lazy` or are plain
        str, int, float, bool or None. Their order is kept.
      progress: called after each tensor with the number of its bytes.

    Raises:
      GeexError: a key or leaf of another kind, or a leaf that reads as another shape or dtype
        than it promised.
    """
    pickled = _Pickle()
    pickled.add(tree, "")
    with files.atomic_write(path, "wb") as file, zipfile.ZipFile(file, "w") as archive:
        _member(archive, file, "data.pkl", b"\x80\x02" + b"".join(pickled.parts) + b".")
        _member(archive, file, "byteorder", b"little")
        for key, (name, leaf) in enumerate(pickled.tensors):
            array = _read(name, leaf)
            _member(archive, file, f"data/{key}", array)
            if progress is not None:
                progress(array.nbytes)
            del array  # before the next one is read
        _member(archive, file, "version", b"3\n")


def _read(name: str, leaf: Lazy) -> np.ndarray:
    """Returns a tensor's bytes, little-endian and in C order, as uint8 [bytes]."""
    array = np.asarray(leaf.read())
    if array.shape != tuple(leaf.shape) or array.dtype.name != np.dtype(leaf.dtype).name:
        raise GeexError(
            f"{name} promised {np.dtype(leaf.dtype).name}{list(leaf.shape)} "
            f"and read as {array.dtype.name}{list(array.shape)}",
            "its source is damaged",
        )
    little = np.dtype(STORAGES[f"torch.{_CLASSES[array.dtype.name]}"])
    return np.ascontiguousarray(array, little).reshape(-1).view(np.uint8)


def _member(archive: zipfile.ZipFile, file: IO[bytes], name: str, data: Any) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}")  # dated 1980, so that equal trees make equal files
    info.create_system = 0
    large = len(data) >= _ZIP64_FROM
    # A field of the header that means nothing, of the length that aligns what follows.
    before = file.tell() + 30 + len(info.filename) + 4 + (20 if large else 0)
    padding = b"Z" * (-before % ALIGNMENT)
    info.extra = struct.pack("<2sH", b"FB", len(padding)) + padding
    info.file_size = len(data)
    with archive.open(info, "w", force_zip64=large) as member:
        member.write(data)


class _Pickle:
    """Pickle opcodes for a tree, and the tensors they name, in the order of their storages."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.tensors: list[tuple[str, Lazy]] = []

    def add(self, node: Any, name: str) -> None:
        """Appends what makes `node`; `name` is its dotted path."""
        if isinstance(node, dict):
            self.parts.append(b"}(")
            for key, value in node.items():
                inner = f"{name}.{key}" if name else str(key)
                if type(key) not in (str, int):
                    raise GeexError(f"{inner} has a {type(key).__name__} as key", "use a str")
                self.parts.append(_plain(key, inner))
                self.add(value, inner)
            self.parts.append(b"u")
        elif all(hasattr(node, part) for part in ("shape", "dtype", "read")):
            self._tensor(node, name)
        else:
            self.parts.append(_plain(node, name))

    def _tensor(self, leaf: Lazy, name: str) -> None:
        kind = np.dtype(leaf.dtype).name
        if kind not in _CLASSES:
            raise GeexError(f"{name} is of {kind}", f"PyTorch files hold {', '.join(_CLASSES)}")
        shape = [int(n) for n in leaf.shape]
        strides = [math.prod(max(n, 1) for n in shape[i + 1 :]) for i in range(len(shape))]
        storage = _tuple(
            _plain("storage", name),
            b"ctorch\n" + _CLASSES[kind].encode() + b"\n",
            _plain(str(len(self.tensors)), name),
            _plain("cpu", name),
            _plain(math.prod(shape), name),
        )
        arguments = _tuple(
            storage + b"Q",
            _plain(0, name),
            _tuple(*(_plain(n, name) for n in shape)),
            _tuple(*(_plain(n, name) for n in strides)),
            _plain(False, name),  # requires_grad
            b"ccollections\nOrderedDict\n)R",  # backward hooks
        )
        self.parts.append(b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R")
        self.tensors.append((name, leaf))


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def _plain(value: Any, name: str) -> bytes:
    """Opcodes for one plain value."""
    if value is None:
        return b"N"
    if type(value) is bool:
        return b"\x88" if value else b"\x89"
    if type(value) is str:
        data = value.encode("utf-8", "surrogatepass")
        return b"X" + struct.pack("<I", len(data)) + data
    if type(value) is float:
        return b"G" + struct.pack(">d", value)
    if type(value) is int:
        if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        data = pickle.encode_long(value)
        if len(data) < 256:
            return b"\x8a" + bytes([len(data)]) + data
    raise GeexError(
        f"{name or 'the tree'} is of type {type(value).__name__}, which no checkpoint holds",
        "leave it out, or make it a tensor, str, int, float, bool or None",
    )
