"""What changes logits, and what is told of them, against plain numpy over full forward passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geex_jax.benchmark.humaneval_x import truncation
from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams, process_logits
from geex_jax.inference.penalties import Penalties, count, penalize
from geex_jax.inference.stops import EndScanner
from geex_jax.languages import WITH_END_RULE
from tests.inference.helpers import ByteTokenizer, small_model

PROMPT = [3, 5, 5, 8, 13, 21, 34, 5]


@pytest.fixture(scope="module")
def small():
    return small_model()


@pytest.fixture(scope="module")
def engine(small):
    config = EngineConfig(
        slots=2, batches=(2,), windows=(96,), prefill_chunk=16, prefix_cache_bytes=0, steps=4
    )
    return Engine(*small, ByteTokenizer(), config)


@pytest.fixture(scope="module")
def logits_of(small):
    model, params = small
    run = jax.jit(lambda t: model.apply({"params": params}, t))

    def logits(tokens):
        row = np.zeros((1, 96), np.int32)
        row[0, : len(tokens)] = tokens
        return np.asarray(run(row))[0, : len(tokens)]

    return logits


def ask(engine, prompt, **params):
    ticket = engine.submit(Request(tuple(prompt), SamplingParams(**params)))
    while engine.turn():
        pass
    return ticket


def reference_penalties(row, prompt, drawn, repetition, presence, frequency):
    """transformers' RepetitionPenaltyLogitsProcessor, then OpenAI's formula."""
    row = row.copy()
    for token in {*prompt, *drawn}:
        row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
    for token in set(drawn):
        row[token] -= presence + frequency * drawn.count(token)
    return row


def test_penalties_biases_and_bans_change_greedy_tokens_as_they_should(engine, logits_of):
    cases = [
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8, "presence_penalty": 0.7, "frequency_penalty": 0.4},
        {"banned": (31, 191, 202), "logit_bias": {31: 2.0, 9: 3.0}},
    ]
    outputs = set()
    for case in cases:
        sample = ask(engine, PROMPT, max_new_tokens=14, ignore_eos=True, **case).result(0)[0]
        tokens = list(PROMPT)
        for token in sample.tokens:
            row = logits_of(tokens)[-1][:257]
            row = reference_penalties(
                row, PROMPT, tokens[len(PROMPT) :], case.get("repetition_penalty", 1.0),
                case.get("presence_penalty", 0.0), case.get("frequency_penalty", 0.0),
            )  # fmt: skip
            for key, value in case.get("logit_bias", {}).items():
                row[key] += value
            row[list(case.get("banned", ()))] = -np.inf
            assert row[token] >= row.max() - 1e-3
            tokens.append(token)
        outputs.add(tuple(sample.tokens))
    plain = ask(engine, PROMPT, max_new_tokens=14, ignore_eos=True).result(0)[0].tokens
    assert len(outputs | {tuple(plain)}) == 4  # each of them changed something


def test_counts_and_penalties_of_rows():
    history = jnp.array([[1, 2, 2, 3, 3, 3, 0, 0]])
    counts = count(history, jnp.array([2]), jnp.array([6]), 5)
    assert counts.drawn.tolist() == [[0, 0, 1, 3, 0]]
    assert counts.prompt.tolist() == [[False, True, True, False, False]]
    logits = jnp.array([[1.0, 2.0, -2.0, 3.0, 4.0]])
    settings = Penalties(*(jnp.array([x]) for x in (2.0, 0.5, 0.25)))
    expected = reference_penalties(np.array(logits)[0], [1, 2], [2, 3, 3, 3], 2.0, 0.5, 0.25)
    np.testing.assert_allclose(penalize(logits, counts, settings)[0], expected)


def test_log_probabilities_are_those_of_the_model(engine, logits_of):
    ticket = ask(
        engine, PROMPT, max_new_tokens=5, temperature=1.7, seed=4, logprobs=3,
        prompt_logprobs=True, logit_bias={7: 3.0},
    )  # fmt: skip
    sample = ticket.result(0)[0]
    tokens = [*PROMPT, *sample.tokens]
    logs = np.asarray(jax.nn.log_softmax(logits_of(tokens), axis=-1))
    assert ticket.prompt_logprobs[0] is None
    told = [*ticket.prompt_logprobs[1:], *sample.logprobs]
    assert [t.token for t in told] == tokens[1:]
    for row, one in zip(logs, told, strict=False):
        assert one.logprob == pytest.approx(row[one.token], abs=1e-3)
        best = np.sort(row)[::-1][:3]
        np.testing.assert_allclose([p for _, p in one.top], best, atol=1e-3)
        np.testing.assert_allclose([row[t] for t, _ in one.top], best, atol=1e-3)
    # Scoring alone: nothing is drawn.
    scored = ask(engine, PROMPT, max_new_tokens=0, logprobs=0, prompt_logprobs=True)
    assert scored.result(0)[0].tokens == [] and len(scored.prompt_logprobs) == len(PROMPT)
    assert scored.prompt_logprobs[3].logprob == pytest.approx(logs[2][PROMPT[3]], abs=1e-3)
    assert scored.prompt_logprobs[3].top == []


def test_min_p_keeps_what_is_likely_enough():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
    assert np.isfinite(process_logits(logits, min_p=0.2)).tolist() == [[True, True, True, False]]
    assert np.isfinite(process_logits(logits, min_p=0.31)).sum() == 2
    assert np.isfinite(process_logits(logits, min_p=0.0)).all()
    assert np.isfinite(process_logits(logits, min_p=1.0)).sum() == 1
    # After temperature, and beside top-k.
    assert np.isfinite(process_logits(logits, temperature=4.0, min_p=0.31)).all()
    assert np.isfinite(process_logits(logits, top_k=2, min_p=0.2)).sum() == 2


@given(
    st.sampled_from(WITH_END_RULE),
    st.lists(st.text("a {}\n\t\x0c", max_size=5) | st.just("\nfn main()"), max_size=12),
)
def test_end_rules_in_pieces_end_where_the_benchmark_ends(language, pieces):
    scanner = EndScanner(language)
    shown = "".join(scanner.push(p) for p in pieces)
    text = "".join(pieces)
    end = truncation.end(language, text)
    assert scanner.stopped == (end is not None)
    if end is None:
        assert shown + scanner.flush() == text
    elif language == "python":
        assert shown == text[: text.rfind("\n", 0, end) + 1]
    elif language == "rust" and text[:end].endswith("\nfn main()"):
        assert shown == text[: end - len("\nfn main()")]
    else:
        assert shown == text[:end]
