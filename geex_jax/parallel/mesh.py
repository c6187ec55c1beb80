"""Meshes: from the numbers of a config to devices, and the context in which programs trace."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding

from geex_jax.errors import GeexError, did_you_mean
from geex_jax.parallel.rules import ACTIVATION_RULES, AXES, BATCH


def make_mesh(sizes: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Builds a mesh over the axes `data`, `fsdp`, `sequence`, `tensor`.

    Devices of several TPU slices make a hybrid mesh: `data` runs across the slices, over the
    data-center network, and whatever else needs bandwidth stays within a slice.

    Args:
      sizes: size of each axis; absent ones are 1, and one may be -1: all remaining devices.
      devices: the devices to use; all of them by default. If no size is -1 and the product is
        smaller, only the first ones are used.

    Raises:
      GeexError: an unknown axis, or sizes that do not fit the devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    for name in sizes:
        if name not in AXES:
            raise GeexError(f"unknown mesh axis {name!r}", did_you_mean(name, AXES))
    shape = [int(sizes.get(name, 1)) for name in AXES]
    if shape.count(-1) > 1 or any(n < 1 and n != -1 for n in shape):
        raise GeexError(f"mesh sizes {dict(sizes)}", "give positive sizes, at most one of them -1")
    known = math.prod(n for n in shape if n != -1)
    if known > len(devices) or (-1 in shape and len(devices) % known):
        raise GeexError(
            f"a mesh of {dict(zip(AXES, shape, strict=True))} does not fit {len(devices)} devices",
            "change mesh." + ", mesh.".join(AXES[:-1]) + f" or mesh.{AXES[-1]}",
        )
    shape = [len(devices) // known if n == -1 else n for n in shape]
    used = _arranged(shape, devices[: math.prod(shape)])
    return Mesh(used, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def slices_of(devices: Sequence[Any]) -> int:
    """TPU slices that the devices belong to; 1 for devices that know none."""
    return len({getattr(d, "slice_index", 0) or 0 for d in devices})


def _arranged(shape: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    # Neighbours on a mesh axis are neighbours on the wires of a slice.
    slices = slices_of(devices)
    if slices == 1:
        return mesh_utils.create_device_mesh(
            tuple(shape), devices=devices, allow_split_physical_axes=True
        )
    data = shape[AXES.index("data")]
    if data % slices:
        raise GeexError(
            f"mesh.data={data} does not divide over {slices} slices",
            f"set mesh.data={slices} or a multiple: the other axes stay within a slice",
        )
    across = [slices if name == "data" else 1 for name in AXES]
    within = [n // m for n, m in zip(shape, across, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices=devices, allow_split_physical_axes=True
    )


def parse_mesh(text: str) -> dict[str, int]:
    """Sizes from "fsdp=4,tensor=2", or "4x2" for fsdp x tensor.

    Raises:
      GeexError: an unknown axis, or a size that is not a positive number.
    """
    short = re.fullmatch(r"(\d+)x(\d+)", text)
    pairs = (
        [("fsdp", short[1]), ("tensor", short[2])]
        if short
        else [part.partition("=")[::2] for part in text.split(",")]
    )
    sizes: dict[str, int] = {}
    for name, size in pairs:
        if name not in AXES:
            raise GeexError(f"unknown mesh axis {name!r} in {text!r}", did_you_mean(name, AXES))
        if not size.isdigit() or int(size) < 1 or name in sizes:
            raise GeexError(f"mesh {text!r}", "write fsdp=4,tensor=2, or 4x2")
        sizes[name] = int(size)
    return sizes


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[Mesh]:
    """Makes the model's logical axis names mean axes of this mesh while programs are traced.

    Both halves are needed: without `jax.set_mesh` flax drops every constraint in silence.
    """
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        yield mesh


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch spread over `data` and `fsdp`.

    Along `sequence` a row's int32 tokens are repeated: the model splits what it makes of them.
    """
    return NamedSharding(mesh, BATCH)


def batch_ways(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def current_ways(*logical: str) -> tuple[str, ...]:
    """Mesh axes of more than one device that the logical axes mean in the context of `use_mesh`.

    Args:
      logical: names of `ACTIVATION_RULES`.

    Returns:
      Names of mesh axes in the table's order; () outside `use_mesh`.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    rules = dict(ACTIVATION_RULES)
    found: list[str] = []
    for name in logical:
        axes = rules[name]
        for axis in (axes,) if isinstance(axes, str) else axes or ():
            if sizes.get(axis, 1) > 1 and axis not in found:
                found.append(axis)
    return tuple(found)
