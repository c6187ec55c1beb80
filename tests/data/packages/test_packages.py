import hashlib
import io
import json
import os
import tarfile

import pytest

from geex_jax.data import recipe as recipes
from geex_jax.data import sources
from geex_jax.data.document import Document, Passed, Source
from geex_jax.data.packages import registries, store, transfer
from geex_jax.data.packages.lock import File, Lock, Pinned, split
from geex_jax.errors import GeexError
from tests.data.packages.registry import Registry

PLACE = "debian/pool/main/x/x_1.orig.tar.gz"


def tarball(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


DATA = tarball({"x-1/a.py": b"a = 1\n", "x-1/tests/b.py": b"b = 1\n", "x-1/c.c": b"int c;\n"})


@pytest.fixture
def registry(tmp_path, monkeypatch):
    registry = Registry()
    registry.files[PLACE] = DATA
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(transfer, "_APT_HELPER", "/dev/null/none")
    monkeypatch.setattr(registries, "debian_addresses", lambda: (registry.address,))
    known = Pinned("1", (File("x_1.orig.tar.gz", PLACE, len(DATA)),))
    monkeypatch.setattr(registries, "look_up", lambda spec, cache: known)
    yield registry
    registry.close()


def opened(tmp_path, **options):
    options = {"lock": str(tmp_path / "x.lock.json")} | options
    return sources.open_source("debian-source:x", name="x", kind="packages", **options)


def read(source):
    parts = list(source.parts(3))
    assert [part.source for part in parts] == [3]
    found = [item for part in parts for item in source.read(part)]
    return (
        {item.path.rpartition("/")[2]: item for item in found if isinstance(item, Document)},
        {item.reason: item.count for item in found if isinstance(item, Passed)},
    )


def test_a_package_is_pinned_fetched_and_read(registry, tmp_path):
    source = opened(tmp_path, licence="MIT")
    assert isinstance(source, Source)
    documents, _ = read(source)
    assert documents["a.py"].data == b"a = 1\n"
    assert documents["a.py"].path == "x_1.orig.tar.gz/x-1/a.py"
    assert {x.licence for x in documents.values()} == {"MIT"}
    lock = json.loads((tmp_path / "x.lock.json").read_text())
    file = lock["packages"]["debian-source:x"]["files"][0]
    assert file["sha256"] == hashlib.sha256(DATA).hexdigest()
    assert source.settings()["sha256"] == [file["sha256"]]
    read(source)
    assert len(registry.asked) == 1


def test_patterns_say_what_is_read(registry, tmp_path):
    documents, passed = read(opened(tmp_path, without=["*/tests/*"]))
    assert set(documents) == {"a.py", "c.c"} and passed["excluded"] == 1
    documents, passed = read(opened(tmp_path, only=["*.py"], without=["*/tests/*"]))
    assert set(documents) == {"a.py"} and passed["excluded"] == 2


def test_a_pinned_package_is_not_looked_up_and_not_taken_if_it_differs(
    registry, tmp_path, monkeypatch
):
    read(opened(tmp_path))
    monkeypatch.setattr(registries, "look_up", None)  # calling it would be an error
    registry.files[PLACE] = tarball({"x-1/evil.py": b""})
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path / "another"))
    with pytest.raises(GeexError, match="checksum"):
        read(opened(tmp_path))


def test_the_settings_hold_no_paths_of_this_machine(registry, tmp_path):
    assert str(tmp_path) not in json.dumps(opened(tmp_path).settings())


def test_a_lock_file_is_needed(registry, tmp_path):
    with pytest.raises(GeexError, match="has no lock file; give its path"):
        read(opened(tmp_path, lock=""))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"format": 9, "packages": {}}',
        '{"format": 1, "packages": {"a": {"files": []}}}',
        '{"format": 1, "packages": {"a": {"version": "1", "files": [{"name": "../x"}]}}}',
        '{"format": 1, "packages": {"a": {"version": "1", "files": [{"name": "../x", "place": ""}]'
        "}}}",
    ],
)
def test_a_lock_file_of_another_form_is_refused(tmp_path, text):
    path = tmp_path / "lock.json"
    path.write_text(text)
    with pytest.raises(GeexError, match="is no lock file of packages; restore it"):
        Lock(path)


def test_versions_have_folders_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path))
    pinned = Pinned("1:2", (File("f", "p"),))
    folders = {
        str(store.folder_of(spec, pinned).relative_to(tmp_path))
        for spec in ("npm:@a/core@1", "npm:core@1", "debian:core", "debian-source:core")
    }
    assert folders == {
        "packages/npm/@a+core/1:2", "packages/npm/core/1:2",
        "packages/debian/core/1:2", "packages/debian-source/core/1:2",
    }  # fmt: skip


# --- the recipes ------------------------------------------------------------------------------


def test_every_package_of_the_permissive_recipe_is_pinned_by_checksum():
    recipe = recipes.load("permissive")
    recipe.check()
    lock = Lock(recipe.sources[0].options["lock"])
    assert {spec.path for spec in recipe.sources} == set(lock.packages)
    for spec in recipe.sources:
        split(spec.path)
        assert spec.options["licence"]
        assert all(len(file.sha256) == 64 for file in lock.packages[spec.path].files)
    assert sum(f.size for p in lock.packages.values() for f in p.files) < 600e6
    names = recipe.names()
    assert len(set(names)) == len(names)


def test_openjdk_comes_only_when_asked_for():
    plain = {spec.path for spec in recipes.load("permissive").sources}
    opted = {spec.path for spec in recipes.load("permissive_openjdk").sources}
    assert opted - plain == {"debian-source:openjdk-17"}


def test_every_licence_of_the_permissive_recipe_is_on_the_list():
    from geex_jax.data.stages import spdx

    recipe = recipes.load("permissive")
    wrong = {
        spec.path: spec.options["licence"]
        for spec in recipe.sources
        if not spdx.allows(spec.options["licence"], spdx.PERMISSIVE)
    }
    assert not wrong


def test_the_papers_recipe_weighs_languages_as_the_paper_does(tmp_path, monkeypatch):
    monkeypatch.setenv("GEEX_CORPORA", str(tmp_path))
    recipe = recipes.load("paper")
    recipe.check()
    weights = recipe.mixture["weights"]
    assert len(weights) == 23
    assert weights["C++"] / sum(weights.values()) == pytest.approx(0.285, abs=0.001)
    assert all(spec.path.startswith(str(tmp_path)) for spec in recipe.sources)
    for spec in recipe.sources:
        (tmp_path / os.path.dirname(os.path.relpath(spec.path, tmp_path))).mkdir(exist_ok=True)
        sources.open_source(spec.path, name=spec.name, kind=spec.kind, **spec.options)
