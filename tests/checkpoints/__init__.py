"""Tests of geex_jax/checkpoints."""
