"""Licences: expressions, texts, metadata, what lies nearest."""

import pickle

import pytest

from geex_jax.data.document import Document
from geex_jax.data.stages.licences import (
    PERMISSIVE,
    LicenceMap,
    Licences,
    detect,
    from_metadata,
    header,
    is_licence_file,
)
from geex_jax.data.stages.spdx import allows, normalize
from geex_jax.errors import GeexError

MIT = """Copyright (c) 2020 A
Permission is hereby granted, free of charge, to any person obtaining a copy of this software ...
The above copyright notice and this permission notice shall be included in all copies."""
BSD = """Redistribution and use in source and binary forms, with or without modification, are
permitted provided that: ... in binary form must reproduce the above copyright notice ..."""
GPL_NOTICE = """// This program is free software; you can redistribute it and/or modify it under the
// terms of the GNU General Public License as published by the Free Software Foundation; either
// version 2 of the License, or (at your option) any later version."""


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND Apache-2.0", True),
        ("MIT or (GPL-2.0-only and Apache-2.0)", True),
        ("GPL-2.0-only OR MIT AND LGPL-2.1-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("Apache-2.0+", True),
        ("", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("(" * 500 + "MIT" + ")" * 500, False),
    ],
)
def test_expressions(expression, allowed):
    assert allows(expression, PERMISSIVE) is allowed


def test_an_exception_can_be_allowed_as_a_pair():
    pair = "GPL-2.0-only WITH Classpath-exception-2.0"
    assert allows(pair, [*PERMISSIVE, pair])


@pytest.mark.parametrize(
    ("written", "expression"),
    [
        ("MIT", "MIT"),
        ("Apache License 2.0", "Apache-2.0"),
        ("The MIT License", "MIT"),
        ("MIT/Apache-2.0", "MIT OR Apache-2.0"),
        ("(MIT OR Apache-2.0)", "(MIT OR Apache-2.0)"),
        ("GPL-2+", "GPL-2.0-or-later"),
        ("Expat and BSD-3-clause", "MIT AND BSD-3-Clause"),
        ("see the file", ""),
    ],
)
def test_names_that_people_write(written, expression):
    assert normalize(written) == expression


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        (MIT, "MIT"),
        (BSD, "BSD-2-Clause"),
        (BSD + " Neither the name may be used to endorse or promote products", "BSD-3-Clause"),
        (GPL_NOTICE, "GPL-2.0-or-later"),
        ("Apache License\n   Version 2.0, January 2004", "Apache-2.0"),
        ("# SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note", None),
        ("all rights reserved", ""),
    ],
)
def test_texts(text, expression):
    assert detect(text) == (expression if expression is not None else text.split(": ")[1])


def test_headers_in_comments():
    commented = "/*\n" + "\n".join(" * " + line for line in MIT.split("\n")) + "\n */\nint x;"
    assert header(commented) == "MIT"
    assert header("/* SPDX-License-Identifier: MIT OR Apache-2.0 */\n") == "MIT OR Apache-2.0"
    assert header("<!-- SPDX-License-Identifier: ISC -->") == "ISC"
    assert header("int x;\n" * 2000 + "// SPDX-License-Identifier: MIT") == ""
    assert header("// Use of this source code is governed by a license in the LICENSE file") == ""


@pytest.mark.parametrize(
    ("name", "text", "expression"),
    [
        ("package.json", '{"license": "MIT"}', "MIT"),
        ("package.json", '{"licenses": [{"type": "MIT"}, {"type": "ISC"}]}', "MIT OR ISC"),
        ("package.json", '{"license": "SEE LICENSE IN x"}', ""),
        ("package.json", '{"license": ', ""),
        ("package.json", "[1]", ""),
        ("pyproject.toml", '[project]\nlicense = "BSD-3-Clause"', "BSD-3-Clause"),
        ("pyproject.toml", '[project]\nlicense = {text = "MIT License"}', "MIT"),
        ("pyproject.toml", "[project", ""),
        ("setup.cfg", "[metadata]\nlicense = Apache 2.0\n", "Apache-2.0"),
        ("METADATA", "Name: x\nLicense-Expression: MIT\n\nwords", "MIT"),
        ("PKG-INFO", "Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("Cargo.toml", '[package]\nlicense = "MIT/Apache-2.0"', "MIT OR Apache-2.0"),
        ("pom.xml", "<licenses><license><name>Apache License 2.0</name></license>", "Apache-2.0"),
        ("debian/copyright", "Format: x\n\nFiles: debian/*\nLicense: GPL-2\n\n"
         "Files: *\nCopyright: me\nLicense: Expat\n text\n", "MIT"),
        ("copyright", MIT, "MIT"),
        ("README", "License: MIT", ""),
    ],
)  # fmt: skip
def test_metadata(name, text, expression):
    assert from_metadata(name, text) == expression


def test_the_nearest_licence_counts():
    found = LicenceMap()
    found.add("a/LICENSE", MIT)
    found.add("a/b/package.json", '{"license": "ISC"}')
    found.add("r/LICENSE-MIT", MIT)
    found.add("r/LICENSE-APACHE", "Apache License\nVersion 2.0")
    found.add("x.deb/data.tar/usr/share/doc/x/copyright", BSD)
    found.add("lib/x.dist-info/METADATA", "License: MIT\n")
    assert found.of("a/c/x.py") == "MIT" and found.of("a/b/c/x.py") == "ISC"
    assert found.of("x.py") == "" and found.of("ab/x.py") == ""
    assert found.of("r/x.rs") == "MIT AND Apache-2.0"
    found.add("r/Cargo.toml", '[package]\nlicense = "MIT OR Apache-2.0"')
    assert found.of("r/x.rs") == "MIT OR Apache-2.0"
    assert found.of("x.deb/data.tar/usr/lib/x.py") == "BSD-2-Clause"
    assert found.of("lib/x/x.py") == "MIT"


def test_names_of_licence_files():
    for name in ("LICENSE", "a/LICENSE.md", "COPYING.LESSER", "LICENSE-MIT", "licence.txt",
                 "package.json", "usr/share/doc/x/copyright", "THIRD-PARTY-LICENSE"):  # fmt: skip
        assert is_licence_file(name), name
    for name in ("license.py", "copying.go", "a.js", "copyright.h"):
        assert not is_licence_file(name), name


def test_the_stage_header_then_package_then_default():
    stage = pickle.loads(pickle.dumps(Licences(allow=PERMISSIVE)))
    mit = Document("s", "x.c", text="// SPDX-License-Identifier: MIT\n", licence="GPL-3.0-only")
    assert stage(mit).keep and mit.licence == "MIT"
    gpl = Document("s", "x.c", text=GPL_NOTICE, licence="MIT")
    assert stage(gpl).reason == "licence" and gpl.licence == "GPL-2.0-or-later"
    assert stage(Document("s", "x.c", text="x", licence="ISC")).counts == {"from_package": 1}
    assert stage(Document("s", "x.c", text="x")).reason == "no_licence"
    assert Licences()(Document("s", "x.c", text="x")).counts == {"unknown": 1}
    defaulted = Document("s", "x.c", text="x")
    assert Licences(PERMISSIVE, "MIT")(defaulted).keep and defaulted.licence == "MIT"
    with pytest.raises(GeexError, match="SPDX"):
        Licences(allow=["not a licence"])
