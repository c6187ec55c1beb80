"""Licence files and package metadata: what sources know of a document before it is read."""

import gzip
import os

import pytest

from geex_jax.data.sources import open_source
from geex_jax.data.stages.licences import Licences
from tests.data.sources_help import CODE, ar_of, read_all, tar_of

MIT = b"""MIT License

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.
"""
TREE = {
    "a.py": CODE,
    "LICENSE": MIT,
    "vendor/b.py": CODE,
    "vendor/package.json": b'{"name": "v", "license": "ISC"}',
    "vendor/deep/er/c.py": CODE,
    "lib/d.py": b"# SPDX-License-Identifier: GPL-3.0-only\n" + CODE,
}
EXPECTED = {"a.py": "MIT", "vendor/b.py": "ISC", "vendor/deep/er/c.py": "ISC", "lib/d.py": "MIT"}


def licences(source):
    documents = read_all(source)[0]
    return {d.path: d.licence for d in documents if d.path.endswith(".py")}


@pytest.fixture
def tree(tmp_path):
    for name, data in TREE.items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "tree"


def test_the_nearest_licence_above_a_file_of_a_tree_holds(tree):
    source = open_source(tree)
    assert licences(source) == EXPECTED
    stage = Licences(allow=["MIT", "ISC"])
    documents = [d for d in read_all(source)[0] if d.path.endswith(".py")]
    for document in documents:
        document.text = document.data.decode()
    assert sorted(d.path for d in documents if stage(d).keep) == [
        "a.py",
        "vendor/b.py",
        "vendor/deep/er/c.py",
    ]  # d.py has its own


def test_what_lies_above_the_root_and_what_is_no_file_do_not_count(tree):
    (tree / "vendor" / "deep" / "LICENSE").mkdir()
    os.mkfifo(tree / "vendor" / "deep" / "er" / "COPYING")
    (tree / "vendor" / "package.json").unlink()
    assert licences(open_source(tree / "vendor")) == {"b.py": "", "deep/er/c.py": ""}


def test_a_folder_of_a_checkout_has_the_licence_of_the_whole(tree):
    (tree / ".git").mkdir()
    assert licences(open_source(tree / "lib")) == {"d.py": "MIT"}
    assert licences(open_source(tree / "vendor")) == {"b.py": "ISC", "deep/er/c.py": "ISC"}


def test_a_licence_that_is_named_holds_for_all(tree):
    assert set(licences(open_source(tree, licence="BSD-3-Clause")).values()) == {"BSD-3-Clause"}


@pytest.mark.parametrize("order", [list(TREE), sorted(TREE, reverse=True)])
def test_an_archive_says_so_wherever_its_licence_file_stands(tmp_path, order):
    path = tmp_path / "in.tar.gz"
    path.write_bytes(gzip.compress(tar_of({f"p-1/{name}": TREE[name] for name in order})))
    found = licences(open_source(path))
    assert found == {f"in.tar.gz/p-1/{name}": licence for name, licence in EXPECTED.items()}


def test_the_copyright_file_of_a_debian_package_holds_for_all_of_it(tmp_path):
    copyright_file = (
        b"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        b"Files: *\nCopyright: 2020 A\nLicense: Apache-2.0\n"
    )
    data = tar_of({"./usr/lib/x/a.py": CODE, "./usr/share/doc/x/copyright": copyright_file})
    path = tmp_path / "x.deb"
    path.write_bytes(ar_of({"debian-binary": b"2.0\n", "data.tar": data}))
    assert licences(open_source(path)) == {"x.deb/data.tar/usr/lib/x/a.py": "Apache-2.0"}
