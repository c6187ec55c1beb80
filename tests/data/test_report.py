"""`geex data report`: what the page says, and that it needs and leaks nothing."""

import dataclasses
import html.parser
import json
import re
import shutil

import pytest

from geex_jax import cli, tokenizers
from geex_jax.data.report import schema
from geex_jax.data.report.page import page, printed, write_page
from geex_jax.errors import GeexError
from tests.data.helpers import ByteTokenizer

TOKENIZER = ByteTokenizer()
EVIL = '</pre><script>alert(1)</script><img src=x onerror="y">\x1b[31m'


class Reader(html.parser.HTMLParser):
    """Checks nesting, collects tags, ids, links and text."""

    def __init__(self, source):
        super().__init__()
        self.stack, self.tags, self.ids, self.links, self.text = [], [], [], [], ""
        self.feed(source)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag not in ("meta", "br", "img", "input", "link"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text += data


def full():
    example = schema.Example(f"a/{EVIL}.py", "Python", 1234, EVIL, "average line 212.0")
    other = schema.Example("b/copy.py", "Python", 1200, "text of the copy")
    return schema.ReportData(
        sources=[schema.SourceCounts("debian", 10, 5000, 6, 3000)],
        passed={"files": 12, "bytes": 99, "unreadable": 2},
        stages=[
            schema.StageCounts("filters", 10, 7, 5000, 4000, {"too_small": 3}, {"too_small": 1000},
                               {"kept_twice": 4}, {"too_small": [example]}),
            schema.StageCounts("near", 7, 6, dropped={"near_duplicate": 1}),
        ],
        duplicates=schema.Duplicates(
            1, 1, 1, 1, {"2": 1, "10": 3},
            [schema.Cluster("near", 9, example, [other], [0.91])],
        ),
        licences={"MIT": schema.Licence(4, 2000), "": schema.Licence(2, 1000)},
        secrets={"private_key": 3},
        contamination=schema.Contamination(
            164, 1, [schema.Hit("HumanEval-X", "Python/12", "x.py", 40)]
        ),
        lengths={"Python": schema.Lengths([0, 0, 3, 1], [0, 2])},
    )  # fmt: skip


@pytest.fixture
def folder(prepared, tmp_path):
    copy = tmp_path / "data"
    shutil.copytree(prepared[0], copy)
    return copy


def made(folder, **given):
    found = write_page(folder, folder / "report.html", tokenizer=TOKENIZER, **given)
    return found, Reader((folder / "report.html").read_text())


def test_what_the_pipeline_writes_is_shown(folder):
    found, reader = made(folder)
    total = found.manifest.total("train").files + found.manifest.total("validation").files
    for text in (printed(found), reader.text):
        assert re.search(r"too large", text) and re.search(r"duplicate", text)
        assert "Python" in text and found.manifest.fingerprint in text
    assert f"{total:,}" in printed(found)
    assert {"languages", "funnel", "lengths", "rows"} <= set(reader.ids)
    assert all(link.startswith("#") and link[1:] in reader.ids for link in reader.links)
    stages = found.data.stages
    assert [s.seen for s in stages[1:]] == [s.kept for s in stages[:-1]]


def test_all_parts(folder):
    schema.save(full(), folder)
    _, reader = made(folder)
    for words in ("debian", "MIT", "unknown", "private key", "Python/12", "similarity 0.91",
                  "text of the copy", "and 7 more", "average line 212.0", "near duplicate",
                  "Counted by filters: kept twice 4", "unreadable", "Seen in all: 12 files",
                  "Checked against 164 tasks: 1 documents dropped"):  # fmt: skip
        assert words in reader.text, words
    assert len([tag for tag, _ in reader.tags if tag == "rect"]) == 3


def test_nothing_is_loaded_and_nothing_runs(folder):
    schema.save(full(), folder)
    _, reader = made(folder)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in reader.tags}
    source = (folder / "report.html").read_text()
    assert "default-src 'none'" in source and "\x1b" not in source
    for _, attributes in reader.tags:
        assert not {"src", "onerror", "onclick"} & set(attributes)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org)", source.split("<body>")[0])


def test_sample_rows_show_where_tokens_begin(folder):
    found, reader = made(folder, rows=1)
    spans = [x for tag, x in reader.tags if tag == "i"]
    tokens = sum(len(s.tokens) for row in found.rows for s in row.segments)
    assert len(spans) == tokens > 200
    assert sum(x.get("class") == "tag" for x in spans) > 10
    none, reader = made(folder, rows=0)
    assert not none.rows and "rows" not in reader.ids


def test_text_from_before_the_secrets_stage_is_not_shown(folder):
    data = full()
    data.stages.insert(1, schema.StageCounts("secrets", 7, 7))
    data.stages[0].examples["too_small"] = [schema.Example("a.py", text="password = hunter2")]
    schema.save(data, folder)
    assert "hunter2" not in made(folder)[1].text
    del data.stages[1]
    schema.save(data, folder)
    assert "hunter2" in made(folder)[1].text


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(schema.ReportData)][1:])
def test_parts_may_be_absent(folder, field):
    value = dataclasses.asdict(full())
    del value[field]
    (folder / "report.json").write_text(json.dumps(value))
    made(folder)
    value = {"format": 1, field: dataclasses.asdict(full())[field], "from_a_newer_version": 1}
    (folder / "report.json").write_text(json.dumps(value))
    made(folder)


def test_without_report_json_or_tokenizer(folder):
    (folder / "report.json").unlink()
    shutil.rmtree(folder / "tokenizer")
    found = write_page(folder, folder / "report.html")
    assert any("There is no report.json" in note for note in found.notes)
    assert any("No more sample rows" in note for note in found.notes)
    assert "too large" in printed(found)


def test_schema_goes_round(tmp_path):
    schema.save(full(), tmp_path)
    assert schema.load(tmp_path) == full()
    assert schema.load(tmp_path / "nothing") is None


@pytest.mark.parametrize("text", ["", "[]", '{"stages": 3}', '{"licences": {"MIT": 4}}', "{"])
def test_damaged_report_json(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(GeexError, match=r"report\.json is damaged; remove it"):
        schema.load(tmp_path)


def test_lengths_and_clips():
    bins = schema.histogram([0, 1, 2, 3, 4, 1023, 1024])
    assert bins == [2, 2, 1, 0, 0, 0, 0, 0, 0, 1, 1]
    assert schema.clip("a\udcff") == "a?"
    assert len(schema.clip("x" * 9000)) < 2100


def test_command(folder, monkeypatch, capsys):
    monkeypatch.setattr(tokenizers, "load", lambda spec: TOKENIZER)
    assert cli.main(["data", "report", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "Filter funnel" in out and (folder / "report.html").exists()
    assert cli.main(["data", "report", str(folder), "--rows", "-1"]) == 2
    assert cli.main(["data", "report", str(folder / "no")]) == 2
    assert cli.main(["data", "report", str(folder), "--output", "/dev/null/x.html"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "cannot write" in errors[2]


def test_same_data_same_page(folder):
    found, _ = made(folder)
    assert page(found) == page(made(folder)[0])
