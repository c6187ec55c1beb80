"""Continuous batching: the same tokens as alone, whatever else runs; streams, ends, refusals."""

import asyncio
import itertools
import threading

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from geex_jax.errors import GeexError
from geex_jax.inference import (
    Engine,
    EngineConfig,
    Overloaded,
    Request,
    SamplingParams,
    Stopped,
    generate,
    generate_tokens,
)
from geex_jax.inference.programs import persist
from tests.inference.helpers import ByteTokenizer, small_model

TOKENIZER = ByteTokenizer()
PROMPTS = [
    [5, 6, 7],
    list(range(40, 101)),
    [9],
    [200, 3, 77, 77, 78, 4, 1],
    list(range(90, 78, -1)),
]
MOST = 24  # tokens of what is compared with: one size, few programs
SMALL = EngineConfig(
    slots=4, batches=(4,), windows=(96,), prefill_chunk=16, prefix_cache_bytes=1 << 20, steps=4
)


@pytest.fixture(scope="module")
def small():
    return small_model()


@pytest.fixture(scope="module")
def engine(small):
    return Engine(*small, TOKENIZER, SMALL)


def run(engine, *requests):
    """Submits, takes turns in this thread until all have ended, returns all samples."""
    tickets = [engine.submit(r) for r in requests]
    while engine.turn():
        pass
    return [sample for ticket in tickets for sample in ticket.result(0)]


def ask(prompt, **params):
    return Request(tuple(prompt), SamplingParams(**params))


def expected(small, prompt, count, **settings):
    """What the plain loop draws for one prompt alone."""
    row = generate_tokens(
        *small, [prompt], max_new_tokens=MOST, eos_id=256, vocab_limit=257, **settings
    )[0][:count]
    return [t for t in row if t != 256]


def test_requests_of_all_lengths_draw_what_they_draw_alone(small, engine):
    before = engine.stats()
    found = run(engine, *(ask(p, max_new_tokens=10) for p in PROMPTS))
    assert [s.tokens for s in found] == [expected(small, p, 10) for p in PROMPTS]
    assert {s.finish for s in found} == {"length"}
    # Seeds: beside greedy ones, in another order, and in rows of other numbers.
    hot = [ask(p, max_new_tokens=8, temperature=1.5, seed=i, top_k=40)
           for i, p in enumerate(PROMPTS)]  # fmt: skip
    mixed = run(engine, *hot, ask([1, 2], max_new_tokens=12))[:-1]
    again = run(engine, ask([3], max_new_tokens=3), *reversed(hot))[:0:-1]
    for i, prompt in enumerate(PROMPTS):
        alone = expected(small, prompt, 8, temperature=1.5, seed=i, top_k=40)
        assert mixed[i].tokens == again[i].tokens == alone
    after = engine.stats()
    assert after["samples"] - before["samples"] == 17 and after["slots_busy"] == 0
    assert after["queue"] == 0 and after["errors"] == 0
    assert after["finished"]["length"] + after["finished"].get("eos", 0) >= 17
    drawn = sum(len(s.tokens) for s in [*found, *mixed, *again])
    assert after["drawn_tokens"] - before["drawn_tokens"] >= drawn
    assert after["time_to_first_token"]["count"] == after["requests"]


def test_the_size_of_the_batch_and_moves_between_rows_change_no_token(small):
    sizes = EngineConfig(
        slots=4, batches=(1, 4), windows=(96,), prefill_chunk=16, prefix_cache_bytes=0
    )
    engine = Engine(*small, TOKENIZER, sizes)
    budgets = [3, 9, 24, 5, 6]  # short ones leave first, so that long ones move to low rows
    requests = [ask(p, max_new_tokens=n, temperature=n % 2, seed=n)
                for p, n in zip(PROMPTS, budgets, strict=True)]  # fmt: skip
    found = run(engine, *requests)
    for prompt, count, sample in zip(PROMPTS, budgets, found, strict=True):
        alone = expected(small, prompt, count, temperature=count % 2, seed=count)
        assert sample.tokens == alone
    shapes = {k.batch for k in engine.programs._programs if hasattr(k, "batch")}
    assert shapes == {1, 4}
    assert any(k[0] == "copy" for k in engine.programs._programs if isinstance(k, tuple))


