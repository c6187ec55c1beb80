"""Many programs to their verdicts: all cores, no program twice, nothing lost by a kill."""

from __future__ import annotations

from geex_jax.benchmark.judge.evaluate import Sample, evaluate
from geex_jax.benchmark.judge.pool import Pool

__all__ = ["Pool", "Sample", "evaluate"]
