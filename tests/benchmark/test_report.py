"""Reports: what they say, that hostile samples cannot act in them, what bad files are answered."""

import base64
import hashlib
import html.parser
import json
import pathlib
import re

import pytest

from geex_jax.benchmark.report import published, tables, write_report
from geex_jax.benchmark.report import samples as samples_
from geex_jax.benchmark.statistics import mean_pass_at_k
from geex_jax.errors import GeexError
from geex_jax.pages import text_table

PREFIX = {"python": "Python", "cpp": "CPP", "java": "Java", "go": "Go", "rust": "Rust"}
EVIL = (
    '</pre></details></section></script><script>alert(1)</script><img src=x onerror="alert(2)">'
    "<svg onload=alert(3)> \" ' & {{script}} ]]> --> $x$ [a](javascript:alert(4)) | ` "
    "\u202eabc\x00\x1b[31m\u2028\ud800"
)
DRAWN = {"svg", "g", "path", "defs", "use", "text", "tspan", "rect", "clippath"}


def row(language="python", task=0, sample=0, outcome="passed", **more):
    return {
        "task_id": f"{PREFIX.get(language, language)}/{task}", "language": language,
        "sample": sample, "source": None, "set": "given", "outcome": outcome, "message": "",
        "cpu_seconds": 0.01, "compile_seconds": 0.0, "wall_seconds": 0.01,
        "memory_bytes": 1 << 20, "key": f"{language}{task}{sample}", "cached": False,
        "code": f"code {sample}", **more,
    }  # fmt: skip


def some_rows(languages=("python", "java", "go"), n=10, tasks=6, **more):
    """Task t has t of n samples right; wrong ones end in two classes."""
    return [
        row(x, t, s, "passed" if s < t else "wrong answer" if s % 2 else "compile error", **more)
        for x in languages
        for t in range(tasks)
        for s in range(n)
    ]


def write(folder: pathlib.Path, rows, run=None, end: bytes = b"") -> pathlib.Path:
    lines = "".join(json.dumps(x) + "\n" for x in rows)
    (folder / "results.jsonl").write_bytes(lines.encode() + end)
    if run is not None:
        (folder / "run.json").write_text(json.dumps(run))
    return folder


def summary(folder: pathlib.Path):
    return json.loads((folder / "summary.json").read_text())


class Page(html.parser.HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.source = (folder / "report.html").read_text(encoding="utf-8")
        self.feed(self.source)
        self.text = " ".join(self.texts)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data):
        inside = self.tags[-1] if self.tags else ""
        if inside == "script" and self.cdata_elem:
            self.scripts.append(data)
        elif not (inside == "style" and self.cdata_elem):
            self.texts.append(" ".join(data.split()))


def cell(table: tables.Table, first: str, column: str):
    """The field of the first row that begins so."""
    found = next(r for r in table.rows if first in (x if isinstance(x, str) else x.text for x in r))
    return found[table.head.index(column)]


def test_pass_at_k_and_the_published_rows_beside_it(tmp_path):
    found = write_report(write(tmp_path, some_rows(), {"k": [1, 10, 100], "task": "generation"}))
    table = tables.pass_at_k(found)
    mine = cell(table, "pass@1", "Python")
    assert mine.text == "25.0"  # mean of 0, 1, ... 5 tenths
    low, high = map(float, mine.small.split(" – "))
    assert low < 25 < high
    assert cell(table, "pass@10", "Go").text == "83.3"  # all tasks but one have a correct sample
    assert cell(table, "pass@100", "Java") == tables.Cell("–", "n = 10", "muted")
    assert cell(table, "CodeGeeX2-6B", "Python") == "35.9"
    assert cell(table, "StarCoder-15B", "Java") == "31.5"
    assert cell(table, "pass@1", "mean").text == "25.0"
    page = Page(tmp_path)
    for text in ("35.9", "StarCoder-15B", "this run has 6", "CodeGeeX2's README", "n = 10"):
        assert text in page.text
    document = (tmp_path / "report.md").read_text()
    assert "| pass@1 | this run | 25.0 (" in document and "| 35.9 |" in document
    numbers = summary(tmp_path)["generation"][0]
    assert numbers["language"] == "python" and numbers["pass_at_k"]["1"]["value"] == 0.25
    assert numbers["pass_at_k"]["100"] == {"missing": "n = 10"}
    assert "pass@1" in text_table(table)


