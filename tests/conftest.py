"""Fixtures that every test may use: the reference folder, small models."""

import gc
import os
import pathlib
import sys

import pytest

from tests import xla

# Eight simulated devices, set before jax is imported anywhere; each test says how many it uses.
# Flags that are given come last and win.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("GEEX_KERNELS", "off")  # whoever has built them; their own tests do
os.environ["XLA_FLAGS"] = f"{xla.flags(8)} {os.environ.get('XLA_FLAGS', '')}".strip()

REPO = pathlib.Path(__file__).parent.parent
# Compiling takes most of the tests' time: the workers, the processes that they start and the next
# run share what is compiled. `pytest --cache-clear` empties it.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".pytest_cache" / "d" / "xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault(xla.QUICK, "1")

MANY_MAPS = 16_000
SHARED = pathlib.Path(os.environ.get("GEEX_SHARED", REPO.parent / "shared"))

# The slowest files, which begin first: else one is all that still runs at the end, on one core.
FIRST = (
    "benchmark/test_chaos_bench.py",
    "training/test_processes.py",
    "benchmark/test_language_java.py",
    "training/test_loop.py",
    "test_quickstart.py",
)


def pytest_collection_modifyitems(items):
    """Moves the slowest files to the front; the others keep their order."""
    names = [str(REPO / "tests" / name) for name in FIRST]
    items.sort(key=lambda x: names.index(str(x.path)) if str(x.path) in names else len(names))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each worker goes on in one half, so a module's fixtures are made once; who ends, helps."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of reference fixtures; set GEEX_SHARED to its place."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip(f"no reference fixtures at {SHARED} (set GEEX_SHARED)")
    return SHARED


@pytest.fixture(scope="module", autouse=True)
def optimized(request):
    """Compiles a module as a user's process does, if its `pytestmark` is `optimized`."""
    if request.node.get_closest_marker("optimized") is None:
        yield
        return
    import jax

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(xla.QUICK, "0")  # for the processes that it starts
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()
        yield
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Lets go of compiled programs before the kernel's limit on memory maps ends the process.

    Each program that XLA compiles for CPUs holds some maps, and a process may have 65,530 of
    them (`vm.max_map_count`): a run of all tests in one or two processes comes near.
    """
    yield
    maps = pathlib.Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        sys.modules["jax"].clear_caches()
        gc.collect()
