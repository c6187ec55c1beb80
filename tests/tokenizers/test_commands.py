"""`geex tokenizer` and `geex bench tokenizer`."""

import argparse
import builtins
import json

import pytest

from geex_jax import cli, tokenizers
from geex_jax.benchmark import tokenizer_bench
from geex_jax.errors import GeexError


@pytest.fixture
def code(tmp_path, sources):
    (tmp_path / "code").mkdir()
    for number, text in enumerate(sources[:12]):
        (tmp_path / "code" / f"{number}.py").write_text(text, newline="")
    return tmp_path / "code"


def test_train_then_show(tmp_path, code, capsys):
    out = tmp_path / "vocabulary"
    argv = ["tokenizer", "train", "--input", str(code), "--output", str(out)]
    assert cli.main([*argv, "--vocab-size", "512"]) == 0
    assert "bytes per token" in capsys.readouterr().out
    tokenizer = tokenizers.load(out)
    assert tokenizer.vocab_size == 512
    assert cli.main(["tokenizer", "show", "--tokenizer", str(out), "def f():\n    é"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ids = [int(line.split()[0]) for line in lines[:-1]]
    assert tokenizer.decode(ids) == "def f():\n    é"
    assert any("'\\n    '" in line for line in lines)
    assert lines[-1].startswith(f"{len(ids)} tokens, 15 bytes")


def test_show_reads_a_file_and_takes_control_strings_on_demand(tmp_path, codegeex, capsys):
    codegeex.save(tmp_path / "t")
    (tmp_path / "x.py").write_text("<|endoftext|>")
    argv = ["tokenizer", "show", "--tokenizer", str(tmp_path / "t"), str(tmp_path / "x.py")]
    assert cli.main([*argv, "--special"]) == 0
    assert "1 tokens" in capsys.readouterr().out
    assert cli.main(argv) == 0
    assert " 1 tokens" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv",
    [
        ["train", "--input", "absent-folder", "--output", "x"],
        ["train", "--input", "CODE", "--output", "x", "--vocab-size", "10"],
        ["train", "--input", "CODE", "--output", "x", "--vocab-size", "900000"],
        ["train", "--input", "CODE", "--output", "x", "--max-megabytes", "0"],
        ["train", "--input", "CODE", "--output", "x", "--vocabsize", "10"],
        ["show", "--tokenizer", "absent-folder", "text"],
        ["show"],
        [],
    ],
)
def test_mistakes_are_one_line_and_status_2(argv, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [str(code) if word == "CODE" else word for word in argv]
    assert cli.main(["tokenizer", *argv]) == 2
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("geex: error: ")]
    assert len(errors) == 1


def test_help_has_an_example(capsys):
    for argv in (["tokenizer", "--help"], ["tokenizer", "train", "--help"]):
        with pytest.raises(SystemExit) as done:
            cli.main(argv)
        assert done.value.code == 0
        assert "example:" in capsys.readouterr().out


def _bench(argv):
    parser = argparse.ArgumentParser()
    tokenizer_bench.add_arguments(parser)
    return tokenizer_bench.run(parser.parse_args(argv))


def test_bench_of_a_vocabulary_without_official_path(tmp_path, sentencepiece, code, capsys):
    sentencepiece.save(tmp_path / "t")
    _bench(["--tokenizer", str(tmp_path / "t"), "--input", str(code), "--rounds", "1", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert set(result["speeds"]) == {"ours, one by one", "ours, batch"}
    assert result["tokens"] > 0 and "ratio_batch" not in result


def test_bench_compares_ids_with_the_official_path(shared, code, capsys):
    pytest.importorskip("transformers")
    spec = str(shared / "codegeex-tokenizer")
    _bench(["--tokenizer", spec, "--input", str(code), "--rounds", "1", "--max-megabytes", "0.2"])
    out = capsys.readouterr().out
    assert "ids equal" in out and "times the official path" in out


def test_bench_refuses_ids_that_differ(codegeex, monkeypatch):
    wrong = (lambda texts: [[0] for _ in texts],) * 2
    monkeypatch.setattr(tokenizer_bench, "official_path", lambda tokenizer: wrong)
    with pytest.raises(GeexError, match="differ"):
        tokenizer_bench.measure(codegeex, ["int x"], 1)


def test_bench_without_transformers_says_what_to_install(codegeex, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "transformers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GeexError, match=r'pip install "geex-jax\[convert\]"'):
        tokenizer_bench.measure(codegeex, ["int x"], 1)
