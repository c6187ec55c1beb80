"""`geex bench data` on a small tree, with its processes, its kill and its comparison."""

import json
import pathlib

import pytest

from geex_jax.benchmark import data_bench
from geex_jax.cli import main
from tests.data.helpers import make_tree


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A small tree of sources."""
    return make_tree(tmp_path_factory.mktemp("bench") / "src", {".py": 80, ".go": 40})


@pytest.fixture(scope="module")
def tokenizer_folder(bench):
    folder = bench.parent / "vocabulary"
    main(["tokenizer", "train", "--input", str(bench), "--output", str(folder),
          "--vocab-size", "400"])  # fmt: skip
    return folder


def test_copies_are_spread_over_the_input_and_bounded(bench, tmp_path):
    whole, texts = data_bench.copy_input([str(bench)], tmp_path / "all", 1000)
    assert whole == sum(p.stat().st_size for p in (tmp_path / "all").rglob("*") if p.is_file())
    half, some = data_bench.copy_input([str(bench)], tmp_path / "half", whole / 2e6)
    assert 0.3 * whole < half < 0.7 * whole
    assert 0.3 * len(texts) < len(some) < 0.7 * len(texts)


def test_a_digest_sees_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    first = data_bench.digest(tmp_path)
    (tmp_path / "a").write_text("2")
    second = data_bench.digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert len({first, second, data_bench.digest(tmp_path)}) == 3


def test_the_command_measures_and_compares_bytes(bench, tmp_path, capsys, tokenizer_folder):
    code = main(
        ["bench", "data", "--tokenizer", str(tokenizer_folder), "--input", str(bench),
         "--rounds", "1", "--seq-len", "128", "--skip", "signatures", "--json"]
    )  # fmt: skip
    result = json.loads(capsys.readouterr().out)
    assert not code
    assert result["bytes"]["equal"]
    pipe = result["pipeline"]
    assert pipe["tokens"] > 0 and pipe["megabytes_per_cpu_second"] > 0
    assert sum(pipe["shares"].values()) == pytest.approx(1)
    stages = {"read", "decode", "language", "filters", "licences", "secrets", "contamination"}
    assert {*stages, "tokenize", "pack", "store", "other"} == set(pipe["shares"])
    assert "CodeGeeX" in result["tokenization"]["skipped"]
    text = "\n".join(data_bench.lines(result))
    assert f"slowest: {pipe['slowest']}" in text and "the same bytes" in text


def test_other_bytes_are_an_error(monkeypatch, capsys):
    result = {"files": 1, "megabytes": 1.0, "seq_len": 1, "cores": 1,
              "bytes": {"equal": False, "killed": True, "sha256": "0" * 64}}  # fmt: skip
    monkeypatch.setattr(data_bench, "measure", lambda args, folder: result)
    assert main(["bench", "data", "--tokenizer", "x"]) == 1
    assert "OTHER BYTES" in capsys.readouterr().out
    assert pathlib.Path("x").exists() is False
