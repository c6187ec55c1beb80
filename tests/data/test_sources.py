"""The walk over trees that are not well behaved."""

import os
import socket

import pytest

from geex_jax.data import PrepareConfig, prepare, read_sources, sample_texts
from geex_jax.data.filters import Filters
from geex_jax.data.report import schema as report
from geex_jax.data.sources import walk
from geex_jax.errors import GeexError
from tests.data.helpers import ByteTokenizer, make_tree, source, write


@pytest.fixture
def odd_tree(tmp_path):
    """A tree with all that a walk must survive."""
    top = make_tree(tmp_path / "in", {".py": 3, ".c": 2})
    (top / "empty").mkdir()
    (top / "loop").symlink_to(top)
    (top / "self.py").symlink_to("self.py")
    (top / "dangling.py").symlink_to("nowhere.py")
    (top / "outside").symlink_to(make_tree(tmp_path / "elsewhere", {".go": 1}))
    os.mkfifo(top / "pipe.py")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(top / "socket.py"))
    listener.close()
    write(top / ".git" / "hidden.py", source(77))
    write(top / "binary.py", b"a = 1\0" * 400)
    write(top / "broken.py", source(5).encode() + b"\xff\xfe")
    write(top / "mark.py", b"\xef\xbb\xbf" + source(6).encode())
    write(top / "notes.txt", source(7))
    write(top / "script", "#!/bin/sh\n" + source(8))
    write(top / "words", source(9))
    (top / os.fsdecode(b"caf\xe9.py")).write_text(source(10))
    return top


def test_the_walk_survives_and_counts(odd_tree):
    walked = walk([str(odd_tree)])
    counts = walked.counts
    assert counts["symlink_loop"] == 2  # a folder above itself, and a link to itself
    assert counts["symlink_folder"] == 1
    assert counts["empty_folder"] == 1
    assert counts["special_file"] == 2
    assert counts["unreadable"] == 1
    assert counts["unknown_language"] == 1
    assert not any("hidden" in found.path for found in walked.found)
    assert [f.path for f in walked.found] == [f.path for f in walk([str(odd_tree)]).found]


def kept_of(top, tmp_path, **settings):
    """Returns the manifest of a tree, and the texts that stayed."""
    config = PrepareConfig(seq_len=256, workers=1, validation_fraction=0.0, **settings)
    manifest = prepare(top, tmp_path / "data", ByteTokenizer(), config)
    return manifest, [text for _, text in read_sources(top, config)]


def test_the_stages_survive_and_count(odd_tree, tmp_path):
    manifest, texts = kept_of(odd_tree, tmp_path)
    assert manifest.dropped == {"Python": {"binary": 1, "broken_utf8": 1}}
    assert manifest.passed_by["unknown_language"] == 2  # notes.txt by its name, words by its text
    assert len(texts) == 3 + 2 + 3
    assert {source(6), "#!/bin/sh\n" + source(8), source(10)} <= set(texts)


def test_unreadable_files_are_counted(odd_tree, tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("file0.py"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    manifest, texts = kept_of(odd_tree, tmp_path)
    assert manifest.passed_by["unreadable"] == 2  # and a dangling link
    assert len(texts) == 2 + 2 + 3


def test_unreadable_folders_are_counted(odd_tree, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("part0"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert walk([str(odd_tree)]).counts["unreadable_folder"] == 1


def test_links_are_followed_once_when_asked(odd_tree):
    (odd_tree / "again").symlink_to(odd_tree / "outside")
    followed = walk([str(odd_tree)], follow_links=True)
    assert sum(f.path.endswith(".go") for f in followed.found) == 1
    assert followed.counts["symlink_loop"] == 2


def test_overlapping_inputs_count_each_folder_once(tmp_path):
    top = make_tree(tmp_path / "in", {".py": 4})
    once = walk([str(top)])
    assert len(walk([str(top), str(top / "part0")]).found) == len(once.found) == 4
    assert len(walk([str(top / "part1"), str(top)]).found) == 4


def test_a_deep_tree_is_no_recursion(tmp_path):
    here = tmp_path
    for _ in range(300):
        here = here / "d"
    write(here / "x.py", source(1))
    assert len(walk([str(tmp_path)]).found) == 1


def test_duplicates_the_first_in_order_stays(tmp_path):
    top = tmp_path / "in"
    for name in ("b/x.py", "a/z.py", "a/y.py"):
        write(top / name, source(1))
    write(top / "c.py", source(2))
    manifest, texts = kept_of(top, tmp_path)
    assert sorted(texts) == sorted([source(1), source(2)])
    assert manifest.dropped == {"Python": {"duplicate": 2}}
    (cluster,) = report.load(tmp_path / "data").duplicates.clusters
    assert cluster.kept.path == "a/y.py" and [c.path for c in cluster.copies] == [
        "a/z.py",
        "b/x.py",
    ]
    both = PrepareConfig(workers=1, filters=Filters(keep_duplicates=True))
    assert len(list(read_sources(top, both))) == 4


def test_read_sources_splits_are_disjoint_and_whole(tmp_path):
    top = make_tree(tmp_path, {".py": 20, ".go": 20})
    config = PrepareConfig(validation_fraction=0.3, workers=1)
    all_texts = list(read_sources(top, config))
    train = list(read_sources(top, config, split="train"))
    validation = list(read_sources(top, config, split="validation"))
    assert len(all_texts) == 40 and len(validation) > 2
    assert sorted(t for _, t in train + validation) == sorted(t for _, t in all_texts)
    only = list(read_sources(top, PrepareConfig(languages=("golang",), workers=1)))
    assert {language.name for language, _ in only} == {"Go"} and len(only) == 20
    with pytest.raises(GeexError, match="train or validation"):
        list(read_sources(top, config, split="test"))


def test_a_sample_is_bounded_and_balanced(tmp_path):
    top = make_tree(tmp_path, {".py": 60, ".go": 8, ".rs": 2})
    config = PrepareConfig(validation_fraction=0.0, workers=1)
    sample = list(sample_texts(top, config, max_bytes=40_000))
    sizes: dict[str, int] = {}
    for language, text in sample:
        sizes[language.name] = sizes.get(language.name, 0) + len(text.encode())
    assert 32_000 < sum(sizes.values()) <= 40_000
    whole = sum(len(t.encode()) for x, t in read_sources(top, config) if x.name == "Rust")
    assert sizes["Rust"] == whole  # it has less than its part
    assert 1.2 < sizes["Python"] / sizes["Go"] < 5  # 15 times more files, about the root of that
    assert sample == list(sample_texts(top, config, max_bytes=40_000))


def test_folders_of_an_excluded_name_are_not_entered_below_the_roots(tmp_path):
    for folder in ("a", "a/site-packages", "site-packages/b"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.py").write_text("x = 1\n")
    walked = walk([str(tmp_path)], names=["site-packages"])
    assert [os.path.relpath(f.path, tmp_path) for f in walked.found] == ["a/x.py"]
    inside = walk([str(tmp_path / "site-packages")], names=["site-packages"])
    assert [os.path.relpath(f.path, tmp_path) for f in inside.found] == ["site-packages/b/x.py"]
