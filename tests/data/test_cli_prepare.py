"""The verb, end to end, with a vocabulary trained on the same files."""

import json
import subprocess
import sys

import pytest

from geex_jax import tokenizers
from geex_jax.cli import main
from geex_jax.data import (
    PrepareConfig,
    load_manifest,
    make_loader,
    read_rows,
    read_sources,
    sample_texts,
)
from tests.data.helpers import digests, make_tree, write
from tests.data.test_megatron import write_pair


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp("in"), {".py": 30, ".java": 20, ".R": 6}, 3000)


@pytest.fixture(scope="module")
def vocabulary(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    texts = [text for _, text in sample_texts(tree, PrepareConfig(workers=1))]
    tokenizers.train_sentencepiece(texts, folder, 400)
    return folder


def test_prepare_with_a_real_vocabulary(tree, vocabulary, tmp_path, capsys, monkeypatch):
    flags = ["--seq-len", "128", "--tokenizer", str(vocabulary), "--validation-fraction", "0.1"]
    for name, workers in (("one", "1"), ("two", "2")):
        out = str(tmp_path / name)
        assert main(["prepare", "--input", str(tree), "--output", out, "--workers", workers,
                     *flags]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "bytes/token" in printed and "documents kept" in printed and "Java" in printed
    assert digests(tmp_path / "one") == digests(tmp_path / "two")

    manifest = load_manifest(tmp_path / "one")
    tokenizer = tokenizers.load(tmp_path / "one" / "tokenizer")
    assert tokenizer.fingerprint() == manifest.tokenizer.fingerprint
    java = manifest.languages[manifest.language_index("Java")]
    assert java.tag_tokens == len(tokenizer.encode("// language: Java"))
    row = next(read_rows(tmp_path / "one", "train", "Java"))
    config = PrepareConfig(validation_fraction=0.1, workers=1, languages=("java",))
    first = next(text for _, text in read_sources(tree, config, split="train"))
    head = tokenizer.decode(row.tokens[: row.used].tolist())
    assert ("// language: Java\n" + first).startswith(head[:300]) and len(head) > 300
    batch = next(make_loader(tmp_path / "one", batch_size=4))
    assert batch["tokens"].max() < tokenizer.vocab_size


def test_mistakes_leave_with_status_2_and_one_line(tree, vocabulary, tmp_path, capsys):
    flags = ["--output", str(tmp_path / "o"), "--tokenizer", str(vocabulary)]
    for arguments in (
        ["--input", "nowhere", *flags],
        ["--input", str(tree), "--languages", "pyhton", *flags],
        ["--input", str(tree), "--min-bytes", "99999", "--max-bytes", "9", *flags],
        ["--input", str(tree), "--min-alpha", "0.99", *flags],
        ["--input", str(tree), "--sequence-len", "8", *flags],
    ):
        assert main(["prepare", *arguments]) == 2
        error = capsys.readouterr().err.splitlines()
        assert error[-1].startswith("geex: error: ")
        assert not any("Traceback" in line for line in error)


def test_preparing_imports_neither_jax_nor_grain():
    code = (
        "import sys, geex_jax.data, geex_jax.cli.prepare;"
        "assert not {'jax', 'grain', 'torch', 'tensorflow'} & set(sys.modules), 'heavy import'"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_megatron_files_are_read_in_place_and_shown(tree, vocabulary, tmp_path, capsys):
    tokenizer = tokenizers.load(vocabulary)
    texts = [text for _, text in sample_texts(tree, PrepareConfig(workers=1))][:8]
    prefix = write_pair(tmp_path / "old", [[*tokenizer.encode(t), tokenizer.eos_id] for t in texts])
    out = str(tmp_path / "out")
    flags = ["prepare", "--megatron", prefix, "--output", out, "--tokenizer", str(vocabulary)]
    assert main([*flags, "--seed", "3"]) == 2
    assert "--seed does not go with --megatron" in capsys.readouterr().err
    assert main([*flags, "--seq-len", "64", "--languages", "Python"]) == 0
    assert "Python" in capsys.readouterr().out
    assert main(["data", "show", out, "--index", "0", "--color", "never"]) == 0
    assert texts[0].splitlines()[0] in capsys.readouterr().out
    assert main(["data", "report", out]) == 0
    assert (tmp_path / "out" / "report.html").is_file()


def test_examples_of_what_is_dropped_early_hold_no_text(tree, vocabulary, tmp_path, capsys):
    key = "AKIA" + "QRSTUVWX23456723"
    source = tmp_path / "in"
    write(source / "small.py", f"key = '{key}'\n")  # under the least size: no stage cleans it
    write(
        source / "large.py",
        "".join(f"# a line of words {i}\n" for i in range(99)) + f"k = '{key}'\n",
    )
    out = tmp_path / "out"
    assert main(["prepare", "--input", str(source), "--output", str(out), "--seq-len", "128",
                 "--tokenizer", str(vocabulary)]) == 0  # fmt: skip
    report = (out / "report.json").read_text()
    assert "too_small" in report and "small.py" in report
    for path in out.rglob("*"):
        if path.is_file():
            assert key.encode() not in path.read_bytes(), path


def test_instruction_rows_come_through_the_same_door(vocabulary, tmp_path, capsys):
    rows = "".join(
        json.dumps({"prompt": f"add {i} to x in words {i * 7}", "completion": f"x = x + {i}\n" * 9})
        + "\n"
        for i in range(40)
    )
    path = str(write(tmp_path / "rows.jsonl", rows))
    out = str(tmp_path / "out")
    flags = ["prepare", "--input", path, "--output", out, "--tokenizer", str(vocabulary),
             "--seq-len", "128", "--kind", "instructions", "--near-dup-threshold", "0"]  # fmt: skip
    assert main([*flags, "--source-option", "langage=Python"]) == 2
    assert "did you mean language?" in capsys.readouterr().err
    assert main([*flags, "--source-option", "language"]) == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err
    assert main([*flags, "--source-option", "language=Python"]) == 0
    batch = next(make_loader(out, batch_size=2))
    assert 0 < batch["loss_mask"].sum() < (batch["segment_ids"] > 0).sum() - 10  # not on prompts