def test_the_recalled_table_of_the_paper_is_not_printed(tmp_path):
    write_report(write(tmp_path, some_rows()))
    both = Page(tmp_path).text + (tmp_path / "report.md").read_text()
    for number in ("22.89", "39.57", "60.92", "62.95", "62.41"):
        assert number not in both


def test_published_rows_stay_out_of_other_benchmarks(tmp_path):
    write_report(write(tmp_path, some_rows(), {"benchmark": "embedded tasks"}))
    page = Page(tmp_path)
    assert "embedded tasks generation" in page.text and "HumanEval-X" not in page.text
    assert "CodeGeeX2-6B" not in page.text and "35.9" not in page.text


def test_averages_over_five_languages_beside_those_of_the_paper(tmp_path):
    names = ("python", "cpp", "java", "javascript", "go")
    rows = [row(x, t, s, "passed" if t else "timeout")
            for x in names for t in range(2) for s in range(100)]  # fmt: skip
    write_report(write(tmp_path, rows))
    assert "this run 50.00; CodeGeeX-13B 54.76, CodeGen-Multi-16B 54.39" in Page(tmp_path).text


def test_a_language_that_was_not_run_is_not_zero(tmp_path):
    rows = some_rows(("python", "java"))
    rows += [row("rust", t, s, "not run", message="no cargo; apt install") for t in range(3)
             for s in range(2)]  # fmt: skip
    found = write_report(write(tmp_path, rows, {"languages": ["python", "java", "rust", "go"]}))
    table = tables.pass_at_k(found)
    assert cell(table, "pass@1", "Rust").text == "not run"
    assert cell(table, "pass@1", "Go").text == "not run"
    assert cell(table, "pass@1", "mean").text == "25.0"
    text = Page(tmp_path).text
    assert "Rust was not run: no cargo; apt install." in text and "Go was not run." in text
    rust = next(x for x in summary(tmp_path)["generation"] if x["language"] == "rust")
    assert rust["samples"] == 0 and rust["not_run"] == 6
    assert rust["pass_at_k"]["1"] == {"missing": "not run"}
    assert not any(x.text == "0.0" for r in table.rows for x in r if isinstance(x, tables.Cell))


def test_single_samples_that_were_not_run_are_left_out(tmp_path):
    rows = [row(sample=s, outcome="not run" if s < 6 else "passed") for s in range(10)]
    found = write_report(write(tmp_path, rows))
    assert found.generation[0].counts == {"Python/0": (4, 4)}
    assert "6 samples were not run" in Page(tmp_path).text


def test_error_classes(tmp_path):
    rows = [
        row(sample=s, outcome=o) for s, o in enumerate(["passed", "timeout", "memory", "memory"])
    ]
    found = write_report(write(tmp_path, rows))
    table = tables.outcomes(found)
    assert cell(table, "Python", "memory") == tables.Cell("50.0", "2")
    assert cell(table, "Python", "passed") == tables.Cell("25.0", "1")
    assert cell(table, "Python", "compile/syntax error") is tables.NOTHING
    assert summary(tmp_path)["generation"][0]["outcomes"]["memory"] == 2


def test_plots_are_drawn_in_the_page(tmp_path):
    write_report(write(tmp_path, some_rows()))
    page = Page(tmp_path)
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len([x for x in labels if "radar" in x]) == 2
    assert len([x for x in labels if "box plots" in x]) == 1
    assert len([x for x in labels if "stacked bars" in x]) == 1
    assert "#010203" not in page.source and "currentColor" in page.source


def test_the_page_needs_nothing_else(tmp_path):
    write_report(write(tmp_path, some_rows()))
    page = Page(tmp_path)
    assert not {"img", "link", "iframe", "image", "object", "base"} & set(page.tags)
    assert all(value.startswith("#") for name, value in page.attributes
               if name in ("href", "xlink:href", "src"))  # fmt: skip
    assert "url(http" not in page.source and "@import" not in page.source
    assert sorted(x.name for x in tmp_path.iterdir()) == [
        "report.html", "report.md", "results.jsonl", "summary.json",
    ]  # fmt: skip


