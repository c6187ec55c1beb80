"""What a quantization costs: figures against plain NumPy, the report's files."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.models import ModelConfig, Transformer
from geex_jax.quantize import (
    compare,
    dequantize_params,
    evaluate,
    layer_errors,
    make_report,
    quantize_params,
    size_in_bytes,
    write_report,
)

CONFIG = ModelConfig(
    vocab_size=48, context_length=16, d_model=16, num_heads=2, num_layers=3, d_ff=32
)


@pytest.fixture(scope="module")
def trees():
    model = Transformer(CONFIG)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    params = jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, params)
    return model, params, quantize_params(params, 4)


@pytest.fixture(scope="module")
def batches():
    rng = np.random.default_rng(0)
    out = []
    for _ in range(2):
        row = rng.integers(0, 48, (3, 17)).astype(np.int32)
        segments = np.repeat([[1, 2]], 8, axis=1).repeat(3, axis=0).astype(np.int32)
        segments[2, 12:] = 0
        mask = (segments > 0).astype(np.float32)
        mask[:, 7] = 0
        out.append(
            {
                "tokens": row[:, :-1],
                "targets": row[:, 1:],
                "positions": np.tile(np.arange(8), (3, 2)).astype(np.int32),
                "segment_ids": segments,
                "loss_mask": mask,
                "language": np.zeros(3, np.int32),
            }
        )
    return out


def test_costs_are_those_of_whole_logits_in_float64(trees, batches, monkeypatch):
    monkeypatch.setattr(evaluate, "LOGITS_AT_ONCE", 48 * 7)  # 7 of 48 positions at once
    model, before, after = trees
    lengths = np.arange(48) % 5
    got = compare(model, before, after, batches, lengths)
    run = jax.jit(model.apply)
    nll, kl, same, tokens, size = np.zeros(2), 0.0, 0, 0, 0
    for batch in batches:
        mask = batch["loss_mask"] > 0
        logs = []
        for params in (before, after):
            inputs = (batch[k] for k in ("tokens", "positions", "segment_ids"))
            logits = np.asarray(run({"params": params}, *inputs), np.float64)
            logs.append((logits - np.log(np.exp(logits).sum(-1, keepdims=True)))[mask])
        targets = batch["targets"][mask]
        nll -= [x[np.arange(len(x)), targets].sum() for x in logs]
        kl += (np.exp(logs[0]) * (logs[0] - logs[1])).sum()
        same += (logs[0].argmax(-1) == logs[1].argmax(-1)).sum()
        tokens, size = tokens + len(targets), size + lengths[targets].sum()
    bits = nll / math.log(2) / size
    assert (got.tokens, got.text_bytes) == (tokens, size)
    np.testing.assert_allclose(
        [got.bits_per_byte_before, got.bits_per_byte_after, got.kl, got.top1_agreement],
        [*bits, kl / tokens, same / tokens],
        rtol=2e-5,
    )
    assert got.kl > 0 and got.bits_per_byte_change == pytest.approx(bits[1] - bits[0], abs=1e-4)


def test_a_tree_compared_with_itself_costs_nothing(trees, batches):
    model, params, _ = trees
    same = compare(model, params, params, batches, np.ones(48, np.int32))
    assert same.kl == 0 and same.top1_agreement == 1 and same.bits_per_byte_change == 0
    with pytest.raises(GeexError, match="no validation text"):
        compare(model, params, params, [], np.ones(48, np.int32))


def test_errors_of_every_linear_and_layer(trees):
    _, before, after = trees
    errors = layer_errors(before, after)
    assert len(errors) == 4 * 6
    plain = dequantize_params(after)
    exact = np.asarray(before["layers"]["mlp"]["up"]["kernel"], np.float64)[1]
    found = np.asarray(plain["layers"]["mlp"]["up"]["kernel"], np.float64)[1]
    expected = np.linalg.norm(exact - found) / np.linalg.norm(exact)
    assert errors["layers/1/mlp/up"] == pytest.approx(expected, rel=1e-5)
    assert 0.05 < errors["top_query/layer/attention/query"] < 0.15
    finer = layer_errors(before, quantize_params(before, 8))
    assert all(finer[name] < errors[name] / 10 for name in errors)


def test_the_report_says_what_was_measured_and_what_was_not(trees, batches, tmp_path):
    model, before, after = trees
    path = write_report(tmp_path, make_report(before, after, checkpoint="here", data=None))
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["validation"] == "no validation data given: pass --data"
    assert saved["bytes_before"] == size_in_bytes(before) > saved["bytes_after"]
    text = path.read_text()
    assert "no validation data given" in text and "bits per byte" not in text
    assert text.count("\n| ") == 1 + 4  # the head, and a row for each layer
    comparison = compare(model, before, after, batches, np.ones(48, np.int32))
    full = make_report(before, after, comparison)
    assert full["validation"]["kl"] == comparison.kl
    text = write_report(tmp_path, full).read_text()
    assert f"{comparison.bits_per_byte_after:.4f} after" in text
    with pytest.raises(GeexError, match="not quantized"):
        make_report(before, before)
