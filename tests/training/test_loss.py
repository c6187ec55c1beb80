"""Loss and gradients against the official code, and the chunked loss against the plain one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.checkpoints import codegeex
from geex_jax.checkpoints.families.codegeex import FAMILY
from geex_jax.models import ModelConfig, Transformer
from geex_jax.training.loss import cross_entropy, loss_fn
from tests.models.running import init


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "fixtures" / "codegeex"
    config, params = codegeex.load(folder / "codegeex_tiny.pt", num_heads=4)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return folder, Transformer(config), params, np.load(folder / "loss.npz")


def batch_of(rows: np.ndarray, mask: np.ndarray) -> dict:
    tokens = rows[:, :-1]
    return {
        "tokens": tokens.astype(np.int32),
        "targets": rows[:, 1:].astype(np.int32),
        "positions": np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape),
        "segment_ids": np.ones_like(tokens, np.int32),
        "loss_mask": mask.astype(np.float32),
    }


def test_official_losses(reference):
    _, model, params, data = reference
    rows, eod = data["tokens_e"], data["eod_id"]
    masks = {
        "loss_pretrain_e": np.ones_like(rows[:, 1:]),
        "loss_pretrain_eod_masked_e": rows[:, :-1] != eod,
        "loss_finetune_e": data["labels_e"][:, 1:] >= 0,
    }
    for name, mask in masks.items():
        loss, aux = loss_fn(params, batch_of(rows, mask), model)
        np.testing.assert_allclose(loss, data[name], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(aux["nll"], data["token_nll_e"], atol=2e-4)


def test_official_gradients(reference):
    folder, model, params, data = reference
    batch = batch_of(data["tokens_e"], data["labels_e"][:, 1:] >= 0)
    grads = jax.grad(lambda p: loss_fn(p, batch, model, chunk=16)[0])(params)
    norms = json.loads((folder / "grad_norms.json").read_text())["per_tensor_l2"]
    checked = 0
    for name, norm in norms.items():
        ours = pick(grads, model.config, name.removeprefix("language_model."))
        np.testing.assert_allclose(np.linalg.norm(ours), norm, rtol=1e-4, atol=1e-6, err_msg=name)
        checked += 1
    assert checked == len(jax.tree.leaves(params)) - 16 + 16 * model.config.num_layers
    for key in data.files:
        if key.startswith("grad:"):
            theirs = data[key]
            ours = pick(grads, model.config, key.removeprefix("grad:language_model."))
            np.testing.assert_allclose(
                ours, theirs, atol=1e-4 * np.linalg.norm(theirs) + 1e-7, err_msg=key
            )


def pick(grads: dict, config: ModelConfig, name: str) -> np.ndarray:
    """The gradient of an official tensor, in its orientation."""
    binding = FAMILY.bind(config)[name.split(".", 1)[1]]
    ((path, _),) = binding.parts
    value = grads
    for part in path.split("/"):
        value = value[part]
    value = value if binding.layer is None else value[binding.layer]
    return binding.outward({path: np.asarray(value)})


@pytest.mark.parametrize("chunk", [1, 5, 7, 16])
def test_chunked_equals_plain_in_value_and_gradients(chunk):
    keys = jax.random.split(jax.random.key(0), 5)
    hidden = jax.random.normal(keys[0], (2, 7, 8))
    table, bias = jax.random.normal(keys[1], (11, 8)), jax.random.normal(keys[2], (11,))
    targets = jax.random.randint(keys[3], (2, 7), 0, 11)
    weights = jax.random.uniform(keys[4], (2, 7))

    def plain(hidden, table, bias):
        logp = jax.nn.log_softmax(hidden @ table.T + bias)
        return -jnp.sum(weights * jnp.take_along_axis(logp, targets[..., None], -1)[..., 0])

    def chunked(hidden, table, bias):
        return 3.0 * cross_entropy(hidden, table, bias, targets, weights, chunk)[0] / 3.0

    expected = jax.value_and_grad(plain, (0, 1, 2))(hidden, table, bias)
    got = jax.value_and_grad(chunked, (0, 1, 2))(hidden, table, bias)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), got, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_the_bias_of_a_head_counts(tied):
    config = ModelConfig(
        vocab_size=40, context_length=8, d_model=16, num_layers=1, num_heads=2, d_ff=32,
        tied_head=tied, head_bias=True,
    )  # fmt: skip
    model = Transformer(config)
    rows = np.random.default_rng(0).integers(0, 40, (2, 9))
    batch = batch_of(rows, np.ones((2, 8)))
    params = init(model, batch["tokens"])
    params["head"]["bias"] = jax.random.normal(jax.random.key(1), (40,))

    def plain(params):
        log_probs = jax.nn.log_softmax(model.apply({"params": params}, batch["tokens"]))
        return -jnp.mean(jnp.take_along_axis(log_probs, batch["targets"][..., None], -1))

    expected = jax.jit(jax.value_and_grad(plain))(params)
    got = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, batch, model, chunk=3)[0]))(params)
    assert np.abs(expected[1]["head"]["bias"]).max() > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_no_array_of_batch_by_length_by_vocabulary_exists(tied):
    config = ModelConfig(
        vocab_size=3001, context_length=64, d_model=16, num_layers=1, num_heads=2, d_ff=32,
        tied_head=tied, head_bias=not tied,
    )  # fmt: skip
    model = Transformer(config)
    batch = batch_of(np.zeros((2, 65), np.int32), np.ones((2, 64)))
    params = jax.eval_shape(model.init, jax.random.key(0), batch["tokens"])["params"]
    run = jax.jit(jax.value_and_grad(lambda p: loss_fn(p, batch, model, chunk=16)[0]))
    text = run.lower(params).as_text()
    assert "2x16x3001" in text
    assert "2x64x3001" not in text
    plain = jax.jit(lambda p: model.apply({"params": p}, batch["tokens"]))
    assert "2x64x3001" in plain.lower(params).as_text()
