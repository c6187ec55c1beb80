"""`geex quantize`: a calibrated checkpoint, and the page that compares formats, by the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.benchmark import embedded, quantization
from geex_jax.benchmark.humaneval_x import sources, tasks
from geex_jax.cli import main
from geex_jax.data.calibration import prepared_rows, text_rows
from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import formats_of, layer_errors
from tests.items import prepare_items

CONFIG = ModelConfig(
    vocab_size=448, context_length=96, d_model=64, num_heads=2, num_layers=2, d_ff=64
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`model`, and `data` with sources of its kind."""
    top = tmp_path_factory.mktemp("compared")
    tokenizer = prepare_items(top, 30)
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = jax.jit(Transformer(CONFIG).init)(jax.random.key(0), tokens)["params"]
    params = jax.tree.map(lambda x: x * 5 if x.ndim > 1 else x, params)
    # Inputs of trained models are far from even; so are those behind norms with uneven gains.
    rng = np.random.default_rng(0)
    for norm in ("attention_norm", "mlp_norm"):
        params["layers"][norm]["scale"] *= rng.lognormal(0, 1, (2, 64))
    checkpoints.save_model(top / "model", CONFIG, params, tokenizer, {"data": str(top / "data")})
    return top


def test_rows_to_calibrate_on(folder):
    tokenizer = checkpoints.load_model(folder / "model").tokenizer
    assert tokenizer is not None
    rows = prepared_rows(folder / "data", 500)
    assert len({batch["tokens"].shape for batch in rows}) == 1 and len(rows) == 2
    assert sum((batch["segment_ids"] > 0).sum() for batch in rows) > 450
    text = text_rows([folder / "sources"], tokenizer, 96, 500)
    first = tokenizer.encode((folder / "sources" / "m0.py").read_text())
    assert text[0]["tokens"][0].tolist() == first[:96]
    assert text[0]["segment_ids"][0].all() and text[0]["positions"][3, 95] == 95
    with pytest.raises(GeexError, match="no file or folder"):
        text_rows([folder / "none"], tokenizer, 96, 500)


def test_a_checkpoint_calibrated_on_files(folder, capsys):
    command = ["quantize", str(folder / "model"), "--policy", "int4", "--calibrate", "gptq",
               "--text", str(folder / "sources"), "--calibration-tokens", "3000"]  # fmt: skip
    assert main([*command, "--output", str(folder / "gptq")]) == 0
    assert "calibrating: block 3 of 3" in capsys.readouterr().out
    assert main(["quantize", str(folder / "model"), "--policy", "int4",
                 "--output", str(folder / "plain")]) == 0  # fmt: skip
    reports = [json.loads((folder / n / "report.json").read_text()) for n in ("gptq", "plain")]
    costs = [report["validation"]["kl"] for report in reports]
    assert 0 < costs[0] < 0.8 * costs[1]
    before, after = (checkpoints.load_model(folder / n) for n in ("model", "gptq"))
    assert set(formats_of(after.params).values()) == {"int4", "float"}
    assert after.provenance["quantization"]["calibration"]["method"] == "gptq"
    errors = layer_errors(before.params, after.params)
    for path, error in reports[0]["relative_error"].items():
        assert error == pytest.approx(errors[path], rel=1e-3)


@pytest.fixture(scope="module")
def compared(folder):
    command = ["quantize", str(folder / "model"), "--report", "--output", str(folder / "report"),
               "--formats", "int8", "int4", "--calibrate", "gptq", "--calibration-tokens", "800",
               "--activations", "int8", "--kv-cache", "int8", "--sensitivity", "int4-g32",
               "--batches", "1"]  # fmt: skip
    status = main(command)
    return status, folder / "report"


def test_the_page_compares_formats(compared):
    status, folder = compared
    assert status == 0
    report = json.loads((folder / "report.json").read_text())
    rows = {row["name"]: row for row in report["rows"]}
    assert list(rows) == ["int8", "int8, W8A8", "int4", "int4, GPTQ", "float, int8 cache"]
    kl = {name: row["kl"] for name, row in rows.items()}
    assert 0 < kl["int8"] < kl["int8, W8A8"] < kl["int4"] and kl["int8"] < 0.3 * kl["int4"]
    assert 0 < kl["int4, GPTQ"] < kl["int4"] and 0 < kl["float, int8 cache"] < kl["int4"]
    assert rows["int4"]["bytes"] < rows["int8"]["bytes"] < report["float"]["bytes"]
    assert rows["float, int8 cache"]["bytes"] == report["float"]["bytes"]
    assert [row["name"] for row in report["layers"]] == ["layer 0", "layer 1", "top query layer"]
    kinds = {row["name"] for row in report["linears"]}
    assert kinds == {"query", "key", "value", "output", "up", "down"}
    assert all(0 < row["kl"] < 2 * kl["int4"] for row in report["layers"] + report["linears"])
    page = (folder / "report.html").read_text()
    assert "<svg" in page and "int4, GPTQ" in page and "layer 1" in page
    assert (folder / "quality.png").read_bytes()[:4] == b"\x89PNG"
    assert np.char.count((folder / "quality.svg").read_text(), "int8, W8A8") >= 1


def test_programs_of_a_format_are_run(folder, monkeypatch):
    embedded.write_benchmark(folder / "tasks", 0, 2, 1, ["python"])
    first, _ = tasks.load("python", folder / "tasks")

    def answer(self, prompts, settings):
        return [[first["canonical_solution"] if first["prompt"] in p else "    x\n"]
                for p in prompts]  # fmt: skip

    monkeypatch.setattr(sources.Checkpoint, "__call__", answer)
    loaded = checkpoints.load_model(folder / "model")
    wanted = quantization.Wanted(embedded=folder / "tasks", languages=("python",))
    found = quantization.Judge(loaded, wanted)(loaded.model, loaded.params, "float")
    assert found["value"] == 0.5 and found["low"] <= 0.5 <= found["high"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--formats", "int8"], "belongs to --report"),
        (["--policy", "int8", "--bits", "4"], "give one of them"),
        (["--text", "x"], "without --calibrate"),
        (["--report", "--policy", "int8"], "name them with --formats"),
        (["--report", "--formats", "int4-g128"], "groups of 128 do not divide"),
        (["--activations", "int8"], "belong to --report"),
        (["--calibrate", "gptq", "--rounding", "official"], "no official rounding"),
    ],
)
def test_flags_that_do_not_go_together(folder, capsys, flags, words):
    output = folder / "nothing"
    assert main(["quantize", str(folder / "model"), "--output", str(output), *flags]) == 2
    assert words in capsys.readouterr().err and not output.exists()