def hostile(tmp_path):
    rows = some_rows()
    for x in rows:
        x.update(code=EVIL, message=EVIL, findings=[
            {"rule": EVIL, "severity": EVIL, "line": EVIL, "message": EVIL}
        ])  # fmt: skip
    rows += [dict(x, set="extended" + EVIL, outcome="wrong answer") for x in rows]
    rows += [row(EVIL, 1, s, "timeout", message=EVIL) for s in range(10)]
    rows += [row("rust", 1, 0, "not run", message=EVIL)]
    rows += [row("java", 1, s, "timeout", source=EVIL, bleu=0.1) for s in range(10)]
    run = dict.fromkeys(("model", "created", "task", "benchmark", EVIL), EVIL)
    run |= {"command": [EVIL], "versions": {EVIL: EVIL}, "sandbox": [EVIL, {EVIL: [EVIL]}]}
    run |= {"languages": [EVIL + "2"]}
    return write(tmp_path, rows, run)


@pytest.mark.filterwarnings("error")
def test_hostile_samples_cannot_act_in_the_page(tmp_path):
    write_report(hostile(tmp_path))
    page = Page(tmp_path)
    ours = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "nav",
            "a", "main", "ul", "li", "section", "div", "table", "thead", "tbody", "tr", "th", "td",
            "small", "p", "figure", "figcaption", "form", "label", "select", "option", "input",
            "output", "details", "summary", "b", "i", "pre", "script"}  # fmt: skip
    assert set(page.tags) <= ours | DRAWN
    assert page.tags.count("script") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028\u202e]", page.source)
    assert "[U+202E]" in page.text and "[U+001B]" in page.text
    assert "alert(1)" in page.text  # shown as text


def test_policy_lets_only_the_script_of_the_page_run(tmp_path):
    write_report(hostile(tmp_path))
    page = Page(tmp_path)
    policy = next(v for n, v in page.attributes if n == "content" and "default-src" in v)
    (script,) = page.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "alert" not in script


