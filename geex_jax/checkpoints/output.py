"""What conversion and export share: where they write, in which types, and what they say."""

from __future__ import annotations

import contextlib
import ctypes
import pathlib
import shutil
from collections.abc import Iterator

import ml_dtypes
import numpy as np

from geex_jax import files
from geex_jax.checkpoints.source import Source
from geex_jax.errors import GeexError, did_you_mean

DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
SHORT = {
    "fp32": "float32",
    "f32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "f16": "float16",
}
PIECE = 1 << 22  # elements
UNITS = ((1e7, 1e6, "MB"), (1e4, 1e3, "kB"), (0, 1, "B"))  # from this total on, size, name


def dtype_name(name: str) -> str:
    """The full name of a float type: bf16 is bfloat16.

    Raises:
      GeexError: no such type.
    """
    name = SHORT.get(name, name)
    if name not in DTYPES:
        raise GeexError(f"unknown dtype {name!r}", did_you_mean(name, [*DTYPES, *SHORT]))
    return name


def finite(array: np.ndarray) -> bool:
    """Whether an array holds neither NaN nor infinity."""
    if array.dtype.kind in "iub" or array.size == 0:
        return True
    flat = array.reshape(-1)  # in pieces: the answer is an array too
    return all(np.isfinite(flat[i : i + PIECE]).all() for i in range(0, flat.size, PIECE))


def cast(array: np.ndarray, dtype: np.dtype, what: str) -> np.ndarray:
    """The array in another float type; integers of one byte keep their bytes.

    Raises:
      GeexError: a value lies beyond the type; `what` names the tensor.
    """
    if array.dtype == dtype:
        return array
    if array.dtype.kind in "iu":
        return array.view(dtype)  # int4 pairs: the same bytes, unsigned
    with np.errstate(over="ignore"):
        out = array.astype(dtype)
    if out.dtype.itemsize < 4 and not finite(out):
        other = "bfloat16 or float32" if dtype == np.float16 else "float32"
        raise GeexError(f"{what} is beyond {dtype.name}", f"use --dtype {other}")
    return out


def destination(dest: files.Path, overwrite: bool) -> pathlib.Path:
    """The absolute path of a folder to make.

    Raises:
      GeexError: it exists and `overwrite` is False, or it is a file.
    """
    # Not resolve(): a link at DEST would make its target the folder that is replaced.
    path = pathlib.Path(dest).absolute()
    path = path.resolve() if path.name == ".." else path
    if path.exists() and not overwrite:
        raise GeexError(f"{path} exists", "choose another folder, or pass --overwrite")
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise GeexError(f"{path} is a link or a file", "choose another name")
    return path


def refuse_overlap(source: Source, dest: pathlib.Path) -> None:
    """Raises GeexError if replacing `dest` would remove the source."""
    inside = dest.resolve()
    for path in (source.path, *source.files):
        if path.resolve().is_relative_to(inside):
            raise GeexError(f"{dest} holds the source {path}", "choose another folder")


def check_space(folder: pathlib.Path, needed: int) -> None:
    """Raises GeexError if the folder's disk has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise GeexError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB are needed",
            "choose another disk",
        )


def make_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """Makes a folder; returns the parents that had to be made, the deepest first."""
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def remove_folder(folder: pathlib.Path, made: list[pathlib.Path]) -> None:
    """Removes a folder, and the parents made for it if nothing else came into them."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        for parent in made:
            parent.rmdir()


def give_back() -> None:
    """Returns freed memory to the system, where the C library can.

    glibc keeps what the many threads of TensorStore and XLA have freed, each for itself: over a
    whole checkpoint several times the largest tensor.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def system_errors(place: pathlib.Path, remedy: str) -> Iterator[None]:
    """Turns what the system refuses (no rights, a full disk) into one line."""
    try:
        yield
    except OSError as error:
        said = error.strerror or str(error).partition("\n")[0][:200] or type(error).__name__
        raise GeexError(f"{error.filename or place}: {said}", remedy) from error


class Meter(files.Progress):
    """A progress line for bytes, in the unit that fits their total."""

    def __init__(self, label: str, total: int):
        self.size, unit = next((size, unit) for least, size, unit in UNITS if total >= least)
        super().__init__(label, total / self.size, unit)

    def update(self, amount: float = 1.0, note: str = "") -> None:
        """Adds `amount` bytes to what is done and prints if it is time."""
        super().update(amount / self.size, note)
