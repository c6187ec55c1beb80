"""Plain and remote paths alike; uploads that arrive whole or not at all."""

import os

import pytest

from geex_jax.data import storage
from geex_jax.data.sources import open_source
from geex_jax.errors import GeexError
from tests.data.helpers import write
from tests.data.sources_help import CODE, paths, tar_of


@pytest.fixture
def memory():
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    yield system
    if system.exists("/bucket"):
        system.rm("/bucket", recursive=True)


def test_remote_paths_do_what_plain_ones_do(tmp_path, memory):
    for top in (str(tmp_path), "memory://bucket"):
        for name in ("b/y.tar", "a/x.tar", "a/x.txt"):
            storage.upload(write(tmp_path.parent / "one", b"12345"), storage.join(top, name))
        assert storage.glob(f"{top}/*/*.tar") == [f"{top}/a/x.tar", f"{top}/b/y.tar"]
        assert [e.path for e in storage.find(top, ("*.tar",))] == ["a/x.tar", "b/y.tar"]
        assert storage.stat(f"{top}/a/x.tar").size == 5
        assert storage.read(f"{top}/a/x.tar", 3) == b"123"
        assert storage.is_folder(f"{top}/a") and not storage.is_folder(f"{top}/a/x.tar")
        assert storage.exists(f"{top}/a/x.tar") and not storage.exists(f"{top}/c")
        with storage.local_copy(f"{top}/a/x.tar") as copy:
            assert storage.read(copy) == b"12345"
        assert os.path.exists(copy) == (top == str(tmp_path))
        with pytest.raises(OSError):
            storage.open_read(f"{top}/c")
        with pytest.raises(OSError):
            storage.stat(f"{top}/a")


def test_an_upload_that_fails_leaves_nothing(tmp_path, memory, monkeypatch):
    source = write(tmp_path / "x", b"new")
    storage.upload(source, "memory://bucket/x")

    def fail(self, source, target, **kwargs):
        self.pipe_file(target, b"n")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(memory), "put_file", fail)
    with pytest.raises(GeexError, match="No space left"):
        storage.upload(write(tmp_path / "x", b"newer"), "memory://bucket/x")
    assert memory.find("/bucket") == ["/bucket/x"] and memory.cat("/bucket/x") == b"new"


def test_a_folder_goes_up_with_its_manifest_last(tmp_path, memory, monkeypatch):
    for name in ("manifest.json", "train/z", "a"):
        write(tmp_path / name, b"1")
    order = []
    real = storage.upload
    monkeypatch.setattr(storage, "upload", lambda s, t: (order.append(t), real(s, t)))
    storage.upload_folder(tmp_path, "memory://bucket/out")
    assert order[-1] == "memory://bucket/out/manifest.json" and len(order) == 3


def test_a_missing_package_is_one_line(monkeypatch):
    fsspec = pytest.importorskip("fsspec")

    def missing(*args, **kwargs):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(GeexError, match="pip install gcsfs") as error:
        storage.open_read("gs://bucket/x")
    assert "\n" not in str(error.value)


def test_an_unknown_scheme_is_one_line():
    pytest.importorskip("fsspec")
    with pytest.raises(GeexError, match="nosuch"):
        storage.exists("nosuch://bucket/x")


def test_archives_in_a_bucket(tmp_path, memory):
    storage.upload(write(tmp_path / "x.tar", tar_of({"m.py": CODE})), "memory://bucket/p/x.tar")
    assert paths(open_source("memory://bucket/p/x.tar")) == ["x.tar/m.py"]
    assert paths(open_source("memory://bucket/p/*.tar")) == ["x.tar/m.py"]
    assert paths(open_source("memory://bucket/p", kind="archive")) == ["x.tar/m.py"]
