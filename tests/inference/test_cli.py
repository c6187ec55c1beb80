"""`geex quantize` and `geex generate`, from a saved model to text on the terminal."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax import checkpoints
from geex_jax.cli import main
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import Quantization, quantization_of, quantize_params, size_in_bytes
from tests.inference.helpers import lively
from tests.items import prepare_items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`model`, whose provenance names `data`, and `bare`, which has none."""
    top = tmp_path_factory.mktemp("cli")
    tokenizer = prepare_items(top, 40)
    config = ModelConfig(
        vocab_size=448, context_length=96, d_model=32, num_heads=2, num_layers=2, d_ff=64
    )
    tokens = jnp.zeros((1, 4), jnp.int32)
    params = lively(jax.jit(Transformer(config).init)(jax.random.key(0), tokens)["params"], 4.0)
    for name, provenance in (("model", {"data": str(top / "data"), "step": 7}), ("bare", {})):
        checkpoints.save_model(top / name, config, params, tokenizer, provenance)
    return top


@pytest.fixture(scope="module")
def small(folder):
    assert main(["quantize", str(folder / "model"), "--bits", "8"]) == 0
    return folder / "model-int8"


def test_quantize_writes_a_checkpoint_that_the_same_model_loads(folder, small):
    before, after = (checkpoints.load_model(p) for p in (folder / "model", small))
    assert after.model == before.model
    assert quantization_of(after.params) == Quantization(8, "clean")
    expected = quantize_params(before.params)
    jax.tree.map(np.testing.assert_array_equal, expected, after.params)
    assert after.params["layers"]["mlp"]["up"]["kernel_int8"].dtype == jnp.int8
    assert after.provenance["quantization"]["bits"] == 8 and after.provenance["step"] == 7
    report = json.loads((small / "report.json").read_text())
    assert report["bytes_before"] == size_in_bytes(before.params)
    assert report["bytes_after"] == size_in_bytes(after.params) < report["bytes_before"]
    found = report["validation"]  # on the data that the checkpoint names
    assert found["tokens"] > 100 and 0 < found["kl"] < 0.1
    assert abs(found["bits_per_byte_change"]) < 0.05 < found["bits_per_byte_before"]
    assert report["data"] == str(folder / "data")


