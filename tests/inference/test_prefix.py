"""Shared beginnings: what the trie keeps, and that keeping changes no token."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.inference import Engine, EngineConfig, Request, SamplingParams
from geex_jax.inference.prefix import Trie, common
from tests.inference.helpers import ByteTokenizer, small_model

TOKENIZER = ByteTokenizer()


@pytest.fixture(scope="module")
def small():
    return small_model()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 1), max_size=14), max_size=25), st.integers(1, 6))
def test_what_the_trie_finds_was_put_there_and_not_overwritten(texts, capacity):
    trie, pool, block = Trie(capacity, 2), {}, 2
    for text in texts:
        places = trie.match(text)
        for i, place in enumerate(places):  # what a place holds is the whole text up to there
            assert pool[place] == text[: (i + 1) * block]
        for i, place in trie.add(text):
            assert 0 <= place < capacity
            pool[place] = text[: (i + 1) * block]
        assert len(trie) <= capacity
        kept = trie.match(text)
        assert len(kept) == min(len(text) // block, capacity)


def test_the_least_recently_used_leaves_first():
    trie = Trie(3, 1)
    trie.add([1, 2])
    trie.add([3])
    trie.match([1])
    trie.add([4])  # [1, 2]'s end is the oldest: its beginning was just used
    assert [len(trie.match(t)) for t in ([1, 2], [3], [4])] == [1, 1, 1]


@given(st.lists(st.integers(0, 1)), st.lists(st.integers(0, 1)))
def test_common_beginnings(a, b):
    n = common(a, b)
    assert a[:n] == b[:n] and (n == min(len(a), len(b)) or a[n] != b[n])


def test_an_editor_session_reads_only_what_is_new(small):
    with_cache, without = (
        Engine(
            *small,
            TOKENIZER,
            EngineConfig(slots=1, windows=(96,), prefill_chunk=16,
                         prefix_block=4, prefix_cache_bytes=size),
        )
        for size in (1 << 20, 0)
    )  # fmt: skip

    def ask(engine, prompt, **params):
        ticket = engine.submit(Request(tuple(prompt), SamplingParams(max_new_tokens=4, **params)))
        while engine.turn():
            pass
        return ticket

    text = [t % 200 + 1 for t in range(60)]
    for end in (40, 43, 47, 47, 60):  # typed on, asked twice
        hit, miss = ask(with_cache, text[:end]), ask(without, text[:end])
        assert hit.result(0)[0].tokens == miss.result(0)[0].tokens
        assert miss.usage.cached_tokens == 0
    for other in range(3):  # other files push it out of the rows, and it comes from the pool
        ask(with_cache, [t + other + 1 for t in text])
    assert ask(with_cache, text[:60]).usage.cached_tokens >= 56
    stats = with_cache.stats()
    assert stats["prefix_hits"] == 5 and stats["prefix_misses"] == 4
    saved = stats["prefix_tokens_saved"]
    assert saved + stats["prefilled_tokens"] == stats["prompt_tokens"] - stats["requests"]
    assert saved > 4 * 40 and without.stats()["prefix_tokens_saved"] == 0
    # The prompt's own probabilities are computed, not remembered.
    scored = ask(with_cache, text[:60], prompt_logprobs=True, logprobs=0)
    assert scored.usage.cached_tokens == 0 and len(scored.prompt_logprobs) == 60


def test_a_pool_smaller_than_the_prompts_forgets_and_stays_right(small):
    block = 3 * 2 * 4 * 32 * 4 + 2 * 4 * 32 * 4  # (layers + top query layer) of 4 tokens
    engines = [
        Engine(
            *small,
            TOKENIZER,
            EngineConfig(slots=1, windows=(96,), prefill_chunk=16, prefix_block=4,
                         prefix_cache_bytes=size),
        )
        for size in (9 * block, 0)
    ]  # fmt: skip
    texts = [[(t * k) % 200 + 1 for t in range(30)] for k in (1, 3, 7, 1, 3, 1)]
    found = []
    for engine in engines:
        tickets = [
            engine.submit(Request(tuple(t), SamplingParams(max_new_tokens=3))) for t in texts
        ]
        while engine.turn():
            pass
        found.append([t.result(0)[0].tokens for t in tickets])
    assert found[0] == found[1]
    assert engines[0].stats()["prefix_blocks"] == 9
