"""Kept sets and probabilities against the official sampler; draws; refusals."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.errors import GeexError
from geex_jax.inference import make_sampling, process_logits, sample
from geex_jax.inference.sampling import row_keys

NORMAL = np.random.default_rng(0).normal(size=(1, 64)).astype(np.float32) * 3


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "fixtures" / "sampling"
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
    return dict(np.load(folder / "logits.npz")), cases


def test_kept_sets_and_probabilities_are_the_official_ones(reference):
    rows, cases = reference
    compared = 0
    # All cases of one width go through one call: every setting is a value per row.
    for width in {row.shape[0] for row in rows.values()}:
        group = [c for c in cases if rows[c["logits"]].shape[0] == width]
        logits = jnp.stack([rows[c["logits"]] for c in group])
        settings = [[c[k] for c in group] for k in ("temperature", "top_k", "top_p")]
        kept = np.asarray(process_logits(logits, *settings))
        probs = np.asarray(jax.nn.softmax(kept, axis=1))
        for case, row, prob in zip(group, kept, probs, strict=True):
            got = np.flatnonzero(np.isfinite(row))
            if case["ambiguous"]:
                if "tie across" in case["ambiguous"]:
                    assert len(got) == case["n_kept"]
                continue
            compared += 1
            np.testing.assert_array_equal(got, case["kept"], err_msg=str(case)[:200])
            if "probs" in case:
                np.testing.assert_allclose(prob[case["kept"]], case["probs"], atol=1e-5)
    assert compared == sum(not c["ambiguous"] for c in cases) > 0


def test_ties_at_rank_k_all_stay_and_the_crossing_token_stays():
    ties = jnp.array([[3.0, 2.0, 2.0, 2.0, 1.0]])
    assert np.isfinite(process_logits(ties, top_k=2)).tolist() == [[True] * 4 + [False]]
    halves = jnp.log(jnp.array([[0.5, 0.3, 0.2]]))
    assert np.isfinite(process_logits(halves, top_p=0.4)).sum() == 1
    assert np.isfinite(process_logits(halves, top_p=0.7)).sum() == 2
    assert np.isfinite(process_logits(halves, top_p=0.85)).sum() == 3
    assert np.isfinite(process_logits(halves, top_p=0.0)).sum() == 3


def test_temperature_zero_keeps_the_first_most_likely_token():
    kept = process_logits(jnp.array([[1.0, 4.0, 4.0], [2.0, 0.0, 1.0]]), temperature=0, top_k=3)
    assert np.isfinite(kept).tolist() == [[False, True, False], [True, False, False]]


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.125, 8, width=32),
    st.integers(0, 64),
    st.floats(0, 1, width=32),
    st.integers(0, 2**31 - 1),
)
def test_draws_come_from_the_kept_set_and_repeat(temperature, top_k, top_p, seed):
    kept = np.isfinite(np.asarray(process_logits(NORMAL, temperature, top_k, top_p)))[0]
    assert kept[NORMAL.argmax()]
    if top_k:
        assert kept.sum() <= top_k
    keys = row_keys(seed, jnp.arange(8))
    logits = jnp.repeat(jnp.asarray(NORMAL), 8, axis=0)
    sampling = make_sampling(8, 64, temperature, top_k, top_p)
    drawn = np.asarray(sample(keys, logits, sampling))
    assert kept[drawn].all()
    np.testing.assert_array_equal(drawn, sample(keys, logits, sampling))


def test_frequencies_follow_the_processed_distribution():
    logits = jnp.asarray(NORMAL[:, :8])
    count = 20_000
    probs = np.asarray(jax.nn.softmax(process_logits(logits, 1.5, 5, 0.95), axis=1))[0]
    sampling = make_sampling(count, 8, 1.5, 5, 0.95)
    keys = row_keys(7, jnp.arange(count))
    drawn = np.asarray(sample(keys, jnp.repeat(logits, count, axis=0), sampling))
    found = np.bincount(drawn, minlength=8) / count
    np.testing.assert_allclose(found, probs, atol=4 * 0.5 / count**0.5)


def test_a_row_draws_the_same_beside_any_other_row():
    logits = jnp.repeat(jnp.asarray(NORMAL), 4, axis=0)
    together = sample(row_keys(3, jnp.arange(4)), logits, make_sampling(4, 64, 1.0))
    alone = sample(row_keys(3, jnp.array([2])), logits[:1], make_sampling(1, 64, 1.0))
    assert together[2] == alone[0]
    assert len(set(np.asarray(together).tolist())) > 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"top_k": 65}, "give 0 .off. to 64"),
        ({"top_k": -1}, "top_k = -1"),
        ({"temperature": -0.5}, "temperature = -0.5"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"top_p": [0.1, 0.2]}, "top_p has 2 values for 1 prompts"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(GeexError, match=message):
        process_logits(jnp.asarray(NORMAL), **setting)