def test_without_data_the_report_says_so(folder, capsys):
    output = folder / "bare-int4"
    command = ["quantize", str(folder / "bare"), "--bits", "4", "--rounding", "official"]
    assert main([*command, "--output", str(output)]) == 0
    assert "no validation data given: pass --data" in capsys.readouterr().out
    loaded = checkpoints.load_model(output)
    assert quantization_of(loaded.params) == Quantization(4, "official")
    assert main([*command, "--output", str(output)]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    command += ["--data", str(folder / "data"), "--output", str(output), "--overwrite"]
    assert main(command) == 0
    assert "KL(float || quantized)" in (output / "report.md").read_text()


def test_quantize_refuses_in_one_line(folder, small, capsys):
    for arguments, message in [
        ([str(folder / "none")], "no checkpoint folder"),
        ([str(small), "--output", str(folder / "twice")], "already int8"),
        ([str(folder / "model"), "--bits", "5", "--output", str(folder / "o")], "to 5 bits"),
        ([str(folder / "model"), "--rounding", "offical", "--output", "o"], "mean official"),
        ([str(folder / "model"), "--batches", "0"], "must be positive"),
    ]:
        assert main(["quantize", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_generate_streams_the_same_text_as_it_prints_at_the_end(folder, small, capsys):
    command = ["--prompt", "def item", "--language", "python", "--max-new-tokens", "16"]
    for checkpoint in (folder / "model", small):
        assert main(["generate", "--checkpoint", str(checkpoint), *command]) == 0
        live = capsys.readouterr()
        assert "16 tokens in" in live.err and "tokens/s" in live.err
        assert main(["generate", "--checkpoint", str(checkpoint), *command, "--no-stream"]) == 0
        assert capsys.readouterr().out == live.out
        assert main(["generate", "--checkpoint", str(checkpoint), *command, "--json"]) == 0
        parsed = json.loads(capsys.readouterr().out)
        assert parsed["text"] + "\n" == live.out
        assert parsed["num_tokens"] == 16 and parsed["finish"] == "length"


def test_generate_takes_files_standard_input_samples_and_stops(
    small, tmp_path, capsys, monkeypatch
):
    (tmp_path / "p.py").write_text("def item_1")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"return a")))
    command = ["generate", "--checkpoint", str(small), "--prompt", "x", "--max-new-tokens", "16"]
    command += ["--prompt-file", str(tmp_path / "p.py"), "--prompt-file", "-"]
    command += ["--num-samples", "2", "--temperature", "1.5", "--top-p", "0.9", "--seed", "3"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert first.count("=== prompt") == 6 and "=== prompt 3, sample 2" in first
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"return a")))
    assert main([*command, "--json", "--stop", "e"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [r["prompt"] for r in rows] == ["x", "x", "def item_1", "def item_1"] + ["return a"] * 2
    assert not any("e" in r["text"] for r in rows)


def test_generate_guesses_searches_and_tells_probabilities(small, capsys):
    base = ["generate", "--checkpoint", str(small), "--prompt", "def item", "--prompt", "return"]
    base += ["--max-new-tokens", "16", "--json"]

    def rows(*flags):
        assert main([*base, *flags]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    plain = rows()
    # Guessed or not: the same tokens.
    own = rows("--speculate", "3", "--draft", str(small), "--logprobs", "2")
    assert [r["tokens"] for r in own] == [r["tokens"] for r in plain]
    for row in own:
        assert [x["token"] for x in row["logprobs"]] == row["tokens"]
        assert all(x["top"][0][1] >= x["logprob"] and len(x["top"]) == 2 for x in row["logprobs"])
    drawn = rows(
        "--n", "2", "--temperature", "1.5", "--min-p", "0.1", "--repetition-penalty", "1.2"
    )
    assert len(drawn) == 4 and drawn[0]["tokens"] != drawn[1]["tokens"]
    beams = rows("--beams", "3", "--n", "2", "--length-penalty", "0.5")
    assert len(beams) == 4 and beams[0]["tokens"] != beams[1]["tokens"]


def test_generate_quantizes_while_loading(folder, small, monkeypatch):
    run = []
    monkeypatch.setattr("geex_jax.inference.generate", lambda *given, **_: run.append(given) or [])
    command = ["--prompt", "x", "--activations", "int8", "--kv-cache", "int8"]
    for checkpoint, flags in (("model", ["--policy", "int8"]), (small.name, [])):
        assert main(["generate", "--checkpoint", str(folder / checkpoint), *command, *flags]) == 0
    for model, params, *_ in run:
        assert (model.config.activations, model.config.kv_cache) == ("int8", "int8")
        assert params["layers"]["mlp"]["up"]["kernel_int8"].dtype == jnp.int8
    jax.tree.map(np.testing.assert_array_equal, run[0][1], run[1][1])


def test_generate_refuses_in_one_line(small, tmp_path, capsys):
    (tmp_path / "latin").write_bytes(b"\xe9")
    base = ["generate", "--checkpoint", str(small)]
    for arguments, message in [
        (base, "no prompt"),
        (["generate", "--checkpoint", str(tmp_path), "--prompt", "x"], "no config.json"),
        ([*base, "--prompt", "x", "--policy", "int3"], "unknown policy 'int3'"),
        ([*base, "--prompt", "x", "--policy", "int8"], "quantized already"),
        ([*base, "--prompt", "x", "--language", "pyhton"], "did you mean Python"),
        ([*base, "--prompt", "x", "--top-p", "2"], "top_p = 2.0"),
        ([*base, "--prompt", "item_ " * 200], "shorten it to 95"),
        ([*base, "--prompt-file", str(tmp_path / "none")], "cannot read"),
        ([*base, "--prompt-file", str(tmp_path / "latin")], "not UTF-8"),
        ([*base, "--promt", "x"], "did you mean --prompt"),
        ([*base, "--prompt", "x", "--suffix", "y"], "CodeGeeX has none"),
        ([*base, "--prompt", "x", "--logprobs", "2"], "add --json"),
        ([*base, "--prompt", "x", "--draft", str(small)], "add --speculate"),
        ([*base, "--prompt", "x", "--beams", "2", "--temperature", "1"], "leave it out"),
        ([*base, "--prompt", "x", "--length-penalty", "2"], "add --beams"),
        ([*base, "--prompt", "x", "--beams", "2", "--num-samples", "3"], "3 of 2 beams"),
    ]:
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
