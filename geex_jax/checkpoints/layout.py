"""How the tensors of a checkpoint lie on disk: leaves, chunks, and a fingerprint of the content."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from geex_jax.checkpoints import output
from geex_jax.checkpoints.arrays import Stored
from geex_jax.checkpoints.source import Source
from geex_jax.checkpoints.tensors import Lazy, size_of
from geex_jax.parallel.rules import partition_spec

BLOCK = 64 << 20  # bytes; chunks smaller than this are read together


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One tensor, as it is stored.

    Attributes:
      path: our path "a/b/c", or the name in an outside file.
      shape: of the whole, layers stacked.
      dtype: name of the element type.
      nbytes: of the whole.
      chunk: shape of what lies together on disk; None in files that hold tensors whole.
      cut: what the chunks of each cut dimension are: "layer", a mesh axis, or "piece".
      holds: our parameters inside it.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    chunk: tuple[int, ...] | None
    cut: tuple[str, ...]
    holds: tuple[str, ...]


def content_fingerprint(source: Source) -> str:
    """16 hex digits over path, shape, dtype and content of every tensor, in order of the paths.

    Of a geex model the layers of a leaf are one tensor, however its arrays are cut and stored; of
    an outside checkpoint the tensors are the outside ones.

    Raises:
      GeexError: a tensor is damaged.
    """
    progress = output.Meter("fingerprint", sum(map(size_of, source.tensors.values())))
    digest = hashlib.sha256()
    for path, tensors in sorted(_stacks(source).items()):
        header = f"{path} {tensors[0].dtype.name} {list(_shape(tensors, path))}".encode()
        digest.update(len(header).to_bytes(8, "little") + header)
        for array in _blocks(tensors):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            progress.update(array.nbytes)
            del array  # before the next one is read
    progress.close()
    return digest.hexdigest()[:16]


def read_leaves(source: Source) -> tuple[list[Leaf], dict[str, int]]:
    """All tensors, and the sizes of the mesh whose shards their chunks are."""
    chunks: dict[str, tuple[int, ...]] = {}
    stacks = sorted(_stacks(source).items())
    for path, tensors in stacks:
        if isinstance(tensors[0], Stored):
            chunks[path] = _chunk(tensors[0])
    shapes = {path: _shape(tensors, path) for path, tensors in stacks}
    mesh = _mesh(shapes, chunks)
    leaves = []
    for path, tensors in stacks:
        cut = _cut(path, shapes[path], chunks[path], mesh) if path in chunks else ()
        binding = source.bindings.get(path)
        holds = tuple(p for p, _ in binding.parts) if binding and not is_own(source) else ()
        dtype, size = tensors[0].dtype.name, sum(map(size_of, tensors))
        leaves.append(Leaf(path, shapes[path], dtype, size, chunks.get(path), cut, holds))
    return leaves, mesh


def _chunk(tensor: Stored) -> tuple[int, ...]:
    shape = tensor.array.chunk_layout.read_chunk.shape or ()
    return tuple(n or 1 for n in shape)


def _ways(shape: tuple[int, ...], chunk: tuple[int, ...]) -> list[int]:
    return [math.ceil(n / c) for n, c in zip(shape, chunk, strict=True)]


def _mesh(shapes: dict[str, tuple[int, ...]], chunks: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Mesh axis -> the number of shards that most of its leaves are cut into, if more than one."""
    votes: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)
    for path, chunk in chunks.items():
        spec = partition_spec(path, len(chunk))
        if None in spec[-2:]:  # Orbax divides what is replicated among the replicas
            continue
        for axis, ways in zip(spec[-2:], _ways(shapes[path], chunk)[-2:], strict=True):
            votes[str(axis)][ways] += 1
    best = {axis: max(n, key=lambda ways: (n[ways], ways)) for axis, n in votes.items()}
    return {axis: ways for axis, ways in sorted(best.items()) if ways > 1}


def _cut(
    path: str, shape: tuple[int, ...], chunk: tuple[int, ...], mesh: dict[str, int]
) -> tuple[str, ...]:
    """What the chunks of each cut dimension are."""
    found = []
    spec = partition_spec(path, len(shape))
    for i, (axis, ways) in enumerate(zip(spec, _ways(shape, chunk), strict=True)):
        if ways > 1 and i == 0 and path.startswith("layers/") and chunk[0] == 1:
            found.append("layer")
        elif ways > 1:
            found.append(str(axis) if mesh.get(str(axis)) == ways else "piece")
    return tuple(found)


def describe(
    leaves: list[Leaf], mesh: dict[str, int], holders: list[pathlib.Path]
) -> dict[str, Any]:
    """What `inspecting.Report.storage` says of tensors that lie in the files `holders`."""
    chunked = [leaf for leaf in leaves if leaf.chunk is not None]
    if not chunked:
        safe = holders[0].suffix == ".safetensors"
        return {"format": "safetensors" if safe else "PyTorch", "files": len(holders)}
    one_store = any(file.name == "manifest.ocdbt" for file in holders)
    counts = [math.prod(_ways(leaf.shape, leaf.chunk or ())) for leaf in chunked]
    sizes = [math.ceil(leaf.nbytes / n) for leaf, n in zip(chunked, counts, strict=True)]
    return {
        "format": "Orbax, one OCDBT store" if one_store else "Orbax, a file for each chunk",
        "files": len(holders),
        "chunks": sum(counts),
        "largest_chunk": max(sizes),
        "layers_apart": sum("layer" in leaf.cut for leaf in leaves),
        "mesh": mesh,
    }


def is_own(source: Source) -> bool:
    """Whether the checkpoint is a geex model."""
    return source.family.name == "geex"


def _stacks(source: Source) -> dict[str, list[Lazy]]:
    """Tensors by path: ours with all their layers, outside ones singly."""
    if not is_own(source):
        return {name: [tensor] for name, tensor in source.tensors.items()}
    found: dict[str, dict[int, Lazy]] = collections.defaultdict(dict)
    for name, binding in source.bindings.items():
        found[binding.parts[0][0]][binding.layer or 0] = source.tensors[name]
    return {path: [layers[i] for i in sorted(layers)] for path, layers in found.items()}


def _shape(tensors: list[Lazy], path: str) -> tuple[int, ...]:
    stacked = (len(tensors),) if path.startswith("layers/") else ()
    return (*stacked, *tensors[0].shape)


def _blocks(tensors: list[Lazy]) -> Iterator[np.ndarray]:
    """The content in order, in pieces; no chunk of a stored array is read twice."""
    first = tensors[0]
    if not isinstance(first, Stored) or not first.array.rank:
        for tensor in tensors:
            yield tensor.read()
        return
    array = first.array
    length, rows = array.shape[0], _chunk(first)[0]
    row = math.prod(array.shape[1:]) * first.dtype.itemsize
    rows *= max(BLOCK // max(row * rows, 1), 1)
    for i in range(0, length, rows):
        yield Stored(array[i : min(i + rows, length)], first.name).read()
