"""Extended tests: new inputs on which the canonical solutions of several languages agree."""

from __future__ import annotations

from geex_jax.benchmark.extended.building import AGREE, VERSION, Extended, build

__all__ = ["AGREE", "VERSION", "Extended", "build"]
