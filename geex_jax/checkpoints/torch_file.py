"""PyTorch's zip checkpoints, read without PyTorch and without executing a pickle.

The pickle inside such a file may name any function. Here only the handful of names that tensors
need are known, each mapped to a function of this file; any other name is refused. Tensor bytes
are memory-mapped where the zip stores them uncompressed, which `torch.save` always does.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import pickle
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from geex_jax.errors import GeexError

DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclasses.dataclass
class _Storage:
    """Where the bytes of one storage lie."""

    dtype: np.dtype
    key: str
    size: int


class _OpenDict(collections.OrderedDict):
    """An OrderedDict that takes torch's `_metadata` attribute."""


class _Reader(pickle.Unpickler):
    def __init__(self, file, path: pathlib.Path, load_storage):
        super().__init__(file, encoding="utf-8")
        self.path = path
        self.load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in DTYPES:
            return name
        known = {
            ("collections", "OrderedDict"): _OpenDict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        }
        if (module, name) in known:
            return known[module, name]
        raise GeexError(
            f"{self.path}: its pickle asks for {module}.{name}, which is not a tensor",
            "refused; save plain tensors only (state_dict), or as safetensors",
        )

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, size = pid
        if kind != "storage" or storage not in DTYPES:
            raise GeexError(f"{self.path}: unknown storage {storage!r}", "save it as safetensors")
        return _Storage(np.dtype(DTYPES[storage]), str(key), int(size))

    def _tensor(self, storage: _Storage, offset: int, shape, stride, *_: Any) -> np.ndarray:
        flat = self.load_storage(storage)
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True) if n)
        if shape and 0 in shape:
            return np.zeros(shape, flat.dtype)
        if offset < 0 or min(stride, default=0) < 0 or last >= flat.size:
            raise GeexError(f"{self.path}: a tensor reaches past its storage", "fetch it again")
        strides = tuple(s * flat.itemsize for s in stride)
        view = np.lib.stride_tricks.as_strided(flat[offset:], shape, strides, writeable=False)
        return view


def read(path: str | os.PathLike[str]) -> Any:
    """Returns the saved object with every tensor as a read-only, memory-mapped array.

    Args:
      path: a file written by `torch.save` (zip format, PyTorch >= 1.6).

    Raises:
      GeexError: missing or truncated file, not such a zip, or a pickle that names anything but
        tensors and containers.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise GeexError(f"no checkpoint file {path}", "give the path of a .pt or .bin file")
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
            if len(pickles) != 1:
                raise GeexError(f"{path}: no data.pkl inside", "not a PyTorch checkpoint")
            root = pickles[0][: -len("data.pkl")]
            storages: dict[str, np.ndarray] = {}

            def load_storage(storage: _Storage) -> np.ndarray:
                if storage.key not in storages:
                    storages[storage.key] = _map(archive, path, f"{root}data/{storage.key}")
                return storages[storage.key].view(storage.dtype)

            with archive.open(pickles[0]) as file:
                return _Reader(file, path, load_storage).load()
    except zipfile.BadZipFile:
        raise GeexError(
            f"{path}: not a PyTorch zip file, or cut short", "fetch it again, or re-save it"
        ) from None
    except (pickle.UnpicklingError, EOFError, KeyError, ValueError, TypeError) as error:
        raise GeexError(f"{path}: unreadable pickle ({error})", "fetch the file again") from error


def _map(archive: zipfile.ZipFile, path: pathlib.Path, name: str) -> np.ndarray:
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        return np.frombuffer(archive.read(name), np.uint8)
    if info.file_size == 0:
        return np.zeros(0, np.uint8)
    with open(path, "rb") as file:  # the local header's extra field may differ from the central one
        file.seek(info.header_offset + 26)
        name_length, extra_length = np.frombuffer(file.read(4), "<u2")
    offset = info.header_offset + 30 + int(name_length) + int(extra_length)
    return np.memmap(path, np.uint8, "r", offset, (info.file_size,))
