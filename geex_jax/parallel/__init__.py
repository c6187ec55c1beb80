"""The mesh, and the one table that says what lies where on it."""

from geex_jax.parallel.mesh import batch_sharding, batch_ways, make_mesh, parse_mesh, use_mesh
from geex_jax.parallel.rules import AXES, fitting_spec, partition_spec, path_of, shardings

__all__ = [
    "AXES",
    "batch_sharding",
    "batch_ways",
    "fitting_spec",
    "make_mesh",
    "parse_mesh",
    "partition_spec",
    "path_of",
    "shardings",
    "use_mesh",
]
