"""Copies of tasks are caught, edited ones too; the standard library is not."""

import gzip
import json
import pathlib
import pickle
import sysconfig

import numpy as np
import pytest

from geex_jax.benchmark import recall_bench
from geex_jax.benchmark.embedded import write_benchmark
from geex_jax.data.document import Document
from geex_jax.data.stages import Contamination, ngrams
from geex_jax.errors import GeexError
from tests.data.helpers import source

WORDS = [
    "red", "green", "blue", "white", "black", "pink", "grey", "brown",
    "gold", "lime", "teal", "navy", "plum", "rust", "sand", "mint",
]  # fmt: skip


def task_text(seed, count=40):
    r = np.random.default_rng(seed)
    return " ".join(f"{WORDS[i]}{j}" for i, j in r.integers(0, 16, (count, 2)))


@pytest.fixture
def made(tmp_path):
    rows = [{"id": i, "text": task_text(i), "tests": [task_text(100 + i)]} for i in range(9)]
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def judge(stage, text, **fields):
    document = Document("s", "x.py", text=text, **fields)
    return document, stage(document)


def test_words_not_layout_make_ngrams():
    one = ngrams.of_words(
        ngrams.words(b"if (a_1 < Bee):  # " + b"long_identifier_of_some_kind, " * 9)
    )
    two = ngrams.of_words(ngrams.words(b"IF a_1\n\tbee" + b" {long_identifier_OF_some_kind}" * 9))
    assert len(one) == 0 and len(two) == 0  # twelve words
    data = ("word, x1 " * 20).encode()
    assert len(ngrams.of_words(ngrams.words(data))) == 40 - 12
    assert len(np.unique(ngrams.of_words(ngrams.words(data)))) == 2
    a, b = (ngrams.of_words(ngrams.words(t.encode())) for t in (task_text(1), task_text(1)[::-1]))
    assert not np.isin(a, b).any()
    upper = ngrams.of_words(ngrams.words(task_text(1).upper().replace(" ", "(\n\t").encode()))
    assert np.array_equal(upper, a)


def test_copies_are_dropped_and_said(made):
    stage = Contamination([made])
    document, decision = judge(stage, source(1) + task_text(3) + source(2))
    assert decision.reason == "contaminated"
    assert document.facts["contamination"] == {"tasks:3": 28}
    assert decision.counts == {"hits": 28, "task tasks:3": 1}
    assert judge(stage, source(1), prompt=task_text(103))[1].reason == "contaminated"
    assert judge(stage, source(1))[1].keep and not judge(stage, "")[1].counts


def test_one_ngram_is_no_copy(made):
    words = task_text(3).split()
    for count, keep in ((12, True), (13, True), (14, True), (15, False)):
        _, decision = judge(Contamination([made]), source(1) + " ".join(words[:count]))
        assert decision.keep is keep
        assert (decision.counts == {"few_hits": 1}) is (count in (13, 14))
    again = " ".join(words[:13]) + " stop "
    assert judge(Contamination([made]), again * 9)[1].keep  # distinct ones count
    assert not judge(Contamination([made], min_hits=1), again)[1].keep


def test_shared_and_numeric_ngrams_do_not_count(tmp_path):
    rows = [{"id": i, "text": task_text(0)} for i in range(3)]
    rows += [{"id": 7, "text": " ".join(map(str, range(50)))}, {"id": 8, "text": task_text(1)}]
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    stage = Contamination([file])
    assert judge(stage, task_text(0) + " ".join(map(str, range(50))))[1].keep
    assert stage.not_covered == ["x:0", "x:1", "x:2", "x:7"]
    assert judge(stage, task_text(1))[1].reason == "contaminated"


def test_bad_benchmarks_are_one_line(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n{")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}" * 999)[:20])
    (tmp_path / "short.jsonl").write_text('{"text": "few words"}\n')
    (tmp_path / "empty").mkdir()
    for name in ("bad.jsonl", "cut.jsonl.gz", "short.jsonl", "empty", "missing.jsonl"):
        with pytest.raises(GeexError) as error:
            Contamination([tmp_path / name])
        assert "\n" not in str(error.value)


def test_settings_are_of_the_content_not_the_path(made, tmp_path):
    other = tmp_path / "copy" / "tasks.jsonl"
    other.parent.mkdir()
    other.write_bytes(made.read_bytes())
    assert Contamination([made]).settings() == Contamination([other]).settings()
    other.write_text('{"text": "' + task_text(55) + '"}')
    assert Contamination([made]).settings() != Contamination([other]).settings()


def test_humaneval_x(shared):
    stage = pickle.loads(pickle.dumps(Contamination([shared / "humaneval-x"])))
    assert len(stage.tasks) == 164 and not stage.not_covered
    caught = total = edited = 0
    for language in ("python", "cpp", "java", "js", "go", "rust"):
        file = shared / "humaneval-x" / f"humaneval_{language}.jsonl.gz"
        for line in gzip.decompress(file.read_bytes()).decode().splitlines()[::4]:
            row = json.loads(line)
            text = row["prompt"] + row["canonical_solution"] + row["test"]
            caught += not judge(stage, source(1) + text + source(2))[1].keep
            light = text.replace("    ", "\t").replace("number", "digit").replace("i ", "idx ")
            edited += not judge(stage, source(1) + light)[1].keep
            total += 1
    assert caught == total and edited >= 0.95 * total
    files = sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py"))
    dropped = [f.name for f in files if not judge(stage, f.read_text("utf-8", "replace"))[1].keep]
    assert len(files) > 100 and not dropped


def test_the_bench_edits_tasks_and_counts_what_is_caught(tmp_path, capsys):
    write_benchmark(tmp_path / "tasks", 0, 5, 3)
    recall_bench.main(["--pairs", "2", "--benchmarks", str(tmp_path / "tasks")])
    out = capsys.readouterr().out
    assert "mean Jaccard 0.9" in out and "as it is" in out and "rust" in out
    problem = {"task_id": "Python/0", "prompt": "def f(x):  # add\n",
               "canonical_solution": "    return x\n", "test": "assert f(1)\n"}  # fmt: skip
    whole = recall_bench.edits(problem, True)
    assert whole["no comments"] == "def f(x):  \n    return x\n"
    assert whole["tabs, capitals"] == "DEF\tF(X):\t#\tADD\n\tRETURN\tX\n"
    assert whole["3 names changed"] != whole["as it is"]