def test_hostile_samples_cannot_act_in_markdown(tmp_path):
    write_report(hostile(tmp_path))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<" not in text and "](" not in text.replace("\\](", "")
    assert not re.search("[\x00-\x08\x0b-\x1f\u2028\u202e]", text)
    heads = [x for x in text.splitlines() if x.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in heads]
    rules = [at for at, line in enumerate(heads) if line.startswith("| ---")]
    for start, end in zip(rules, [*[x - 1 for x in rules[1:]], len(heads)], strict=True):
        assert len(set(bars[start - 1 : end])) == 1  # no field breaks out of its column


def test_failing_samples_show_code_beside_message(tmp_path):
    rows = [row(sample=s, outcome="wrong answer", code=f"return {s}", message=f"{s} != 7")
            for s in range(3)]  # fmt: skip
    rows += [row(sample=9, outcome="passed", code="return 'right'")]
    write_report(write(tmp_path, rows))
    page = Page(tmp_path)
    assert page.tags.count("details") == 3
    assert "return 2" in page.text and "2 != 7" in page.text and "'right'" not in page.text
    data = dict(page.attributes)
    assert (data["data-class"], data["data-task"]) == ("wrong answer", "Python/0")


def test_same_programs_are_shown_once(tmp_path):
    rows = [row(sample=s, outcome="timeout", key="same", code="while True: pass") for s in range(9)]
    write_report(write(tmp_path, rows))
    page = Page(tmp_path)
    assert page.tags.count("details") == 1 and "9 times the same program" in page.text


def test_samples_are_bounded_and_of_every_class(tmp_path):
    rows = [row("python", t, s, "wrong answer", code="<" * 9_000, message="&" * 9_000)
            for t in range(10) for s in range(8)]  # fmt: skip
    rows += [row("go", 0, 0, "memory"), row("python", 0, 99, "timeout")]
    write_report(write(tmp_path, rows))
    page = Page(tmp_path)
    classes = [value for name, value in page.attributes if name == "data-class"]
    assert {"memory", "timeout", "wrong answer"} == set(classes)
    assert len(classes) < 82 < samples_.MOST
    assert len(page.source) < samples_.MOST_BYTES + 500_000
    assert "more characters" in page.text
    tasks = [v for n, v in page.attributes if n == "data-task"]
    assert {f"Python/{t}" for t in range(10)} <= set(tasks)  # no task crowds out the others


def test_translation_matrix_beside_the_published_one(tmp_path):
    rows = []
    for source in ("python", "java"):
        for target in ("python", "java", "go"):
            if source != target:
                rows += some_rows((target,), source=source, bleu=0.25, codebleu=0.5)
    run = {"task": "translation", "languages": ["python", "java", "go", "rust"], "k": 1}
    found = write_report(write(tmp_path, rows, run))
    table = tables.translation(found, 1)
    assert table.head[2:] == ["into Python", "into Java", "into Go", "into Rust"]
    assert cell(table, "Python", "into Java").text == "25.0"
    assert cell(table, "Python", "into Python") is tables.NOTHING
    assert cell(table, "Python", "into Rust").text == "not run"
    assert cell(table, "CodeGeeX-13B-FT", "into Java") == "41.98"
    page = Page(tmp_path)
    for text in ("this run, pass@1", "CodeGeeX-13B-FT, pass@1", "25.00", "50.00", "41.98"):
        assert text in page.text
    assert not [x for x in found.generation if x.counts]
    assert summary(tmp_path)["translation"][0]["codebleu"] == 0.5


def test_published_translation_is_whole():
    table = published.translation()
    assert set(table) == set(published.TRANSLATION_MODELS.values())
    for model in table.values():
        assert all(len(values) == 20 for values in model.values())
        assert all(source != target for values in model.values() for source, target in values)
        assert all(model[1][x] < model[10][x] < model[100][x] for x in model[1])
    assert table["CodeGeeX-13B-FT"][100]["java", "python"] == 95.13
    assert table["InCoder-6.7B"][10]["go", "javascript"] == 63.63


def test_correct_programs_that_were_not(tmp_path):
    rows = some_rows(("python",))
    extended = [dict(x, set="extended") for x in rows]
    for x in extended:
        if x["task_id"] in ("Python/4", "Python/5") and x["sample"] == 0:
            x.update(outcome="wrong answer", message="extended test 3")
    found = write_report(write(tmp_path, rows + extended))
    (comparison,) = found.comparisons
    assert comparison.passed == 15 and comparison.fooled.size == 2
    assert comparison.tasks == {"Python/4": 1, "Python/5": 1}
    assert comparison.drop[1].value == pytest.approx(2 / 60)
    table = tables.compared(found)
    assert cell(table, "Python", "of these not correct") == "2"
    assert cell(table, "Python", "difference").text == "-3.3"
    page = Page(tmp_path)
    assert samples_.ONLY_GIVEN in page.text and "extended test 3" in page.text
    # The main table is about the given tests alone.
    assert len(found.generation) == 1 and found.generation[0].samples == 60


def test_budget_findings_and_slowest(tmp_path):
    rows = some_rows()
    rows[3].update(cpu_seconds=4.5, outcome="timeout")
    rows[9].update(
        findings=[{"rule": "B307", "severity": "high", "line": 3, "message": "eval"}] * 2
    )
    found = write_report(write(tmp_path, rows))
    assert {x.strategy for x in found.budget} >= {"uniform", "by corpus share", "greedy, held in"}
    assert found.slowest[0].task == "Python/0" and found.slowest[0].worst_seconds == 4.5
    assert found.slowest[0].timeouts == 1
    (finding,) = found.findings
    assert (finding.rule, finding.samples, finding.passed) == ("B307", 1, 0)
    text = Page(tmp_path).text
    for part in ("by corpus share", "B307", "Python/0, line 3: eval", "4.500"):
        assert part in text


def test_environment(tmp_path):
    run = {"command": ["geex", "bench"], "versions": {"go": {"go": "go1.19"}}, "temperature": 0.8,
           "limits": {"cpu_seconds": 5.0}, "sandbox": {"seccomp": True, "missing": []}}  # fmt: skip
    write_report(write(tmp_path, some_rows(("python",)), run))
    text = Page(tmp_path).text
    for part in ("geex bench", "go / go", "go1.19", "temperature", "0.8", "cpu_seconds", "seccomp"):
        assert part in text
    assert "| seccomp | yes |" in (tmp_path / "report.md").read_text().replace("\\", "")


def test_a_line_that_a_kill_cut_off_is_left_out_with_a_note(tmp_path):
    found = write_report(write(tmp_path, some_rows(), end=b'{"task_id": "Python/1", "lang'))
    assert sum(x.samples for x in found.generation) == 180
    assert "was cut off" in Page(tmp_path).text
    # A last line that lacks nothing but its end counts.
    whole = json.dumps(row(sample=77)).encode()
    found = write_report(write(tmp_path, some_rows(), end=whole))
    assert sum(x.samples for x in found.generation) == 181 and not found.results.notes


def test_a_sample_judged_again_counts_once_by_its_last_verdict(tmp_path):
    rows = some_rows(("python",), n=1, tasks=4)
    rows[0].update(outcome="timeout", findings=[{"rule": "old"}])
    found = write_report(write(tmp_path, [*rows, dict(row(sample=0), code="again")]))
    assert found.generation[0].counts["Python/0"] == (1, 1)
    assert found.generation[0].samples == 4 and not found.findings
    assert "1 samples were judged again" in Page(tmp_path).text


def test_unlike_numbers_of_samples_are_told(tmp_path):
    rows = [x for x in some_rows(("python",)) if x["task_id"] != "Python/5" or x["sample"] < 4]
    found = write_report(write(tmp_path, rows, {"k": [1, 10]}))
    counts = found.generation[0].counts
    assert found.generation[0].scores[1].value == mean_pass_at_k(counts, 1)
    assert found.generation[0].scores[10] == "n = 4"
    assert "1 of 6 tasks have fewer than 10 samples" in Page(tmp_path).text


def test_languages_that_the_library_does_not_know(tmp_path):
    found = write_report(write(tmp_path, some_rows(("python", "zig", "日本語"))))
    assert [x.group.title for x in found.generation] == ["Python", "zig", "日本語"]


@pytest.mark.filterwarnings("error")
def test_one_sample_is_enough(tmp_path):
    found = write_report(write(tmp_path, [row()]))
    assert found.generation[0].scores[1].value == 1.0


def test_nothing_was_run_at_all(tmp_path):
    write_report(write(tmp_path, [row(outcome="not run")]))
    assert "Python was not run." in Page(tmp_path).text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no results"),
        (b"\n\n", "has no results"),
        (b'{"task_id": "Python/0"', "has no results"),
        (b"nope\n", "line 1 is not JSON"),
        (b"\xff\xfe\n", "line 1 is not JSON"),
        (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        (b"[]\n", "line 1 is no result"),
        (b'{"task_id": "Python/0"}\n', "line 1 is no result of a sample \\(sample\\)"),
        (json.dumps(row(outcome="pased")).encode(), "did you mean passed"),
        (json.dumps(row(sample="0")).encode(), "line 1 is no result"),
        (json.dumps(row(sample=2**70)).encode(), "line 1 is no result"),
        (json.dumps(row(cpu_seconds="fast")).encode(), "line 1 is no result"),
        (json.dumps(row(findings="abc")).encode(), "line 1 is no result"),
    ],
)
def test_bad_results_are_one_line_and_leave_nothing(tmp_path, content, message):
    (tmp_path / "results.jsonl").write_bytes(content)
    with pytest.raises(GeexError, match=message) as error:
        write_report(tmp_path)
    assert "\n" not in str(error.value) and error.value.remedy
    assert [x.name for x in tmp_path.iterdir()] == ["results.jsonl"]


def test_bad_line_in_the_middle_is_named(tmp_path):
    write(tmp_path, [row()], end=b"{oops\n" + json.dumps(row(sample=1)).encode() + b"\n")
    with pytest.raises(GeexError, match="line 2 is not JSON"):
        write_report(tmp_path)


def test_no_results(tmp_path):
    with pytest.raises(GeexError, match=r"cannot read .*results\.jsonl"):
        write_report(tmp_path)


@pytest.mark.parametrize("run", ["[]", "{", '{"k": [0]}', '{"k": ["1"]}', '{"k": [true]}'])
def test_bad_run_json(tmp_path, run):
    write(tmp_path, [row()])
    (tmp_path / "run.json").write_text(run)
    with pytest.raises(GeexError, match=r"run\.json"):
        write_report(tmp_path)


def test_a_report_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    write_report(write(tmp_path, some_rows()))
    before = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    write(tmp_path, some_rows(("rust",)))
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path)
    after = {x.name: x.read_bytes() for x in tmp_path.iterdir()}
    assert {**after, "results.jsonl": b""} == {**before, "results.jsonl": b""}
