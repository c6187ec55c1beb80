"""The sample of source files."""

import pytest

from geex_jax.errors import GeexError
from geex_jax.tokenizers import corpus


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "top"
    for name in ("a.py", "b/c.cpp", "b/D.H", ".git/x.py", "notes.txt", "data.bin", "e.rs"):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{name}\r\n".encode() * 100)
    (top / "latin.py").write_bytes(b"# caf\xe9\n")
    (top / "empty.py").write_bytes(b"")
    return top


def test_source_files_are_found_in_an_order_that_the_place_does_not_change(tree, tmp_path):
    found = [path.relative_to(tree).as_posix() for path in corpus.find_sources([tree])]
    assert set(found) == {"a.py", "b/c.cpp", "b/D.H", "e.rs", "latin.py", "empty.py"}
    tree.rename(tmp_path / "moved")
    moved = tmp_path / "moved"
    assert found == [path.relative_to(moved).as_posix() for path in corpus.find_sources([moved])]
    assert corpus.find_sources([moved, moved]) == corpus.find_sources([moved])


def test_texts_keep_their_line_ends_and_bad_files_are_left_out(tree):
    texts = corpus.read_sources([tree], 1)
    assert len(texts) == 4 and all("\r\n" in text for text in texts)
    assert len(corpus.read_sources([tree], 0.001)) < 4
    assert corpus.read_sources([tree / "notes.txt"], 1) == ["notes.txt\r\n" * 100]


def test_mistakes_are_one_line(tree, tmp_path):
    (tmp_path / "none").mkdir()
    for inputs, message in (
        ([tree / "absent"], "no such file or folder"),
        ([tmp_path / "none"], "no source files"),
        ([tree / "empty.py"], "none of the source files"),
    ):
        with pytest.raises(GeexError, match=message):
            corpus.read_sources(inputs, 1)
