"""Calls and their results as tests in each language, in the shape of the data set's own."""

from __future__ import annotations

from geex_jax.benchmark.extended.render import base, cpp, go, java, javascript, python, rust
from geex_jax.benchmark.extended.render.base import Case, NotRenderable, Renderer
from geex_jax.benchmark.languages.types import Problem

__all__ = ["RENDERERS", "Case", "NotRenderable", "Renderer", "renderer"]

# A new language is a class here; without one its tests stay as they are.
RENDERERS: dict[str, type[base.Renderer]] = {
    x.language: x
    for x in (python.Python, cpp.Cpp, java.Java, javascript.JavaScript, go.Go, rust.Rust)
}


def renderer(language: str, problem: Problem) -> Renderer:
    """The renderer of a problem.

    Raises:
      NotRenderable: the language has none, or the problem's declaration is not understood.
    """
    if language not in RENDERERS:
        raise NotRenderable("no tests are written in this language")
    return RENDERERS[language](problem)
