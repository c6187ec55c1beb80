"""Rows of JSON lines and Parquet: layouts, byte ranges, what is broken."""

import gzip
import json

import pytest
import zstandard

from geex_jax.data.document import Part
from geex_jax.data.sources import lines, open_source
from geex_jax.errors import GeexError
from geex_jax.languages import LANGUAGES
from tests.data.helpers import write
from tests.data.sources_help import read_all

TEXT = "def f(x):\n    return x\n"
STACK = {
    "content": TEXT,
    "lang": "C-Sharp",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0"],
    "max_stars_repo_path": "src/x.cs",
}
PARROT = {"code": TEXT, "language": "Python", "license": "mit", "path": "a/x.py", "size": 3}
PILE = {"text": TEXT, "meta": {"pile_set_name": "Github"}}
OTHER = {"text": "words", "meta": {"pile_set_name": "Pile-CC"}}
PAJAMA = {"text": TEXT, "meta": json.dumps({"path": "x.go", "language": [{"name": "Go"}]})}


def jsonl(*rows):
    return b"".join(
        (row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows
    )


def name(document):
    return LANGUAGES[document.language].name if document.language >= 0 else ""


def test_known_layouts(tmp_path):
    data = jsonl(STACK, PARROT, PILE, OTHER, PAJAMA, {"content": TEXT, "lang": "Haskell"}, {"a": 1})
    documents, counts = read_all(open_source(write(tmp_path / "x.jsonl", data)))
    assert [name(d) for d in documents] == ["C#", "Python", "", "Go"]
    assert [d.licence for d in documents] == ["MIT AND Apache-2.0", "mit", "", ""]
    assert documents[0].path == "x.jsonl:0/src/x.cs" and documents[2].ask_content
    assert all(d.text == TEXT for d in documents)
    assert counts == {"no_code_set": 1, "unknown_language": 1, "no_text": 1}


def test_fields_of_ones_own(tmp_path):
    path = write(tmp_path / "x.jsonl", jsonl({"a": {"b": TEXT}, "kind": "go"}))
    source = open_source(path, text_field="a.b", language_field="kind")
    assert [name(d) for d in read_all(source)[0]] == ["Go"]
    given = open_source(write(tmp_path / "y.jsonl", jsonl({"text": TEXT})), language="rust")
    assert [name(d) for d in read_all(given)[0]] == ["Rust"]
    with pytest.raises(GeexError, match="the-stack"):
        open_source(path, layout="the-stak")
    with pytest.raises(GeexError):
        open_source(path, language="klingon")


@pytest.mark.parametrize("range_bytes", [1, 7, 64, 300, 1 << 20])
def test_ranges_give_each_line_once(tmp_path, monkeypatch, range_bytes):
    monkeypatch.setattr(lines, "RANGE_BYTES", range_bytes)
    monkeypatch.setattr(lines, "_READ", 50)
    rows = [{"content": f"x = {i}" * (i + 1), "lang": "python"} for i in range(12)]
    data = jsonl(*rows[:6], b"", *rows[6:])[:-1]  # an empty line, no newline at the end
    documents, counts = read_all(open_source(write(tmp_path / "x.jsonl", data)))
    assert [d.text for d in documents] == [row["content"] for row in rows] and not counts
    assert len({d.path for d in documents}) == 12


@pytest.mark.parametrize("range_bytes", [100, 1 << 20])
def test_broken_lines_are_counted_and_the_rest_goes_on(tmp_path, monkeypatch, range_bytes):
    monkeypatch.setattr(lines, "RANGE_BYTES", range_bytes)
    half = json.dumps(PARROT).encode()[:40]
    data = jsonl(PARROT, half, b"[1]", b"\xff\xfe", b"[" * 20_000, PARROT, {"code": 3})
    documents, counts = read_all(open_source(write(tmp_path / "x.jsonl", data)))
    assert len(documents) == 2 and counts == {"broken_line": 4, "no_text": 1}


def test_lines_too_long_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "RANGE_BYTES", 3000)
    long = {"code": "x" * 20_000, "language": "python"}
    data = jsonl(PARROT, long, PARROT, {**PARROT, "code": "y" * 1500}, PARROT)
    path = write(tmp_path / "x.jsonl", data)
    documents, counts = read_all(open_source(path, limits={"max_bytes": 1000}))
    assert len(documents) == 3 and counts == {"too_large": 2}


