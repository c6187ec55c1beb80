"""Guessing changes no token and no distribution, only the number of passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams
from geex_jax.inference.sampling import make_sampling, row_keys, sample
from geex_jax.inference.speculative import agreeing, lookup, promising
from geex_jax.models import Transformer
from tests.inference.helpers import ByteTokenizer, small_model

TOKENIZER = ByteTokenizer()
SIZES = {"slots": 2, "batches": (2,), "windows": (96,), "prefill_chunk": 32,
         "prefix_cache_bytes": 0}  # fmt: skip
COPY = list(b"def add(a, b):\n    return a + b\n\ndef add(a, b):\n    ret")


@pytest.fixture(scope="module")
def small():
    return small_model()


@pytest.fixture(scope="module")
def plain(small):
    return Engine(*small, TOKENIZER, EngineConfig(**SIZES))


@pytest.fixture(scope="module")
def guessing(small):
    return Engine(*small, TOKENIZER, EngineConfig(**SIZES, speculate=3, speculate_ngram=2))


def draw(engine, *requests):
    tickets = [engine.submit(r) for r in requests]
    while engine.turn():
        pass
    return [t.result(0)[0].tokens for t in tickets]


def requests(**params):
    common = {"max_new_tokens": 24, "ignore_eos": True}
    prompts = (COPY, [9, 9, 9, 9], list(range(1, 50)))
    return [Request(tuple(p), SamplingParams(**common, **params)) for p in prompts]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0.7, "top_p": 0.9, "seed": 3},
        {"frequency_penalty": -3.0, "repetition_penalty": 0.9, "temperature": 0.5, "seed": 1},
    ],
    ids=["greedy", "sampled", "penalties"],
)
def test_guesses_from_the_text_change_no_token(plain, guessing, params):
    before = guessing.stats()
    assert draw(guessing, *requests(**params)) == draw(plain, *requests(**params))
    after = guessing.stats()
    assert after["draft_proposed"] > before["draft_proposed"]
    assert plain.stats()["draft_proposed"] == 0
    if params.get("frequency_penalty"):  # so set that tokens come again
        assert after["draft_accepted"] - before["draft_accepted"] > 10
        # Fewer passes than tokens: what guessing is for.
        steps = after["decode_steps"] - before["decode_steps"]
        assert steps < 0.8 * (after["drawn_tokens"] - before["drawn_tokens"])


@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "seed": 5}], ids=["greedy", "sampled"])
def test_guesses_of_a_draft_model_change_no_token(small, plain, params):
    # The same shape with slightly other weights: often right, not always.
    model, weights = small
    noise = jax.tree.map(lambda x: x * 1.02 if x.ndim > 1 else x, weights)
    engine = Engine(
        model, weights, TOKENIZER, EngineConfig(**SIZES, speculate=2), draft=(model, noise)
    )
    assert draw(engine, *requests(**params)) == draw(plain, *requests(**params))
    stats = engine.stats()
    assert 0.3 * stats["draft_proposed"] < stats["draft_accepted"] < stats["draft_proposed"]


def test_a_draft_model_that_does_not_fit_is_refused(small):
    for changes, settings, message in [
        ({"vocab_size": 512}, {"speculate": 3}, "same tokenizer"),
        ({"context_length": 48}, {"speculate": 3}, "context is 48"),
        ({}, {}, "speculate = 0"),
    ]:
        draft = (Transformer(small[0].config.replace(**changes)), None)
        with pytest.raises(GeexError, match=message):
            Engine(*small, TOKENIZER, EngineConfig(**SIZES, **settings), draft=draft)


def test_the_distribution_is_the_models_whatever_is_guessed():
    """Chi-square over 8 tokens: first and second token of many checks of one bad guess."""
    count, vocab = 20_000, 8
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, vocab)) * 1.5, jnp.float32)
    probs = np.asarray(jax.nn.softmax(logits, axis=-1))
    keys = jax.vmap(lambda k: jax.vmap(lambda n: jax.random.fold_in(k, n))(jnp.arange(3)))(
        row_keys(1, jnp.arange(count))
    )
    sampling = make_sampling(count, vocab, 1.0)
    found = jnp.stack(
        [sample(keys[:, t], jnp.broadcast_to(logits[t], (count, vocab)), sampling)
         for t in range(3)], axis=1,
    )  # fmt: skip
    likely = int(probs[0].argmax())
    guessed = jnp.broadcast_to(jnp.array([likely, 2], jnp.int32), (count, 2))
    accepted = np.asarray(agreeing(guessed, found, jnp.full((count,), 2)))
    # A guess x is accepted with probability p(x), as rejection sampling has it.
    assert (accepted >= 1).mean() == pytest.approx(probs[0][likely], abs=0.015)
    assert (accepted == 2).mean() == pytest.approx(probs[0][likely] * probs[1][2], abs=0.015)
    emitted = np.asarray(found)
    for rows, position in ((emitted[:, 0], 0), (emitted[accepted >= 1, 1], 1)):
        seen = np.bincount(rows, minlength=vocab)
        wanted = probs[position] * len(rows)
        assert ((seen - wanted) ** 2 / wanted).sum() < 24.3  # 7 degrees of freedom, p = 0.001
    rejected = emitted[accepted == 0, 0]
    assert likely not in rejected


def test_lookup_finds_the_last_place_that_ended_alike():
    text = [1, 2, 3, 4, 5, 1, 2, 9, 8, 7, 1, 2]
    history = jnp.array([text + [0] * 4, [5] * 12 + [0] * 4, list(range(12)) + [0] * 4])
    guessed, known = lookup(history, jnp.array([12, 12, 12]), 2, 3)
    assert guessed[0].tolist() == [9, 8, 7] and known.tolist()[0] == 3
    assert guessed[1].tolist() == [5, 5, 5] and known.tolist()[1:] == [3, 0]
    short, known = lookup(history.at[0].set(7), jnp.array([3, 2, 12]), 2, 3)
    assert known.tolist() == [1, 0, 0] and short[0, 0] == 7
    # The host asks the same question before it calls.
    for row, wanted in ((text, 1), ([5] * 12, 1), (list(range(12)), 0), ([7, 7], 0), ([7] * 3, 1)):
        assert promising(row, 2) == bool(wanted)
