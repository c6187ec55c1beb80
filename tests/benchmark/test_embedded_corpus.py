"""Embedded tasks on disk: to be trained on, to be judged, and the verb that writes them."""

import argparse
import hashlib

import pytest

from geex_jax import data, tokenizers
from geex_jax.benchmark.embedded import (
    corpus,
    generate,
    mixture,
    training_text,
    write_benchmark,
    write_corpus,
)
from geex_jax.benchmark.humaneval_x import prompts, sources, tasks
from geex_jax.cli import embedded as verb
from geex_jax.data.config import PrepareConfig
from geex_jax.data.filters import Filters
from geex_jax.errors import GeexError

LANGUAGES = ("python", "cpp", "java", "javascript", "go", "rust")


def content(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def run(*words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    verb.run(parser.parse_args(list(map(str, words))))


def test_a_corpus_is_what_a_model_is_asked_with_and_the_solution(tmp_path):
    assert write_corpus(tmp_path / "a", 0, 6, 2) == dict.fromkeys(LANGUAGES, 6)
    drawn = list(mixture(0, 6, 2))
    for name, ending in zip(LANGUAGES, ("py", "cpp", "java", "js", "go", "rs"), strict=True):
        found = sorted((tmp_path / "a" / name).iterdir())
        assert [p.name for p in found] == [f"{i:06d}.{ending}" for i in range(6)]
        for path, task in zip(found, drawn, strict=True):
            asked = prompts.of_problem(tasks.names(name), task.row(name))
            assert path.read_text() == asked + task.row(name)["canonical_solution"]


def test_tasks_go_together_into_files_of_a_size(tmp_path):
    written = write_corpus(tmp_path / "a", 0, 20, 1, ["python"], bytes_per_file=1500)
    found = sorted((tmp_path / "a" / "python").iterdir())
    assert written == {"python": len(found)} and 1 < len(found) < 10
    assert all(p.stat().st_size >= 1500 for p in found[:-1])
    joined = "\n".join(p.read_text() for p in found)
    assert joined == "\n".join(training_text(t, "python") for t in mixture(0, 20, 1))


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        run("--output", tmp_path / name, "--train", 4, "--held-out", 3, "--seed", 5)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(content(tmp_path / "a")) == 4 * 6 + 6


def test_one_file_for_each_task_passes_prepare_with_two_flags(tmp_path):
    texts = [training_text(t, "python") for t in generate(0, 60, 2)]
    tokenizer = tokenizers.train_sentencepiece(texts, tmp_path / "tokenizer", 512)
    write_corpus(tmp_path / "a", 0, 60, 2, ["python", "rust"])
    config = PrepareConfig(seq_len=128, workers=1, filters=Filters(min_bytes=0, min_alpha=0.0))
    manifest = data.prepare(tmp_path / "a", tmp_path / "data", tokenizer, config)
    assert manifest.total("train").files + manifest.total("validation").files == 120
    assert not manifest.dropped
    # The prompt ends with a line end, which this vocabulary joins with the indentation after it.
    row = next(generate(0, 1, 2)).row("python")
    assert sources._before_joint(tokenizer, row["prompt"]) == row["prompt"].rstrip("\n")


def test_a_prompt_is_left_whole_where_tokens_stay_the_same():
    class Bytes:
        encode = staticmethod(lambda text: list(text.encode()))

    assert sources._before_joint(Bytes(), "def f():\n") == "def f():\n"


def test_the_judge_reads_the_problems(tmp_path):
    files = write_benchmark(tmp_path / "held", 2, 7, 2)
    assert [p.name for p in files] == [
        f"embedded_{x}.jsonl.gz" for x in ("python", "cpp", "java", "js", "go", "rust")
    ]
    drawn = list(mixture(2, 7, 2, "held-out"))
    for name in LANGUAGES:
        problems = tasks.load(name, tmp_path / "held")
        assert problems == [t.row(name) for t in drawn]


def test_problems_of_all_languages_are_parallel(tmp_path):
    write_benchmark(tmp_path / "held", 0, 5, 3, split="train")
    loaded = {name: tasks.load(name, tmp_path / "held") for name in LANGUAGES}
    for i in range(5):
        assert {tasks.number(loaded[name][i]["task_id"]) for name in LANGUAGES} == {str(i)}
    template = prompts.get("translation")
    text = prompts.translation(template, ("python", loaded["python"][0]), ("go", loaded["go"][0]))
    assert text.startswith("code translation\nPython:\n") and "\nGo:\n" in text


@pytest.mark.parametrize("part", ["--train", "--held-out"])
def test_a_part_can_be_left_out(tmp_path, part):
    run("--output", tmp_path / "a", "--train", 3, "--held-out", 3, part, 0)
    left = {"--train": "held-out", "--held-out": "train"}[part]
    assert [p.name for p in (tmp_path / "a").iterdir()] == [left]


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine").touch()
    with pytest.raises(GeexError, match="is there already"):
        run("--output", tmp_path / "a", "--train", 3)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["mine"]


def test_a_run_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def broken(task, language, **settings):
        calls.append(language)
        if len(calls) == 9:
            raise KeyboardInterrupt
        return training_text(task, language)

    monkeypatch.setattr(corpus, "training_text", broken)
    with pytest.raises(KeyboardInterrupt):
        run("--output", tmp_path / "a", "--train", 5, "--languages", "python", "js")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--level", "7"], "no level 7"),
        (["--languages", "python", "haskel"], "haskel"),
        (["--train", "-1"], "negative"),
    ],
)
def test_mistakes_are_named(tmp_path, words, message):
    with pytest.raises(GeexError, match=message):
        run("--output", tmp_path / "a", *words)
    assert list(tmp_path.iterdir()) == []


def test_examples_can_be_left_out(tmp_path):
    for name, examples in (("with", True), ("without", False)):
        corpus.write_benchmark(tmp_path / name, 3, 6, 2, examples=examples)
    for language in LANGUAGES:
        whole = tasks.load(language, tmp_path / "with")
        bare = tasks.load(language, tmp_path / "without")
        for a, b in zip(whole, bare, strict=True):
            assert len(b["prompt"]) < len(a["prompt"])
            same = ("task_id", "declaration", "canonical_solution", "test", "example_test")
            assert [a[k] for k in same] == [b[k] for k in same]
    task = next(mixture(3, 1, 2))
    assert ">>>" in corpus.training_text(task, "python")
    assert ">>>" not in corpus.training_text(task, "python", examples=False)
