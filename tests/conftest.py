"""Fixtures that every test may use: the reference folder, small models."""

import os
import pathlib

# Eight simulated devices, set before jax is imported anywhere; each test says how many it uses.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    )

import pytest

REPO = pathlib.Path(__file__).parent.parent
SHARED = pathlib.Path(os.environ.get("GEEX_SHARED", REPO.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference fixtures; set GEEX_SHARED to its place."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip(f"no reference fixtures at {SHARED} (set GEEX_SHARED)")
    return SHARED
