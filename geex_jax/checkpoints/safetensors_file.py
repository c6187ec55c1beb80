"""safetensors files, read as places of tensors and written one tensor at a time.

The safetensors package maps whole files and wants all tensors of a new one in memory; a
conversion must do neither (see `tensors.Tensor`). The format is one JSON header.
Source: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable, Mapping

import ml_dtypes
import numpy as np

from geex_jax import files
from geex_jax.checkpoints.tensors import Lazy, Tensor, size_of
from geex_jax.checkpoints.torch_pickle import one_line
from geex_jax.errors import GeexError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # as the package refuses


def index(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a file by name; reads the header only.

    Raises:
      GeexError: no such file, cut short, or a header that contradicts itself; names the tensor.
    """
    again = "fetch the file again"
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(LONGEST_HEADER, size - 8):
                raise GeexError(f"{path}: cut short, or no safetensors file", again)
            header = json.loads(file.read(length))
    except OSError as error:
        raise GeexError(f"cannot read {path}: {error.strerror}", "bring the file") from None
    except (ValueError, RecursionError) as error:
        raise GeexError(f"{path}: unreadable header ({one_line(error)})", again) from None
    if not isinstance(header, dict):
        raise GeexError(f"{path}: no safetensors file", again)
    header.pop("__metadata__", None)
    return {name: _tensor(path, name, about, 8 + length, size) for name, about in header.items()}


def _tensor(path: pathlib.Path, name: str, about: object, start: int, size: int) -> Tensor:
    again, shown = "fetch the file again", one_line(name)
    try:
        kind, shape, (begin, end) = about["dtype"], tuple(about["shape"]), about["data_offsets"]  # type: ignore[index]
        counts = [begin, end, *shape]
    except (KeyError, TypeError, ValueError):
        raise GeexError(f"{path}: the header of {shown} is damaged", again) from None
    if not isinstance(kind, str) or any(type(n) is not int or n < 0 for n in counts):
        raise GeexError(f"{path}: the header of {shown} is damaged", again)
    if kind not in DTYPES:
        raise GeexError(
            f"{path}: {shown} has dtype {one_line(kind)}", f"save it in one of {', '.join(DTYPES)}"
        )
    if end - begin != math.prod(shape) * DTYPES[kind].itemsize:
        raise GeexError(
            f"{path}: {shown} {list(shape)} does not fit its {end - begin} bytes", again
        )
    if start + end > size:
        raise GeexError(f"{path}: cut short inside {shown}", again)
    return Tensor(name, path, DTYPES[kind], shape, start + begin)


def write(
    path: pathlib.Path,
    tensors: Mapping[str, Lazy],
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Writes a file, one tensor in memory at a time; it appears when it is whole.

    Args:
      path: the file to write.
      tensors: by name.
      progress: called with the bytes of each tensor written.

    Raises:
      GeexError: a dtype that the format does not have; names the tensor.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise GeexError(f"{name} has dtype {tensor.dtype}", "safetensors cannot hold it")
        count = size_of(tensor)
        header[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + count],
        }
        offset += count
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begins at a multiple of 8 bytes
    with files.atomic_write(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            array = np.ascontiguousarray(tensor.read())
            file.write(array.reshape(-1).view(np.uint8).data)
            progress(array.nbytes)


def shards(tensors: Mapping[str, Lazy], largest: int) -> list[dict[str, Lazy]]:
    """Divides tensors into files of at most `largest` bytes, in order; one alone may be larger."""
    parts: list[dict[str, Lazy]] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        count = size_of(tensor)
        if parts[-1] and filled + count > largest:
            parts.append({})
            filled = 0
        parts[-1][name] = tensor
        filled += count
    return parts


def write_sharded(
    folder: pathlib.Path,
    tensors: Mapping[str, Lazy],
    largest: int,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Writes `model.safetensors`, or shards with their index if it would exceed `largest` bytes."""
    parts = shards(tensors, largest)
    if len(parts) == 1:
        write(folder / "model.safetensors", parts[0], progress)
        return
    places: dict[str, str] = {}
    total = 0
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors"
        write(folder / name, part, progress)
        places |= dict.fromkeys(part, name)
        total += sum(map(size_of, part.values()))
    about = {"metadata": {"total_size": total}, "weight_map": places}
    files.write_json(folder / "model.safetensors.index.json", about)