def test_a_line_of_ten_gigabytes_is_one_count(tmp_path):
    path = write(tmp_path / "x.jsonl", jsonl(PARROT))
    with open(path, "r+b") as file:
        file.truncate(10 << 30)
    source = open_source(path, limits={"max_bytes": 1 << 16})
    parts = [part for part in source.parts(0) if isinstance(part, Part)]
    assert len(parts) == 160
    assert [getattr(x, "reason", "text") for x in source.read(parts[0])] == ["text", "too_large"]
    assert list(source.read(parts[1])) == list(source.read(parts[-1])) == []


def test_packed_lines_and_those_cut_short(tmp_path):
    rows = jsonl(*(PARROT | {"code": TEXT + str(i) * 50} for i in range(2000)))
    for ending, packed in (
        ("gz", gzip.compress(rows)),
        ("zst", zstandard.ZstdCompressor().compress(rows)),
    ):
        whole = open_source(write(tmp_path / f"x.jsonl.{ending}", packed))
        assert len(read_all(whole)[0]) == 2000
        two = open_source(write(tmp_path / f"two.jsonl.{ending}", packed + packed))
        assert len(read_all(two)[0]) == 4000
        cut = open_source(write(tmp_path / f"cut.jsonl.{ending}", packed[: len(packed) // 2]))
        assert read_all(cut)[1]["truncated_file"] == 1
        bad = packed[:20] + bytes(60) + packed[80:]
        assert sum(read_all(open_source(write(tmp_path / f"b.jsonl.{ending}", bad)))[1].values())
    bomb = gzip.compress(jsonl(PARROT) + b" " * (8 << 20))
    limits = {"slack": 1 << 20, "max_ratio": 2}
    found = read_all(open_source(write(tmp_path / "bomb.jsonl.gz", bomb), limits=limits))
    assert len(found[0]) == 1 and found[1] == {"bomb": 1}


def test_parquet_by_row_groups(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [STACK | {"content": TEXT + str(i), "lang": "python"} for i in range(250)]
    rows[7]["content"] = None
    path = tmp_path / "x.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=100)
    source = open_source(path)
    assert len(list(source.parts(0))) == 3
    documents, counts = read_all(source)
    assert counts == {"no_text": 1}
    assert [d.text for d in documents] == [r["content"] for r in rows if r["content"]]
    assert documents[-1].path == "x.parquet:2.49/src/x.cs"
    assert documents[0].licence == "MIT AND Apache-2.0"
    assert read_all(open_source(path, text_field="nothing"))[1] == {"no_text": 250}
    data = path.read_bytes()
    write(tmp_path / "many" / "a.parquet", data[: len(data) // 2])
    write(tmp_path / "many" / "b.parquet", data)
    write(tmp_path / "many" / "c.parquet", data[:500] + bytes(300) + data[800:])
    documents, counts = read_all(open_source(tmp_path / "many", kind="parquet"))
    assert counts["broken_file"] >= 2 and len(documents) >= 249
    nested = pyarrow.Table.from_pylist([PILE, OTHER])
    parquet.write_table(nested, tmp_path / "pile.parquet")
    assert len(read_all(open_source(tmp_path / "pile.parquet"))[0]) == 1


def test_official_rows(tmp_path):
    rows = jsonl({"prompt": "say", "code": TEXT}, {"code": TEXT, "language": "Go"}, {"prompt": "x"})
    path = write(tmp_path / "x.jsonl", rows)
    documents, counts = read_all(open_source(path, kind="official", language="python"))
    assert [(name(d), d.prompt, d.text) for d in documents] == [
        ("Python", None, TEXT),
        ("Go", None, TEXT),
    ]
    assert counts == {"no_text": 1}
    tuned = open_source(path, kind="official", language="python", mode="finetune")
    assert [d.prompt for d in read_all(tuned)[0]] == ["say", None]
    with pytest.raises(GeexError, match="unknown mode"):
        open_source(path, kind="official", mode="tune")


def test_instruction_rows(tmp_path):
    rows = jsonl(
        {"prompt": "p", "completion": "c", "language": "rust"},
        {"instruction": "i", "input": "more", "output": "```go\npackage x\n```"},
        {"prompt": "p"},
        {"prompt": "p", "completion": "plain"},
    )
    documents, counts = read_all(
        open_source(write(tmp_path / "x.jsonl", rows), kind="instructions")
    )
    assert [(name(d), d.prompt) for d in documents] == [("Rust", "p"), ("Go", "i\nmore"), ("", "p")]
    assert documents[1].text.startswith("```go") and documents[2].ask_content
    assert counts == {"no_text": 1}
