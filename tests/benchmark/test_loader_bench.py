"""The loader's bench on a few rows: it runs, and its figures are of what it says."""

import json

from geex_jax import cli
from geex_jax.benchmark import loader_bench
from geex_jax.data import load_manifest, read_rows


def test_the_bench_prints_its_figures(capsys):
    words = ["--rows", "40", "--seq-len", "128", "--batch-size", "4", "--epochs", "1"]
    assert not cli.main(["bench", "loader", *words, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["seq_len"] == 128 and result["batch_size"] == 4 and result["rows"] >= 40
    for name in ("calling thread", "prefetching"):
        part = result[name]
        assert part["megatokens_per_cpu_second"] > 0 and part["megabytes_last"] > 0
    assert "Mtokens per CPU second" in "\n".join(loader_bench.lines(result))


def test_made_up_data_are_rows_of_five_languages(tmp_path):
    folder = loader_bench.make_data(tmp_path / "data", 128, 60)
    amounts = load_manifest(folder).splits["train"]
    assert len(amounts) == 5
    for name, amount in amounts.items():
        rows = list(read_rows(folder, "train", name))
        assert len(rows) == amount.rows and sum(r.used for r in rows) == amount.tokens
