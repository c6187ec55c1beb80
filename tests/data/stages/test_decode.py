"""Encodings, what is no source by name or lines, notebooks."""

import json
import pickle

import pytest

from geex_jax.data.document import Document
from geex_jax.data.stages import Decode
from geex_jax.data.stages.decode import decode, surely_latin1
from geex_jax.languages import LANGUAGES
from tests.data.helpers import source


def run(path, data=b"", stage=None, **fields):
    document = Document("s", path, data if isinstance(data, bytes) else data.encode(), **fields)
    return document, (stage or Decode())(document)


def test_text_moves_from_data_and_marks_go():
    for mark, codec, count in (
        (b"", "utf-8", None),
        (b"\xef\xbb\xbf", "utf-8", {"utf8_mark": 1}),
        (b"\xff\xfe", "utf-16-le", {"utf16": 1}),
        (b"\xfe\xff", "utf-16-be", {"utf16": 1}),
        (b"\xff\xfe\0\0", "utf-32-le", {"utf32": 1}),
    ):
        document, decision = run("x.py", mark + "é = 'ü'\n".encode(codec))
        assert decision.keep and document.text == "é = 'ü'\n" and document.data == b""
        assert decision.counts == count


def test_latin1_only_where_it_is_surely_text():
    text = "# für Müller, © 2001\nx = 'naïve'\n" + source(1)
    assert surely_latin1(text.encode("latin-1"))
    document, decision = run("x.py", text.encode("latin-1"))
    assert document.text == text and decision.counts == {"latin1": 1}
    assert run("x.py", text.encode("latin-1"), Decode(latin1=False))[1].reason == "broken_utf8"
    for other in (
        source(1).encode() + "данные и счётчик".encode("koi8-r"),
        source(1).encode() + "変数の値".encode("euc-jp"),
        source(1).encode() + "größe: 値".encode() + b"\xff",
        source(1).encode() + b"\xe9\n",
        source(1).encode() + b"caf\x8e\n",
    ):
        assert decode(other) == (None, "broken_utf8")


@pytest.mark.parametrize("data", [b"a\0b", b"\x01\x02\x03abc" * 9, b"\xff\xfea\0\0\0"])
def test_binary(data):
    assert decode(data) == (None, "binary")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a/package-lock.json", "lock_file"),
        ("Cargo.lock", "lock_file"),
        ("a/x.min.js", "minified"),
        ("a/x_pb2.py", "generated"),
        ("x.pb.go", "generated"),
        ("js/jquery-3.6.0.js", "vendored"),
        ("bower_components/a/x.js", "vendored"),
        ("config.guess", "vendored"),
        ("admin.js", ""),
        ("lock.py", ""),
        ("myjquery.py", ""),
        ("node_modules/a/index.js", ""),
    ],
)
def test_names(path, reason):
    assert run(path, source(1))[1].reason == reason
    assert run(path, source(1), Decode(names=False))[1].keep


def test_minified_by_lines():
    assert run("x.js", "// licence\n" * 30 + "a=b;" * 400)[1].reason == "minified"
    assert run("x.js", "// licence\n" * 300 + "a=b;" * 400)[1].keep
    assert run("x.js", "a=b;" * 400, Decode(long_line=0))[1].keep


def test_rows_that_come_as_text():
    assert run("row", text="x = 1")[1].keep
    assert run("row", text="x = '\ud800'")[1].reason == "broken_utf8"
    assert run("row", text="x", prompt="\udfff")[1].reason == "broken_utf8"
    assert run("row", text="x\0")[1].reason == "binary"
    assert run("x.py", b"x" * 100, Decode(max_bytes=99))[1].reason == "too_large"


def notebook(cells, **metadata):
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4})


def code(source):
    return {"cell_type": "code", "source": source, "outputs": []}


def test_notebooks_become_code_that_parses():
    cells = [
        {"cell_type": "markdown", "source": "# words"},
        code(["import os\n", "%matplotlib inline\n", "x = 5 % 3\n"]),
        code("%%bash\nls\n"),
        code("%%time\nfor i in range(3):\n    !ls\n    print(i)"),
        code("os.path?"),
    ]
    document, decision = run("a.ipynb", notebook(cells))
    assert decision.keep and decision.counts == {"notebooks": 1}
    assert LANGUAGES[document.language].name == "Python" and not document.ask_content
    compile(document.text, "a", "exec")
    assert "x = 5 % 3" in document.text and "ls\n" not in document.text.replace("!ls\n", "")
    document, _ = run("b.ipynb", notebook([code("x <- 1")], kernelspec={"language": "R"}))
    assert LANGUAGES[document.language].name == "R" and document.text == "x <- 1\n"
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": ["x = 1"]}]}]}
    assert run("c.ipynb", json.dumps(old))[0].text == "x = 1\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "broken_notebook"),
        ("[]", "broken_notebook"),
        ("[" * 100_000, "broken_notebook"),
        ('{"cells": 3}', "broken_notebook"),
        (notebook([]), "no_code"),
        (notebook([code(3), {"cell_type": 1}, 7]), "no_code"),
        (notebook([code("x")], kernelspec={"language": "julia"}), "unknown_language"),
    ],
)
def test_notebooks_that_give_nothing(text, reason):
    assert run("a.ipynb", text)[1].reason == reason


def test_the_stage_travels():
    stage = pickle.loads(pickle.dumps(Decode(long_line=7)))
    assert stage.settings()["long_line"] == 7
