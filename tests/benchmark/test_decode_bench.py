"""The benches of decoding: mistakes, our sides at a tiny shape, peers where they are, reports."""

import importlib.util
import json
import sys

import pytest

from geex_jax import cli
from geex_jax.benchmark import decode_bench, decode_gpu, prefill_bench

THEIRS = "transformers float32"
TINY = "--preset geex-3m --rounds 1 --json"


def run(capsys, bench, flags):
    status = cli.main(["bench", bench, *flags.split()])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize(
    ("bench", "flags", "message"),
    [
        ("decode", "--tokens 0", "--tokens 0; give a number above 0"),
        ("decode", "--batch 1,x", "--batch 1,x; give numbers above 0"),
        ("decode", "--tokens 4096", "--tokens 4096 leave the context"),
        ("decode", "--formats int7", "unknown side 'int7'; did you mean int8?"),
        ("decode", "--preset llama-7b-like", "unknown model preset"),
        ("prefill", "--lengths 4096", "--lengths 4096 leave a context of 2048"),
        ("decode", "--gpu", "no GPU: JAX sees cpu"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, bench, flags, message):
    status, _, error = run(capsys, bench, flags)
    assert status == 2 and message in error and error.count("\n") == 1


def test_decode_and_prefill_at_a_tiny_shape(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GEEX_CACHE", str(tmp_path))  # no C++ kernels there
    there = all(map(importlib.util.find_spec, ("torch", "transformers")))
    peers = ["--peers", THEIRS if there else "", "--peer-python", sys.executable]
    flags = f"{TINY} --batch 2 --tokens 4 --formats float32,w8a8"
    status = cli.main(["bench", "decode", *flags.split(), *peers])
    out, error = capsys.readouterr()
    assert status == 0, error
    result = json.loads(out)
    row = result["batches"]["2"]
    assert set(row["median"]) == {"geex float32", "geex w8a8"} | ({THEIRS} if there else set())
    if there:
        assert row["same_tokens"][THEIRS] == 1.0  # one function, the same weights
        assert row["ratio"][THEIRS][THEIRS] == 1.0
    read = row["read"]["geex float32"] * row["median"]["geex float32"]
    positions = 1024 * 128
    assert read == pytest.approx(4 * (result["parameters"] - positions))
    assert result["bytes_per_second"] > 1e8 and not result["native"]
    text = decode_bench.report(result)
    assert "batch 2" in text and "geex build-kernels" in text
    flags = f"{TINY} --lengths 20 --formats float32"
    status = cli.main(["bench", "prefill", *flags.split(), "--peers", ""])
    out, error = capsys.readouterr()
    assert status == 0, error
    result = json.loads(out)
    assert all(x > 0 for x in result["lengths"]["20"]["median"].values())
    assert "prompt of 20" in prefill_bench.report(result)


def test_the_gpu_table_at_a_tiny_shape(capsys):
    flags = "--gpu --quick --lengths 8 --rounds 1 --json"
    status, out, error = run(capsys, "decode", flags)
    assert status == 0, error
    result = json.loads(out)
    for name, row in result["formats"].items():
        assert row["throughput"]["tokens_per_second"] > 0
        for length, cell in row["lengths"].items():
            assert cell["ms_per_token"] == pytest.approx(cell["seconds"] * 1e3 / int(length))
            assert 0 < cell["share"] < 2, name
    assert result["formats"]["int8"]["weights"] < result["formats"]["bfloat16"]["weights"]
    result["peer"] = {"version": "transformers 5", "ms_per_token": 100.0, "peak_bytes": 0}
    assert "x in int8" in decode_gpu.report(result)
