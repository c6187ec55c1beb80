"""Trees as sources: .gitignore as git has it, what cannot be read, remote folders."""

import json
import os
import shutil
import subprocess

import pytest

from geex_jax.data.document import Part, Source
from geex_jax.data.sources import open_source
from geex_jax.data.sources.tree import PART_FILES, TreeSource
from geex_jax.errors import GeexError
from tests.data.helpers import write
from tests.data.sources_help import CODE, paths, read_all, tar_of


def make_files(top, names):
    for name in names:
        write(top / name, CODE)


@pytest.fixture
def checkout(tmp_path):
    top = tmp_path / "repo"
    make_files(
        top,
        ["a.py", "gen_a.py", "keep/gen_b.py", "build/x.py", "sub/build/y.py", "sub/top.py",
         "top.py", "sub/local.py", "deep/a/b/c.py", "deep/z.py", "half/in.py", "half/keep.py",
         "sub/back/gen_c.py", "caf\u00e9.py", "#odd.py"],
    )  # fmt: skip
    write(
        top / ".gitignore",
        "# words\n\ngen_*.py\n!keep/gen_b.py\nbuild/\n!build/x.py\n/top.py\ndeep/**/c.py\n"
        "half/*\n!half/keep.py\n\\#odd.py\n[\n",
    )
    write(top / "sub" / ".gitignore", "local.py\r\n!gen_c.py\n")
    return top


def test_gitignore_is_gits_own(checkout):
    source = open_source(checkout)
    assert isinstance(source, Source)
    mine = paths(source)
    assert "build/x.py" not in mine and "sub/back/gen_c.py" in mine and "top.py" not in mine
    assert "sub/top.py" in mine and "half/keep.py" in mine and "half/in.py" not in mine
    assert read_all(source)[1]["ignored_folder"] == 2
    everything = paths(open_source(checkout, gitignore=False))
    assert set(mine) < set(everything) and len(everything) == 15
    git = shutil.which("git")
    if git is None:
        pytest.skip("the rest compares with git, which is not here")
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([git, "init", "-q", checkout], check=True, env=environment)
    command = [git, "-C", checkout, "ls-files", "-z", "--others", "--exclude-standard"]
    listed = subprocess.run(command, check=True, env=environment, capture_output=True).stdout
    theirs = [os.fsdecode(name) for name in listed.split(b"\0") if name.endswith(b".py")]
    assert sorted(mine) == sorted(theirs)


def test_gitignore_above_the_root_and_repositories_in_repositories(checkout):
    write(checkout / ".git" / "info" / "exclude", "z.py\n")
    assert paths(open_source(checkout / "deep")) == []
    assert paths(open_source(checkout / "build")) == ["x.py"]  # ignored, and asked for
    make_files(checkout / "module", ["gen_d.py"])
    assert "module/gen_d.py" not in paths(open_source(checkout))
    write(checkout / "module" / ".git", "gitdir: ../.git/modules/module\n")
    assert "module/gen_d.py" in paths(open_source(checkout))


def test_parts_are_of_256_files_in_order(tmp_path):
    make_files(tmp_path, [f"{i:03}.py" for i in range(PART_FILES + 4)])
    source = open_source(tmp_path, name="mine")
    parts = [item for item in source.parts(3) if isinstance(item, Part)]
    assert [part.source for part in parts] == [3, 3]
    assert len(json.loads(parts[0].locator)["files"]) == PART_FILES
    assert str(tmp_path) not in parts[0].locator + json.dumps(source.settings())
    documents, counts = read_all(source)
    assert [d.path for d in documents] == sorted(d.path for d in documents)
    assert counts["files"] == PART_FILES + 4 and documents[0].source == "mine"
    write(tmp_path / "000.py", CODE + CODE)
    again = [item for item in source.parts(3) if isinstance(item, Part)]
    assert again[0].stamp != parts[0].stamp and again[0].locator == parts[0].locator


def test_what_cannot_be_read_is_counted(tmp_path, monkeypatch):
    make_files(tmp_path, ["a.py", "b.py", "shut/c.py", os.fsdecode(b"caf\xe9.py")])
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "self.py").symlink_to("self.py")
    os.mkfifo(tmp_path / "pipe.py")
    real = os.scandir

    def refuse(path):  # root may read any folder, so that permissions alone prove nothing
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    source = open_source(tmp_path)
    parts = list(source.parts(0))
    os.remove(tmp_path / "a.py")
    os.mkfifo(tmp_path / "a.py")  # replaced in between: opening it must not wait
    items = [x for part in parts if isinstance(part, Part) for x in source.read(part)]
    assert [getattr(x, "reason", x.path) for x in items] == [
        "unreadable", "b.py", os.fsdecode(b"caf\xe9.py"),
    ]  # fmt: skip
    reasons = [item.reason for item in parts if not isinstance(item, Part)]
    assert sorted(reasons)[-4:] == ["special_file", "symlink_loop", "symlink_loop",
                                    "unreadable_folder"]  # fmt: skip


def test_a_line_of_ten_gigabytes_is_not_read(tmp_path):
    with open(tmp_path / "huge.py", "wb") as file:
        file.truncate(10 << 30)  # sparse: no such disk is needed
    make_files(tmp_path, ["z.py"])
    documents, counts = read_all(open_source(tmp_path, limits={"max_bytes": 1 << 16}))
    assert [d.path for d in documents] == ["z.py"] and counts["too_large"] == 1


def test_archives_in_a_tree_and_several_roots(tmp_path):
    write(tmp_path / "a" / "x.tar", tar_of({"in.py": CODE}))
    make_files(tmp_path, ["a/z.py", "b/z.py", "c/a/q.py"])
    assert paths(open_source(tmp_path / "a")) == ["z.py"]
    assert paths(open_source(tmp_path / "a", archives=True)) == ["x.tar/in.py", "z.py"]
    roots = tuple(str(tmp_path / name) for name in ("a", "b", "c/a", "b/z.py"))
    documents, _ = read_all(TreeSource("all", roots))
    assert [d.path for d in documents] == ["a/z.py", "b/z.py", "a~2/q.py", "z.py"]
    output = TreeSource("all", (str(tmp_path),), left_out=str(tmp_path / "b"))
    assert "b/z.py" not in paths(output)
    with pytest.raises(GeexError, match="does not exist"):
        list(TreeSource("none", (str(tmp_path / "gone"),)).parts(0))


def test_a_remote_folder_is_read_as_a_local_one(checkout):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.put(str(checkout), "/trees/repo", recursive=True)
    try:
        remote = open_source("memory://trees/repo")
        assert sorted(paths(remote)) == sorted(paths(open_source(checkout)))
        with pytest.raises(GeexError, match="does not exist"):
            open_source("memory://trees/other")
    finally:
        memory.rm("/trees", recursive=True)
