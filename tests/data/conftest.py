"""A tree with a file for each filter, and what preparing it gives."""

import pytest

from geex_jax.data import PrepareConfig, prepare
from geex_jax.data.sources import tree as trees
from tests.data.helpers import ByteTokenizer, make_tree, source, write

trees.PART_FILES = 8  # so that there is work for several workers
CONFIG = PrepareConfig(
    seq_len=256, rows_per_shard=20, validation_fraction=0.2, workers=1, packing="concat"
)
COUNTS = {".py": 40, ".cpp": 25, ".go": 12, ".rs": 3}


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    top = make_tree(tmp_path_factory.mktemp("sources"), COUNTS)
    write(top / "generated.py", "# auto-generated\n" + source(900))
    write(top / "large.go", source(901, 200_000))
    write(top / "small.rs", "fn main() {}\n")
    write(top / "copy.py", (top / "part0" / "file0.py").read_bytes())
    write(top / "numbers.cpp", "1234567890\n" * 200)
    write(top / "wide.cpp", ("word " * 50 + "\n") * 20)
    write(top / "zero.py", b"\0" * 2000)
    write(top / "latin.py", source(902).encode() + b"\xe9\n")
    (top / "empty").mkdir()
    return top


@pytest.fixture(scope="session")
def prepared(tree, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "data"
    return output, prepare([tree], output, ByteTokenizer(), CONFIG)
