"""Statistics of benchmarks: pass@k, its confidence, and tries split over languages."""

from geex_jax.benchmark.statistics.bootstrap import (
    Bootstrap,
    Interval,
    difference_interval,
    mean_interval,
    pass_at_k_interval,
)
from geex_jax.benchmark.statistics.budget import Allocation, Board, allocate
from geex_jax.benchmark.statistics.passk import (
    Counts,
    count,
    mean_pass_at_k,
    pass_at_k,
    pass_at_k_of_tasks,
)

__all__ = [
    "Allocation",
    "Board",
    "Bootstrap",
    "Counts",
    "Interval",
    "allocate",
    "count",
    "difference_interval",
    "mean_interval",
    "mean_pass_at_k",
    "pass_at_k",
    "pass_at_k_interval",
    "pass_at_k_of_tasks",
]
