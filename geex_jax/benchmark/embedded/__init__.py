"""The embedded benchmark: parallel tasks in six languages, as many as wanted, from a seed.

A task is a small composition of primitives on numbers, texts, lists and maps. It is written down
as a description, a declaration, a solution and tests in Python, C++, Java, JavaScript, Go and
Rust, in the very format of HumanEval-X. Compositions are split into train and held-out ones.
"""

from geex_jax.benchmark.embedded.compose import LEVELS
from geex_jax.benchmark.embedded.corpus import training_text, write_benchmark, write_corpus
from geex_jax.benchmark.embedded.tasks import SPLITS, Task, generate, mixture

__all__ = [
    "LEVELS",
    "SPLITS",
    "Task",
    "generate",
    "mixture",
    "training_text",
    "write_benchmark",
    "write_corpus",
]
