"""The mesh, and the one table that says what lies where on it."""

from geex_jax.parallel.mesh import (
    batch_sharding,
    batch_ways,
    current_ways,
    make_mesh,
    parse_mesh,
    slices_of,
    use_mesh,
)
from geex_jax.parallel.rules import (
    AXES,
    ZERO_STAGES,
    by_path,
    fitting_spec,
    partition_spec,
    path_of,
    placer,
    shardings,
    tree_of,
)

__all__ = [
    "AXES",
    "ZERO_STAGES",
    "batch_sharding",
    "batch_ways",
    "by_path",
    "current_ways",
    "fitting_spec",
    "make_mesh",
    "parse_mesh",
    "partition_spec",
    "path_of",
    "placer",
    "shardings",
    "slices_of",
    "tree_of",
    "use_mesh",
]
