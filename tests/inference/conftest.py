"""Quicker compilation: these programs run for milliseconds and compile for seconds."""

import jax
import pytest

from geex_jax.inference import programs


@pytest.fixture(autouse=True, scope="module")
def quick_compilation(request):
    """Turns the compiler's costly passes off, but not where its memory use is measured."""
    if request.module.__name__.endswith("test_memory"):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    programs.forget()
    jax.config.update("jax_disable_most_optimizations", False)
