"""Parameter folders by TensorStore: written and read slice by slice, in Orbax's own layout.

Orbax saves trees that are in memory. A conversion never has the tree in memory, so its arrays are
written here, one chunk for each layer and shard; Orbax writes the metadata, and reads the result
like any tree that it saved itself.
"""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from geex_jax.errors import GeexError
from geex_jax.parallel import tree_of

LARGEST_CHUNK = 1 << 30  # bytes; a longer first axis is cut, so that one chunk is never the model


def write_metadata(folder: pathlib.Path, paths: list[str]) -> None:
    """Makes `folder` an Orbax tree of the given "a/b/c" paths, whose arrays are yet to come."""
    tree = tree_of(dict.fromkeys(paths, np.zeros((), np.int8)))
    handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False, use_zarr3=False)
    with ocp.Checkpointer(handler) as checkpointer:
        checkpointer.save(folder, args=ocp.args.PyTreeSave(tree))  # pyright: ignore[reportCallIssue]
    for path in paths:
        shutil.rmtree(_array_folder(folder, path))


def create(
    folder: pathlib.Path, path: str, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...]
) -> ts.TensorStore:
    """Opens the array at "a/b/c" for writing; goes on with it if it is there already.

    Raises:
      OSError: the system does not let it.
    """
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{_array_folder(folder, path)}/"},
        "dtype": np.dtype(dtype).name,
        "metadata": {"shape": list(shape), "chunks": list(chunk), "compressor": None},
        "store_data_equal_to_fill_value": True,
    }
    try:
        return ts.open(spec, create=True, open=True).result()
    except ValueError as error:  # TensorStore's kind for everything
        raise OSError(_short(error)) from None


def write(target: ts.TensorStore, array: np.ndarray) -> None:
    """Writes an array over a whole target, and waits for it.

    Raises:
      OSError: the disk is full, or the system refuses for another reason.
    """
    try:
        target.write(array).result()
    except ValueError as error:
        raise OSError(_short(error)) from None


def _array_folder(folder: pathlib.Path, path: str) -> pathlib.Path:
    return folder.absolute() / path.replace("/", ".")


def chunk_of(shape: tuple[int, ...], itemsize: int, ways: tuple[int, ...]) -> tuple[int, ...]:
    """The chunk of an array: a shard of it, one layer of it if stacked, and no longer than 1 GiB.

    Args:
      shape: of the whole array.
      itemsize: bytes of an element.
      ways: into how many shards each axis is cut; 0 for the stacked layers of a large array.
    """
    chunk = [1 if w == 0 else math.ceil(n / w) for n, w in zip(shape, ways, strict=True)]
    first = next((i for i, w in enumerate(ways) if w), 0)
    while math.prod(chunk) * itemsize > LARGEST_CHUNK and chunk[first] % 2 == 0:
        chunk[first] //= 2
    return tuple(max(n, 1) for n in chunk)


def open_array(folder: pathlib.Path, path: str) -> ts.TensorStore:
    """Opens the array at "a/b/c" of a tree that Orbax or a conversion wrote.

    Raises:
      GeexError: it is not there, or its files are damaged.
    """
    folder = folder.absolute()
    try:
        zarr3 = json.loads((folder / "_METADATA").read_text()).get("use_zarr3", False)
        if (folder / "manifest.ocdbt").exists():
            place = {"driver": "ocdbt", "base": f"file://{folder}/",
                     "path": f"{path.replace('/', '.')}/"}  # fmt: skip
        else:
            place = {"driver": "file", "path": f"{_array_folder(folder, path)}/"}
        spec = {
            "driver": "zarr3" if zarr3 else "zarr",
            "kvstore": place,
            "fill_missing_data_reads": False,  # a chunk that is gone is damage, not zeros
        }
        return ts.open(spec, open=True, read=True, write=False).result()
    except (OSError, ValueError) as error:
        raise GeexError(
            f"{folder}: no readable tensor {path} ({_short(error)})",
            "the checkpoint is cut short: use another one",
        ) from None


def place_of(folder: pathlib.Path, path: str) -> pathlib.Path:
    """The folder that holds the array at "a/b/c": its own, or with OCDBT the tree's."""
    own = _array_folder(folder, path)
    return own if own.is_dir() else folder.absolute()


def _short(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:150]


@dataclasses.dataclass(frozen=True)
class Stored:
    """A leaf of a parameter folder, or one layer of it; see `tensors.Lazy`.

    Attributes:
      array: the opened TensorStore.
      name: "a/b/c", for messages.
      layer: index on the stacked axis, None for the whole array.
      file: the folder where it lies.
    """

    array: ts.TensorStore
    name: str
    layer: int | None = None
    file: pathlib.Path | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions, without the stacked axis if a layer is chosen."""
        return tuple(self.array.shape[0 if self.layer is None else 1 :])

    @property
    def dtype(self) -> np.dtype:
        """Element type."""
        return self.array.dtype.numpy_dtype

    def read(self) -> np.ndarray:
        """Reads the array [shape].

        Raises:
          GeexError: a chunk is missing or damaged.
        """
        part = self.array if self.layer is None else self.array[self.layer]
        try:
            return np.asarray(part.read().result())
        except (OSError, ValueError) as error:
            raise GeexError(
                f"{self.file or 'params'}: {self.name} is damaged ({_short(error)})",
                "use another checkpoint",
            ) from None


def open_tree(folder: pathlib.Path, leaves: Mapping[str, Any]) -> dict[str, ts.TensorStore]:
    """Opens all arrays of a parameter folder by path, and checks their shapes.

    Args:
      folder: an Orbax tree.
      leaves: "a/b/c" -> (shape, dtype name), from the model's config.json.

    Raises:
      GeexError: an array is missing or of another shape.
    """
    found = {}
    for path, (shape, dtype) in leaves.items():
        array = open_array(folder, path)
        if list(array.shape) != list(shape) or array.dtype.name != jax.numpy.dtype(dtype).name:
            raise GeexError(
                f"{folder}: {path} is {array.dtype.name} {list(array.shape)}, config.json says "
                f"{dtype} {list(shape)}",
                "the files do not belong together: use another checkpoint",
            )
        found[path] = array
    return found
