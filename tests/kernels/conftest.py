"""The C++ kernels, built once for all tests of them."""

import shutil

import pytest

from geex_jax import cli
from geex_jax.kernels import cpu_native


@pytest.fixture(scope="session")
def kernels_folder(tmp_path_factory):
    """A cache folder with the kernels in it, built by this machine's compiler."""
    if not shutil.which("g++"):
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEEX_CACHE", str(folder))
        patch.delenv("GEEX_KERNELS", raising=False)
        assert not cpu_native.available()
        assert cli.main(["build-kernels"]) == 0
    return folder


@pytest.fixture(scope="module")
def library(kernels_folder):
    """The kernels in use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEEX_CACHE", str(kernels_folder))
        patch.delenv("GEEX_KERNELS", raising=False)
        assert cpu_native.available()
        yield cpu_native.library()
