"""The one table from parameter paths and logical axes to the mesh.

Mesh axes: `data` repeats everything and may cross slices (DCN), `fsdp` splits parameters,
gradients and optimizer state along with the batch (ZeRO), `sequence` splits the positions of a row
(context parallelism), `tensor` splits heads, MLP width and vocabulary (Megatron), and the residual
stream along its positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from geex_jax.errors import GeexError

AXES = ("data", "fsdp", "sequence", "tensor")

# Activations: the logical axis names that the model writes -> mesh axes.
ACTIVATION_RULES: tuple[tuple[str, Any], ...] = (
    ("batch", ("data", "fsdp")),
    ("length", "sequence"),
    # Between blocks nothing needs a whole row of positions: Megatron's sequence parallelism
    # (2205.05198) divides what remat keeps by the tensor axis, for the same bytes on the wire.
    ("residual_length", ("sequence", "tensor")),
    ("embed", None),
    ("heads", "tensor"),
    ("mlp", "tensor"),
    ("vocab", "tensor"),
)

# Parameters: the end of the path -> axes of the last dimensions; leading (stacked) ones are whole.
# Optimizer moments have the same path ends, so they follow their parameter.
PARAMETER_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"embedding/tokens(_int8)?", ("tensor", "fsdp")),
    (r"embedding/tokens_scale", ("tensor",)),
    (r"(embedding|top_query)/positions", (None, "fsdp")),
    (r"_norm/(scale|bias)", (None,)),
    (r"(query|key|value|gate|up|head)/kernel", ("fsdp", "tensor")),
    (r"(query|key|value|gate|up|head)/kernel_int[48]", ("tensor", "fsdp")),
    (r"(query|key|value|gate|up|head)/(bias|kernel_scale)", ("tensor",)),
    (r"(query|key|value|gate|up|head)/kernel_scale/groups", ("tensor", None)),
    (r"(output|down)/kernel", ("tensor", "fsdp")),
    (r"(output|down)/kernel_int[48]", ("fsdp", "tensor")),
    (r"(output|down)/(bias|kernel_scale)", (None,)),
    (r"(output|down)/kernel_scale/groups", (None, "tensor")),
)

BATCH = PartitionSpec(("data", "fsdp"))

# ZeRO (1910.02054): what each stage splits over `fsdp`; stage 0 is plain data parallelism.
ZERO_STAGES = {
    0: (),
    1: ("optimizer",),
    2: ("optimizer", "gradients"),
    3: ("optimizer", "gradients", "params"),
}


def path_of(key_path: tuple[Any, ...]) -> str:
    """A jax key path as "a/b/c"."""
    return "/".join(
        str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in key_path
    )


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by "a/b/c"."""
    return {path_of(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def tree_of(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `by_path`, as nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[name] = leaf
    return tree


def partition_spec(path: str, ndim: int) -> PartitionSpec:
    """The PartitionSpec of the parameter (or optimizer leaf) at `path`.

    Raises:
      GeexError: no rule matches. There is no catch-all: a parameter nobody thought of is an error.
    """
    if ndim == 0:
        return PartitionSpec()
    if path.endswith("kernel_scale") and ndim == 2 + ("layers/" in path):
        path += "/groups"  # scales [out, groups], before them the stacked layers
    for pattern, axes in PARAMETER_RULES:
        if re.search(f"(^|/){pattern}$" if not pattern.startswith("_") else f"{pattern}$", path):
            return PartitionSpec(*[None] * (ndim - len(axes)), *axes)
    raise GeexError(f"no sharding rule for parameter {path}", "add one to parallel/rules.py")


def fitting_spec(
    path: str, shape: tuple[int, ...], sizes: Mapping[str, int], uneven: bool = False
) -> PartitionSpec:
    """The PartitionSpec of a parameter on a mesh of given sizes.

    Args:
      path: "a/b/c".
      shape: of the whole parameter.
      sizes: of the mesh axes; absent ones are 1.
      uneven: a dimension that its mesh axis does not divide stays whole (published models have
        vocabularies of any size); otherwise it is an error.

    Raises:
      GeexError: no rule for it, or a dimension that its mesh axis does not divide.
    """
    axes: list[str | None] = []
    for size, axis in zip(shape, partition_spec(path, len(shape)), strict=True) if shape else ():
        count = 1 if axis is None else sizes.get(str(axis), 1)
        fits = size % count == 0 or size == 1  # a scale per row or column of a parameter
        if not fits and not uneven:
            raise GeexError(
                f"{path} {shape} does not divide over mesh axis {axis}={count}",
                f"choose a size of {axis} that divides {size}",
            )
        axes.append(str(axis) if fits and size > 1 and axis is not None else None)
    return PartitionSpec(*axes)


def placer(mesh: Mesh | AbstractMesh) -> Callable[[str, tuple[int, ...]], NamedSharding]:
    """(path, shape) -> where a parameter lies on a mesh, for leaves that are yet to be made."""
    return lambda path, shape: NamedSharding(mesh, fitting_spec(path, shape, mesh.shape, True))


def shardings(
    mesh: Mesh | AbstractMesh,
    tree: Any,
    replicated: tuple[str, ...] = (),
    uneven: bool = False,
    whole: tuple[str, ...] = (),
) -> Any:
    """NamedShardings for a tree of parameters or a whole training state.

    Args:
      mesh: the target mesh, with the axes of `AXES`.
      tree: arrays or ShapeDtypeStructs.
      replicated: path prefixes of small leaves that are not parameters.
      uneven: see `fitting_spec`.
      whole: path prefixes of leaves that are not split over `fsdp` (ZeRO below stage 3).

    Raises:
      GeexError: no rule for a leaf, or a dimension that its mesh axis does not divide.
    """

    def one(key_path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        path = path_of(key_path)
        if path.startswith(replicated):
            return NamedSharding(mesh, PartitionSpec())
        spec = fitting_spec(path, leaf.shape, mesh.shape, uneven)
        if whole and path.startswith(whole):
            spec = PartitionSpec(*(None if axis == "fsdp" else axis for axis in spec))
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, tree)