def test_a_long_prompt_does_not_hold_others_up(engine):
    ticket = engine.submit(ask([7, 8], max_new_tokens=40, ignore_eos=True))
    engine.turn()
    long = engine.submit(ask([t % 250 + 1 for t in range(81)], max_new_tokens=2))
    lengths = []
    while long.first_token is None:
        engine.turn()
        lengths.append(ticket.usage.completion_tokens)
    # 80 tokens in chunks of 16: four turns read a chunk and nothing else, and each drew a token.
    assert len(lengths) >= 5
    assert all(b - a == 1 for a, b in itertools.pairwise(lengths[:4]))
    while engine.turn():
        pass
    assert len(ticket.result(0)[0].tokens) == 40


def test_samples_share_one_prefill_and_draw_like_rows_of_generate(small, engine):
    prompt = list(b"for i in range")
    before = engine.stats()["prefilled_tokens"]
    # Six samples in four rows: two wait, and still nothing is read twice.
    request = ask(prompt, n=6, temperature=1.0, seed=5, max_new_tokens=6)
    found = run(engine, request)
    assert engine.stats()["prefilled_tokens"] - before == len(prompt) - 1
    rows = generate(
        *small, TOKENIZER, "for i in range", num_samples=6, temperature=1.0, seed=5,
        max_new_tokens=6,
    )  # fmt: skip
    assert [s.tokens for s in found] == [r.tokens for r in rows]
    assert [s.text for s in found] == [r.text for r in rows]
    assert len({tuple(s.tokens) for s in found}) > 3


def test_stop_strings_end_rules_and_eos(small, engine):
    free = run(engine, ask(b"x = 1", max_new_tokens=30, ignore_eos=True, temperature=2.0, seed=1))
    text = free[0].text
    stop = text[4:6]
    cut = run(engine, ask(b"x = 1", max_new_tokens=30, ignore_eos=True, temperature=2.0, seed=1,
                          stop=(stop,)))[0]  # fmt: skip
    assert cut.finish == "stop" and cut.text == text[: text.index(stop)]
    # A brace is made likely: one more closed than opened ends a C++ completion, brace included.
    ruled = run(
        engine,
        ask(
            b"int f() {",
            max_new_tokens=30,
            end_rule="cpp",
            seed=2,
            temperature=2.0,
            logit_bias={ord("}"): 9.0, ord("{"): 8.0},
        ),
    )[0]
    assert ruled.finish == "stop" and ruled.text.endswith("}")
    assert ruled.text.count("}") == ruled.text.count("{") + 1
    ended = run(engine, ask(b"x", max_new_tokens=30, logit_bias={256: 100.0}))[0]
    assert ended.finish == "eos" and ended.tokens == [] and ended.text == ""
    full = run(engine, ask([3] * 90, max_new_tokens=30, banned=(256,)))[0]
    assert full.finish == "length" and len(full.tokens) == 6  # the context is full
    none = run(engine, ask([3] * 9, max_new_tokens=0))[0]
    assert none.finish == "length" and none.tokens == []


