"""Multilingual code models in JAX: CodeGeeX and its rivals."""
