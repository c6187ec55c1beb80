"""The languages of HumanEval-X: how their programs are put together, built, run and judged."""

from __future__ import annotations

import importlib

from geex_jax.benchmark.languages.base import Language
from geex_jax.errors import GeexError, did_you_mean

# name -> module:class. A new language is a module like the others, and a line here.
LANGUAGES = {
    "python": "python:Python",
    "cpp": "cpp:Cpp",
    "java": "java:Java",
    "javascript": "javascript:JavaScript",
    "go": "go:Go",
    "rust": "rust:Rust",
}
_ALIASES = {"c++": "cpp", "js": "javascript", "py": "python", "golang": "go", "rs": "rust"}


def get(name: str) -> Language:
    """Returns the language of that name.

    Raises:
      GeexError: there is none; the message names the closest one.
    """
    word = name.strip().lower()
    word = _ALIASES.get(word, word)
    if word not in LANGUAGES:
        raise GeexError(f"unknown language {name!r}", did_you_mean(word, LANGUAGES))
    module, _, kind = LANGUAGES[word].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), kind)()


def parse(names: str) -> list[str]:
    """Returns the names in "all" or "python,go", each once, in the order of the table.

    Raises:
      GeexError: one of them is unknown.
    """
    if names.strip().lower() == "all":
        return list(LANGUAGES)
    asked = {get(name).name for name in names.split(",") if name.strip()}
    if not asked:
        raise GeexError("no language given", "say all, or some of " + ", ".join(LANGUAGES))
    return [name for name in LANGUAGES if name in asked]
