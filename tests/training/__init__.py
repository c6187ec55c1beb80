"""Tests of geex_jax/training."""
