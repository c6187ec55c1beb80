"""PyTorch's zip checkpoints, read without PyTorch and without executing a pickle.

The pickle inside runs on the machine of `torch_pickle`, which can do no harm. Tensors are found,
checked against the size of their storage and of the file, and left where they are.
"""

from __future__ import annotations

import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from geex_jax.checkpoints.tensors import Tensor
from geex_jax.checkpoints.torch_pickle import (
    DTYPE_NAMES,
    REFUSED,
    Machine,
    Name,
    Raw,
    Record,
    Storage,
    one_line,
)
from geex_jax.errors import GeexError

_MAX_PICKLE = 1 << 28
_MAX_DEPTH = 100
_MAX_EXPANDED = 1 << 26  # elements of a tensor that shows the same bytes many times
_RESAVE = "re-save it with PyTorch: torch.save(torch.load(OLD, weights_only=True), NEW)"


def index(path: str | os.PathLike[str]) -> Any:
    """Returns the saved object with every tensor as a `tensors.Tensor`, its bytes unread.

    Containers come back as dict, list, tuple and set, a torch dtype as that of NumPy, and objects
    of the few other harmless classes as a `Record`.

    Args:
      path: a file written by `torch.save` (zip format, PyTorch >= 1.6).

    Raises:
      GeexError: missing, truncated or older file, a tensor that reaches past its storage, or a
        pickle that names anything but tensors and plain data.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise GeexError(f"no checkpoint file {path}", "give the path of a .pt or .bin file")
    try:
        with open(path, "rb") as file:
            _refuse_old_formats(path, file)
            with zipfile.ZipFile(file) as archive:
                return _Archive(path, file, archive).load()
    except (
        zipfile.BadZipFile, struct.error, EOFError, NotImplementedError, OverflowError, ValueError
    ):  # fmt: skip
        raise GeexError(
            f"{path}: not a PyTorch zip file, or cut short", "fetch it again, or re-save it"
        ) from None
    except OSError as error:
        raise GeexError(f"{path}: cannot be read ({error.strerror})", "fetch it again") from None


def read(path: str | os.PathLike[str]) -> Any:
    """Returns the saved object with every tensor as a read-only, memory-mapped array.

    Args:
      path: as for `index`.

    Raises:
      GeexError: as `index` does.
    """
    tree = index(path)
    mapped = np.memmap(path, np.uint8, "r")

    def view(node: Any, _name: str, _depth: int) -> Any:
        if not isinstance(node, Tensor):
            return node
        if 0 in node.shape:
            return np.zeros(node.shape, node.dtype)
        strides = node.strides and tuple(s * node.dtype.itemsize for s in node.strides)
        return np.ndarray(node.shape, node.dtype, mapped, node.offset, strides)

    return _walk(tree, view)


def _refuse_old_formats(path: pathlib.Path, file: IO[bytes]) -> None:
    head = file.read(512)
    if bytes.fromhex("6cfc9c46f9206aa85019") in head[:24]:  # torch's magic number, pickled
        raise GeexError(f"{path}: PyTorch's format from before 1.6", _RESAVE)
    if head[257:262] == b"ustar":
        raise GeexError(f"{path}: a TAR file, PyTorch's format from before 0.2", _RESAVE)


def _walk(node: Any, visit: Callable[[Any, str, int], Any], name: str = "", depth: int = 0) -> Any:
    """Returns a copy of a tree in which visit(node, its dotted name, depth) took each place."""

    def inner(key: Any, value: Any) -> Any:
        return _walk(value, visit, f"{name}.{key}" if name else str(key), depth + 1)

    node = visit(node, name, depth)
    if isinstance(node, dict):
        return {key: inner(key, value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(inner(i, value) for i, value in enumerate(node))
    if isinstance(node, Record):
        fields = {key: inner(key, value) for key, value in node.fields.items()}
        return Record(node.kind, inner("args", node.args), fields)
    return node


class _Archive:
    """The zip around the pickle: where its members lie, and whether tensors fit in them."""

    def __init__(self, path: pathlib.Path, file: IO[bytes], archive: zipfile.ZipFile):
        self.path, self.file, self.archive = path, file, archive
        self.size = os.fstat(file.fileno()).st_size
        self.places: dict[str, tuple[int, int]] = {}

    def load(self) -> Any:
        names = self.archive.namelist()
        pickles = [name for name in names if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise GeexError(f"{self.path}: no data.pkl inside", "not a PyTorch checkpoint")
        self.root = pickles[0].removesuffix("data.pkl")
        order = f"{self.root}byteorder"
        if order in names and self._small(order, 16).strip() != b"little":
            raise GeexError(f"{self.path}: written on a big-endian machine", _RESAVE + " on x86")
        machine = Machine(self.path, self._small(pickles[0], _MAX_PICKLE))
        tree = machine.run()

        def visit(node: Any, name: str, depth: int) -> Any:
            machine.spend(1 + len(name))
            if depth > _MAX_DEPTH:
                raise GeexError(f"{self.path}: its pickle nests without end", REFUSED)
            if isinstance(node, Raw):
                return self._tensor(node, name)
            if isinstance(node, Name):
                return DTYPE_NAMES.get(node.dotted, node.dotted)
            if isinstance(node, Storage):
                raise GeexError(f"{self.path}: {one_line(name)} is a bare storage", REFUSED)
            return node

        return _walk(tree, visit)

    def _small(self, name: str, limit: int) -> bytes:
        if self._place(name)[1] > limit:
            raise GeexError(f"{self.path}: {one_line(name)} is far too large", REFUSED)
        return self.archive.read(name)

    def _place(self, name: str) -> tuple[int, int]:
        """Returns where a member's bytes start, and how many there are."""
        if name in self.places:
            return self.places[name]
        info = self.archive.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise GeexError(f"{self.path}: {one_line(name)} is compressed or encrypted", _RESAVE)
        self.file.seek(info.header_offset)
        header = self.file.read(30)
        # The local header's extra field may differ from the one in the directory.
        start = info.header_offset + 30 + sum(struct.unpack("<26x2H", header))
        if header[:4] != b"PK\3\4" or start + info.file_size > self.size:
            raise zipfile.BadZipFile
        self.places[name] = start, info.file_size
        return self.places[name]

    def _tensor(self, raw: Raw, name: str) -> Tensor:
        """Makes sure that all of a tensor lies inside its storage, and that inside the file."""
        where = f"{self.path}: tensor {one_line(name)}"
        shape, strides, storage, width = raw.shape, raw.strides, raw.storage, raw.dtype.itemsize
        numbers = (*shape, *strides, raw.offset, storage.size)
        if (
            not len(shape) == len(strides) <= 32  # what every NumPy allows
            or any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers)
            or math.prod(max(n, 1) for n in shape) * width >= 1 << 62
        ):
            raise GeexError(f"{where} has an impossible shape, stride or offset", REFUSED)
        member = f"{self.root}data/{storage.key}"
        if member not in self.archive.NameToInfo:
            raise GeexError(f"{where} has no storage {one_line(member)}", "fetch the file again")
        start, size = self._place(member)
        room = storage.size * (storage.dtype.itemsize if storage.dtype else 1)
        if room > size:
            raise GeexError(
                f"{where} has a storage of {size} bytes where {room} are due",
                "fetch the file again",
            )
        if 0 in shape:
            return Tensor(name, self.path, raw.dtype, shape, start)
        last = raw.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        if (last + 1) * width > room:
            raise GeexError(f"{where} reaches past its storage", "fetch the file again")
        begin = start + raw.offset * width
        dense = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        if all(n == 1 or s == d for n, s, d in zip(shape, strides, dense, strict=True)):
            return Tensor(name, self.path, raw.dtype, shape, begin)
        if math.prod(shape) > max(room // width, _MAX_EXPANDED):
            raise GeexError(f"{where} repeats its bytes to {math.prod(shape)} elements", REFUSED)
        steps = tuple(1 if n == 1 else s for n, s in zip(shape, strides, strict=True))
        return Tensor(name, self.path, raw.dtype, shape, begin, steps)
