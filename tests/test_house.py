"""The house: who may import whom, what is said and kept short, what importing costs."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).parent.parent
PACKAGE = REPO / "geex_jax"

# From the ground up: a room imports only from itself and rooms above its line.
ROOMS = [
    "version",
    "errors",
    "files",
    "pages",
    "languages",
    "tokenizers",
    "kernels",
    "models",
    "quantize",
    "parallel",
    "checkpoints",
    "data",
    "training",
    "inference",
    "plan",
    "serving",
    "benchmark",
    "__init__",
    "quickstart",
    "cli",
    "__main__",
]


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: pathlib.Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=str)
def test_rooms_import_only_from_rooms_above(path):
    mine = ROOMS.index(room_of(path))
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "geex_jax" and mine != ROOMS.index("__init__"):
            assert len(parts) > 1 and parts[1] in ROOMS, f"{path} imports {name}"
            assert ROOMS.index(parts[1]) <= mine, f"{path} imports {name}, which lies below it"


def test_tokenizers_and_data_do_not_import_jax():
    code = "import sys, geex_jax.tokenizers, geex_jax.data; print('jax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, geex_jax, json; geex_jax.__version__; dir(geex_jax);"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = json.loads(out.stdout)
    assert not {"jax", "flax", "numpy", "orbax", "optax"} & set(loaded)


def test_every_public_name_is_there():
    import geex_jax

    for name in geex_jax.__all__:
        assert getattr(geex_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = geex_jax.nothing


def test_the_rooms_of_the_plan_are_the_rooms_that_stand():
    plan = (PACKAGE / "README.md").read_text()
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" or (path / "__init__.py").is_file():
            name = path.name.removesuffix(".py")
            assert name in ROOMS
            if not name.startswith("__") and name != "version":
                assert re.search(rf"`geex_jax/{name}(/|\.py)`", plan), f"{name} is not in the plan"


def test_files_stay_short():
    for path in PACKAGE.rglob("*.py"):
        assert path.read_text().count("\n") <= 450, f"{path}: would two rooms read better?"
