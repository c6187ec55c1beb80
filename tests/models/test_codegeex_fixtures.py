"""The model against the official code: logits, hidden states, cache, greedy tokens."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.checkpoints import codegeex
from geex_jax.models import Transformer, init_cache, unstack_layers
from tests.models.running import apply

ATOL = 2e-4
pytestmark = pytest.mark.optimized  # as a user's process computes


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "fixtures" / "codegeex"
    about = json.loads((folder / "config.json").read_text())
    heads = about.get("num_attention_heads") or about["num_heads"]
    config, params = codegeex.load(folder / "codegeex_tiny.pt", num_heads=heads)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return folder, Transformer(config), params


def test_logits_of_full_context_short_rows_and_one_token(reference):
    folder, model, params = reference
    data = np.load(folder / "forward.npz")
    for case in "abc":
        logits = apply(model, params, jnp.asarray(data[f"tokens_{case}"], jnp.int32))
        np.testing.assert_allclose(logits, data[f"logits_{case}"], atol=ATOL, rtol=0)


def test_unstacked_layers_give_the_same_logits(reference):
    folder, model, params = reference
    data = np.load(folder / "forward.npz")
    loose = Transformer(model.config.replace(scan_layers=False))
    logits = apply(loose, unstack_layers(params), jnp.asarray(data["tokens_b"]))
    np.testing.assert_allclose(logits, data["logits_b"], atol=ATOL, rtol=0)


def test_hidden_states_after_every_part(reference):
    folder, model, params = reference
    data = np.load(folder / "forward.npz")
    tokens = jnp.asarray(data["tokens_b"])
    hidden, state = apply(model, params, tokens, method="hidden", mutable=("intermediates",))
    got = state["intermediates"]
    np.testing.assert_allclose(hidden, data["hidden_b_top"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(got["embedded"][0], data["hidden_b_emb"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(got["normed"][0], data["hidden_b_final_layernorm"], atol=ATOL)
    layers, top = got["layers"], got["top_query"]["layer"]
    for i in range(model.config.num_layers):
        np.testing.assert_allclose(layers["residual"][0][i], data[f"hidden_b_layer{i}"], atol=ATOL)
    for part, ours in (("attn_out", "attention_out"), ("mlp_out", "mlp_out")):
        np.testing.assert_allclose(layers[ours][0][0], data[f"hidden_b_layer0_{part}"], atol=ATOL)
    np.testing.assert_allclose(top["attention_out"][0], data["hidden_b_top_attn_out"], atol=ATOL)
    probs = layers["attention"]["probs"][0][0], top["attention"]["probs"][0]
    for got_probs, name in zip(probs, ("layer0", "top"), strict=True):
        np.testing.assert_allclose(got_probs, data[f"hidden_b_{name}_attn_probs"], atol=ATOL)


def test_packed_documents_do_not_see_each_other(reference):
    folder, model, params = reference
    data = np.load(folder / "forward.npz")
    tokens = data["tokens_d"]
    # The end-of-document token belongs to the document before it.
    ends = tokens == data["eod_id_d"]
    segments = 1 + np.cumsum(np.pad(ends, ((0, 0), (1, 0)))[:, :-1], axis=1)
    logits = apply(model, params, jnp.asarray(tokens), segment_ids=jnp.asarray(segments))
    np.testing.assert_allclose(logits, data["logits_d_packed"], atol=ATOL, rtol=0)


def test_cache_prefill_then_one_token_at_a_time(reference):
    folder, model, params = reference
    data, forward = np.load(folder / "cache.npz"), np.load(folder / "forward.npz")
    tokens, prefill = jnp.asarray(forward["tokens_b"]), int(data["prefill_len"])
    cache = init_cache(model.config, tokens.shape[0], tokens.shape[1])
    logits, cache = apply(model, params, tokens[:, :prefill], kv_cache=cache)
    rows = [logits]
    for i in range(prefill, tokens.shape[1]):
        logits, cache = apply(model, params, tokens[:, i : i + 1], kv_cache=cache)
        rows.append(logits)
    got = np.concatenate(rows, axis=1)
    np.testing.assert_allclose(got, data["logits_incremental"], atol=ATOL, rtol=0)
    np.testing.assert_allclose(got, forward["logits_b"], atol=ATOL, rtol=0)


def test_cached_keys_and_values_are_the_official_ones(reference):
    folder, model, params = reference
    data, forward = np.load(folder / "cache.npz"), np.load(folder / "forward.npz")
    tokens, config = jnp.asarray(forward["tokens_b"]), model.config
    full = init_cache(config, *tokens.shape)
    _, cache = apply(model, params, tokens, kv_cache=full)
    prefill, heads = int(data["prefill_len"]), (config.num_heads, config.head_width)
    for ours, theirs in ((cache.key, "key"), (cache.value, "value")):
        # Ours [blocks, B, S, heads * width]; the official layout is [S, B, heads, width].
        layered = np.asarray(ours).reshape(*ours.shape[:3], *heads).transpose(0, 2, 1, 3, 4)
        np.testing.assert_allclose(
            layered[0, :prefill], data[f"{theirs}_layer0_prefill"], atol=ATOL
        )
        np.testing.assert_allclose(layered[-1, :prefill], data[f"{theirs}_top_prefill"], atol=ATOL)
        np.testing.assert_allclose(layered[-1], data[f"{theirs}_top_final"], atol=ATOL)


def test_rows_of_different_lengths_need_padding_on_the_right_only(reference):
    folder, model, params = reference
    tokens = jnp.asarray(np.load(folder / "forward.npz")["tokens_b"])
    lengths = jnp.array([5, 37, 20], jnp.int32)
    cache = init_cache(model.config, 3, 40)
    _, cache = apply(model, params, tokens, kv_cache=cache)
    cache = cache.replace(length=lengths)
    new = jnp.array([[7], [8], [9]], jnp.int32)
    logits, _ = apply(model, params, new, kv_cache=cache)
    for row, length in enumerate([5, 37, 20]):
        alone = jnp.concatenate([tokens[row, :length], new[row]])[None]
        expected = apply(model, params, alone)[0, -1]
        np.testing.assert_allclose(logits[row, 0], expected, atol=ATOL)
