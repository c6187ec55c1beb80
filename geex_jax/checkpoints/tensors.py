"""Tensors that lie in files: their place and shape now, their bytes when asked for."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Protocol

import numpy as np

from geex_jax.errors import GeexError


class Lazy(Protocol):
    """What a reader gives and a writer takes: shape and dtype at once, the array on demand."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...

    def read(self) -> np.ndarray:
        """The array, in memory of its own."""
        ...


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file that holds raw little-endian arrays (safetensors, PyTorch's zip).

    Read with plain file reads, not through a memory map: mapped pages count as memory of the
    process for as long as the map lives, and a conversion promises to stay small.

    Attributes:
      name: as in the file.
      file: the file.
      dtype: element type; bfloat16 is that of ml_dtypes.
      shape: dimensions.
      offset: bytes before the first element.
      strides: in elements, None if the array is contiguous.
    """

    name: str
    file: pathlib.Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None

    def read(self) -> np.ndarray:
        """Reads the array [shape].

        Raises:
          GeexError: the file ends before the tensor does.
        """
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        if self.strides is None:
            count = math.prod(self.shape)
        else:
            count = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        flat = np.empty(count, self.dtype)
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self.offset)
            view = memoryview(flat.view(np.uint8))
            while len(view) and (got := file.readinto(view)):  # one read gives at most 2 GB
                view = view[got:]
        if len(view):
            raise GeexError(f"{self.file}: cut short inside {self.name}", "fetch the file again")
        if self.strides is None:
            return flat.reshape(self.shape)
        bytes_ = tuple(s * flat.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, bytes_, writeable=False)
