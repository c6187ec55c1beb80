"""Beam search against all continuations, and against what transformers finds."""

import dataclasses
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.errors import GeexError
from geex_jax.inference import beam_search, generate_tokens
from geex_jax.models import ModelConfig
from tests.inference import beam_peer
from tests.inference.helpers import small_model

VOCAB, EOS = 7, 6


@pytest.fixture(scope="module")
def tiny():
    return small_model(vocab_size=VOCAB, num_layers=1, context_length=32)


@pytest.fixture(scope="module")
def all_scores(tiny):
    """(log-probability, tokens) of every continuation of 3 tokens or up to eos, by prompt."""
    model, params = tiny
    run = jax.jit(lambda t: jax.nn.log_softmax(model.apply({"params": params}, t), axis=-1))

    def scores(prompt):
        middle = [t for t in range(VOCAB) if t != EOS]
        tails = [(EOS,), *((a, EOS) for a in middle)]
        tails += list(itertools.product(middle, middle, range(VOCAB)))
        rows = np.zeros((len(tails), 16), np.int32)
        for row, tail in zip(rows, tails, strict=True):
            row[: len(prompt) + len(tail)] = [*prompt, *tail]
        logs = np.asarray(run(jnp.asarray(rows)))
        at = len(prompt) - 1
        return [
            (sum(float(logs[i, at + j, t]) for j, t in enumerate(tail)), tail)
            for i, tail in enumerate(tails)
        ]

    return scores


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_with_enough_beams_the_best_of_all_are_found(tiny, all_scores, penalty):
    prompts = [[1, 2, 3], [4]]
    # 42 continuations of two tokens: none of them is ever dropped.
    found = beam_search(
        *tiny, prompts, beams=3, max_new_tokens=3, length_penalty=penalty, eos_id=EOS,
        num_return=3, early_stopping="never",
    )  # fmt: skip
    for prompt, beams in zip(prompts, found, strict=True):
        ranked = sorted(((s / len(t) ** penalty, t) for s, t in all_scores(prompt)), reverse=True)
        scores = [b.score for b in beams]
        assert scores == sorted(scores, reverse=True)
        by_tokens = {t: s for s, t in ranked}
        for beam in beams:  # each is scored as it should be
            whole = (*beam.tokens, EOS) if beam.finish == "eos" else tuple(beam.tokens)
            assert beam.score == pytest.approx(by_tokens[whole], abs=1e-3)
        assert beams[0].score == pytest.approx(ranked[0][0], abs=1e-3)


def test_one_beam_is_greedy_decoding(tiny):
    model, params = small_model()
    prompts = [[5, 6, 7], list(range(40, 61))]
    found = beam_search(model, params, prompts, beams=1, max_new_tokens=12)
    assert [b[0].tokens for b in found] == generate_tokens(
        model, params, prompts, max_new_tokens=12
    )
    assert found[0][0].finish == "length"


def test_mistakes_are_named(tiny):
    for settings, message in [
        ({"beams": 0}, "beams = 0"),
        ({"beams": 2, "num_return": 3}, "num_return = 3 of 2 beams"),
        ({"beams": 2, "early_stopping": "maybe"}, "early_stopping = 'maybe'"),
    ]:
        with pytest.raises(GeexError, match=message):
            beam_search(*tiny, [[1]], **settings)


class Table:
    """A stand-in for a decoder, as `beam_peer` has one for transformers."""

    config = ModelConfig(
        vocab_size=beam_peer.VOCAB, context_length=64, d_model=2, num_heads=1, num_layers=1, d_ff=2
    )

    def apply(self, variables, tokens, kv_cache=None, method=None):
        if method == "logits":
            return tokens
        steps = kv_cache.length[:, None] + jnp.arange(tokens.shape[1])
        cache = dataclasses.replace(kv_cache, length=kv_cache.length + tokens.shape[1])
        return variables["params"]["table"][steps % beam_peer.PLACES, tokens], cache


def test_beams_are_those_of_transformers():
    fixture = pathlib.Path(__file__).parent.parent / "fixtures" / "beam.json"
    model, table = Table(), {"table": jnp.asarray(beam_peer.table())}
    ends = set()
    for (early, penalty, prompt, count), rows in zip(
        beam_peer.cases(), json.loads(fixture.read_text()), strict=True
    ):
        found = beam_search(
            model, table, [prompt], beams=4, num_return=4, max_new_tokens=count,
            eos_id=beam_peer.EOS, length_penalty=penalty, early_stopping=early,
        )[0]  # fmt: skip
        for (row, score), beam in zip(rows, found, strict=True):
            row = row[: row.index(beam_peer.EOS)] if beam_peer.EOS in row else row
            assert beam.tokens == row, (early, penalty, prompt, count)
            assert beam.score == pytest.approx(score, abs=1e-4)
            ends.add(beam.finish)
    assert ends == {"eos", "length"}
