"""Lets go of what engines keep."""

import pytest

from geex_jax.inference import programs


@pytest.fixture(autouse=True, scope="module")
def few_engine_programs():
    yield
    programs.forget()
