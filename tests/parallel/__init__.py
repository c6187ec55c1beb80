"""Tests of geex_jax/parallel."""
