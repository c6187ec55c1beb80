"""A batch's way onto the mesh: each process reads and places the rows that its devices hold."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from geex_jax.errors import GeexError


def local_rows(place: NamedSharding, batch_size: int) -> np.ndarray:
    """Rows of a batch that this process's devices hold, ascending, int64.

    Processes that share rows (a mesh whose sequence or tensor axis crosses them) have the same.

    Raises:
      GeexError: none of this process's devices is part of the mesh.
    """
    found = place.addressable_devices_indices_map((batch_size, place.mesh.size))
    if not found:
        raise GeexError(
            f"process {jax.process_index()} has no device in a mesh of {dict(place.mesh.shape)}",
            "let the mesh sizes multiply to all devices, or start fewer processes",
        )
    rows = {
        row
        for index in found.values()
        if index is not None
        for row in range(*index[0].indices(batch_size))
    }
    return np.array(sorted(rows), np.int64)


def put(
    batch: dict[str, np.ndarray], place: NamedSharding, rows: np.ndarray, batch_size: int
) -> dict[str, jax.Array]:
    """Places rows of a batch on the mesh.

    Args:
      batch: arrays [len(rows), ...], what this process has read.
      place: where the whole batch lies.
      rows: which rows of the batch they are, ascending; at least those of `local_rows`.
      batch_size: rows of the whole batch.
    """
    if jax.process_count() == 1 and len(rows) == batch_size:
        return jax.device_put(batch, place)

    def one(x: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(batch_size)
            at = int(np.searchsorted(rows, start))
            return x[(slice(at, at + stop - start), *index[1:])]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), place, piece)

    return {name: one(x) for name, x in batch.items()}