def test_cancelled_late_and_too_many(small, engine):
    ticket = engine.submit(ask([1, 2, 3], max_new_tokens=90, ignore_eos=True))
    engine.turn()
    ticket.cancel()
    late = engine.submit(ask([4], max_new_tokens=5, deadline=0.0))
    engine.turn()
    assert ticket.result(0)[0].finish == "cancelled" and len(ticket.result(0)[0].tokens) < 90
    assert late.result(0)[0].finish == "deadline" and late.result(0)[0].tokens == []
    assert engine.stats()["slots_busy"] == 0
    little = Engine(*small, TOKENIZER, EngineConfig(slots=1, max_waiting=1, prefix_cache_bytes=0))
    tickets = [little.submit(ask([1])) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 samples wait"):
        little.submit(ask([1]))
    assert little.stats()["rejected"] == 1
    little.stop(drain=False)
    assert [t.result(0)[0].finish for t in tickets] == ["cancelled"] * 2
    with pytest.raises(Stopped):
        little.submit(ask([1]))


def test_compiled_programs_are_kept_in_a_folder(tmp_path):
    names = (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    try:
        persist(str(tmp_path))
        jax.jit(lambda x: x * 3 + 1).lower(jnp.ones(17)).compile()
        assert list(tmp_path.iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def test_mistakes_are_named_before_anything_runs(small, engine):
    for prompt, params, message in [
        ([], {}, "prompt is empty"),
        ([1] * 96, {}, "shorten it to 95"),
        ([320], {}, "outside 0..319"),
        ([1], {"temperature": -1}, "temperature = -1"),
        ([1], {"min_p": 1.5}, "min_p = 1.5"),
        ([1], {"n": 0}, "n = 0"),
        ([1], {"logprobs": 21}, "logprobs = 21"),
        ([1], {"logit_bias": {400: 1.0}}, "id 400"),
        ([1], {"stop": ("",)}, "empty stop string"),
        ([1], {"end_rule": "pyhton"}, "did you mean Python"),
        ([1], {"end_rule": "html"}, "no end rule"),
        ([1], {"repetition_penalty": 0}, "repetition_penalty = 0"),
    ]:
        with pytest.raises(GeexError, match=message):
            engine.submit(ask(prompt, **params))
    for settings, message in [
        ({"slots": 0}, "engine.slots = 0"),
        ({"context": 97}, "give 96 or less"),
        ({"batches": (2,)}, "ascend to 8"),
    ]:
        with pytest.raises(GeexError, match=message):
            Engine(*small, TOKENIZER, EngineConfig(**settings))
    assert engine.stats()["queue"] == 0


def test_a_failure_ends_streams_and_the_engine_goes_on(small, engine, monkeypatch):
    decode, calls = engine.programs.decode, []

    def broken(*args):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("no memory left")
        return decode(*args)

    monkeypatch.setattr(engine.programs, "decode", broken)
    engine.start()
    with pytest.raises(GeexError, match="no memory left"):
        engine.submit(ask([1, 2])).result(60)
    after = engine.submit(ask(PROMPTS[0], max_new_tokens=10)).result(60)[0]
    assert after.tokens == expected(small, PROMPTS[0], 10)
    assert engine.stats()["errors"] == 1


def test_threads_and_event_loops_read_streams(small, engine):
    engine.start()
    requests = [ask(p, max_new_tokens=12, temperature=1.0, seed=3) for p in PROMPTS]
    alone = [expected(small, p, 12, temperature=1.0, seed=3) for p in PROMPTS]
    found = {}

    def read(i):
        pieces = list(engine.submit(requests[i]))
        found[i] = [t for piece in pieces for t in piece.tokens]
        assert [p.finish is None for p in pieces] == [True] * (len(pieces) - 1) + [False]

    threads = [threading.Thread(target=read, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()

    async def stream(request):
        tokens, text = [], ""
        ticket = engine.submit(request)
        async for piece in ticket:
            tokens += piece.tokens
            text += piece.text
        assert text == ticket.result(0)[0].text
        assert ticket.usage.completion_tokens == len(tokens)
        return tokens

    async def all_streams():
        return await asyncio.gather(*map(stream, requests))

    assert asyncio.run(all_streams()) == alone
    for thread in threads:
        thread.join(60)
    assert [found[i] for i in range(5)] == alone
    last = engine.submit(ask([1, 2], max_new_tokens=20, ignore_eos=True))
    assert engine.stop(drain=True, timeout=60)  # what has been submitted still ends
    assert len(last.result(0)[0].tokens) == 20
