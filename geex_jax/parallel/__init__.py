"""The mesh, and the one table that says what lies where on it."""

from geex_jax.parallel.mesh import batch_sharding, batch_ways, make_mesh, parse_mesh, use_mesh
from geex_jax.parallel.rules import (
    AXES,
    by_path,
    fitting_spec,
    partition_spec,
    path_of,
    shardings,
    tree_of,
)

__all__ = [
    "AXES",
    "batch_sharding",
    "batch_ways",
    "by_path",
    "fitting_spec",
    "make_mesh",
    "parse_mesh",
    "partition_spec",
    "path_of",
    "shardings",
    "tree_of",
    "use_mesh",
]
