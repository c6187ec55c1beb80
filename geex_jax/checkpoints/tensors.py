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
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        ...

    def read(self) -> np.ndarray:
        """The array, in memory of its own."""
        ...


def size_of(tensor: Lazy) -> int:
    """Bytes of the array."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


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
            view = flat.view(np.uint8).data
            while len(view) and (got := file.readinto(view)):  # one read gives at most 2 GB
                view = view[got:]
        if len(view):
            raise GeexError(f"{self.file}: cut short inside {self.name}", "fetch the file again")
        if self.strides is None:
            return flat.reshape(self.shape)
        bytes_ = tuple(s * flat.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, bytes_, writeable=False)


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An array that is here already, for writers."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.array.dtype

    def read(self) -> np.ndarray:
        """The array itself."""
        return self.array


@dataclasses.dataclass(frozen=True)
class Joined:
    """A tensor cut into tensor-parallel parts along `axis`, or copied into each (axis None)."""

    name: str
    parts: tuple[Lazy, ...]
    axis: int | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole."""
        shape = list(self.parts[0].shape)
        if self.axis is not None:
            shape[self.axis] = sum(p.shape[self.axis] for p in self.parts)
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.parts[0].dtype

    def read(self) -> np.ndarray:
        """Reads and joins the parts.

        Raises:
          GeexError: copies that should be equal are not.
        """
        if self.axis is not None:
            whole = np.empty(self.shape, self.dtype)
            at = 0
            for part in self.parts:  # one at a time: no more than the whole and one part
                end = at + part.shape[self.axis]
                whole[(slice(None),) * self.axis + (slice(at, end),)] = part.read()
                at = end
            return whole
        first = self.parts[0].read()
        for rank, part in enumerate(self.parts[1:], 1):
            if not np.array_equal(first, part.read(), equal_nan=True):
                file = getattr(part, "file", None)
                raise GeexError(
                    f"{file or 'a file'}: {self.name} differs between rank 0 and rank {rank}",
                    "the parts are of different checkpoints: bring parts of one",
                )
        return first
