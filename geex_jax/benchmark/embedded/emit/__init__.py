"""Six ways to write a task down."""

from geex_jax.benchmark.embedded.emit.base import Backend, Case, Problem, Row
from geex_jax.benchmark.embedded.emit.cpp import Cpp
from geex_jax.benchmark.embedded.emit.go import Go
from geex_jax.benchmark.embedded.emit.java import Java
from geex_jax.benchmark.embedded.emit.javascript import JavaScript
from geex_jax.benchmark.embedded.emit.python import Python
from geex_jax.benchmark.embedded.emit.rust import Rust

BACKENDS: dict[str, Backend] = {
    b.name: b for b in (Python(), Cpp(), Java(), JavaScript(), Go(), Rust())
}

__all__ = ["BACKENDS", "Backend", "Case", "Problem", "Row"]
