"""Tests of geex_jax/models."""
