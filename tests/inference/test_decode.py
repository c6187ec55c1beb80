"""The compiled loop against the official greedy tokens and against the full forward pass."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from geex_jax.checkpoints import codegeex
from geex_jax.errors import GeexError
from geex_jax.inference import Decoding, generate_tokens, process_logits
from geex_jax.inference.decode import _decode, bucket
from geex_jax.inference.sampling import row_keys
from geex_jax.models import Transformer, init_cache, unstack_layers
from geex_jax.quantize import dequantize_params, quantize_params
from tests.inference.helpers import small_model


@pytest.fixture(scope="module")
def reference(shared):
    folder = shared / "fixtures" / "codegeex"
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    config, params = codegeex.load(folder / "codegeex_tiny.pt", num_heads=heads)
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    return Transformer(config), params, json.loads((folder / "greedy.json").read_text())


@pytest.fixture(scope="module")
def small():
    return small_model()


PROMPTS = [[5, 6, 7], list(range(40, 61)), [9], [200, 3, 77, 77, 78, 4, 1]]


def test_greedy_tokens_are_the_official_ones(reference):
    model, params, cases = reference
    seen = set()
    for case in cases:
        seen.add(case["kind"])
        eos = case["eos_token_id"]
        got = generate_tokens(
            model,
            params,
            case["prompts"],
            max_new_tokens=33,  # one for all, so that few programs are compiled
            eos_id=eos,
            banned=case.get("bad_ids", ()),
        )
        for prompt, new, stream in zip(case["prompts"], got, case["tokens_streamed"], strict=True):
            expected = stream[len(prompt) :]
            if eos in expected:  # the official loop writes on until all rows are done
                expected = expected[: expected.index(eos) + 1]
            # An uneven official batch stops every row at the shortest prompt's budget.
            assert new[: len(expected)] == expected, case["kind"]
            if "eos" in case["kind"] or case["kind"] == "context_limit":
                assert len(new) == len(expected), case["kind"]
        if "new_tokens_32" in case:
            assert [row[:32] for row in got] == case["new_tokens_32"]
    assert {"single", "uneven_batch", "eos_single", "eos_batch", "context_limit", "bad_ids"} <= seen


def full_greedy(model, params, prompts, count):
    """Greedy tokens by full forward passes over the whole context, without a cache."""
    size = model.config.context_length
    run = jax.jit(lambda t: model.apply({"params": params}, t))
    tokens = np.zeros((len(prompts), size), np.int32)
    ends = np.array([len(p) for p in prompts])
    for row, prompt in zip(tokens, prompts, strict=True):
        row[: len(prompt)] = prompt
    rows = np.arange(len(prompts))
    for _ in range(count):
        tokens[rows, ends] = np.asarray(run(tokens))[rows, ends - 1].argmax(-1)
        ends += 1
    return [row[len(p) : end].tolist() for row, p, end in zip(tokens, prompts, ends, strict=True)]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"position": "rotary", "top_query_layer": False, "num_kv_heads": 1, "norm": "rmsnorm"},
        {"top_query_layer": False, "sliding_window": 6, "gated_mlp": True},
    ],
    ids=["codegeex", "rotary-grouped", "window-gated"],
)
def test_decoding_with_cache_equals_the_full_forward_pass(changes):
    model, params = small_model(**changes)
    got = generate_tokens(model, params, PROMPTS, max_new_tokens=12)
    assert got == full_greedy(model, params, PROMPTS, 12)
    assert len({t for row in got for t in row}) > 8  # the model does not just repeat itself


def test_teacher_forced_logits_through_the_cache_are_those_of_the_full_pass(small):
    model, params = small
    tokens = jax.random.randint(jax.random.key(0), (2, 30), 0, 320)
    full = jax.jit(model.apply)({"params": params}, tokens)
    step = jax.jit(lambda t, c: model.apply({"params": params}, t, kv_cache=c))
    cache, rows = init_cache(model.config, 2, 48), []
    for piece in jnp.split(tokens, [10, 20, *range(21, 30)], axis=1):
        logits, cache = step(piece, cache)
        rows.append(logits)
    np.testing.assert_allclose(jnp.concatenate(rows, axis=1), full, atol=5e-4, rtol=0)


def test_quantized_decoding_equals_float_decoding_of_the_same_weights(small):
    model, params = small
    for bits in (8, 4):
        quantized = quantize_params(params, bits)
        got = generate_tokens(model, quantized, PROMPTS, max_new_tokens=12)
        plain = dequantize_params(quantized)
        assert got == generate_tokens(model, plain, PROMPTS, max_new_tokens=12)
        assert got == full_greedy(model, plain, PROMPTS, 12)


def test_unstacked_layers_decode_the_same(small):
    model, params = small
    loose = Transformer(model.config.replace(scan_layers=False))
    quantized = quantize_params(params)
    expected = generate_tokens(model, quantized, PROMPTS, max_new_tokens=12)
    got = generate_tokens(loose, unstack_layers(quantized), PROMPTS, max_new_tokens=12)
    assert got == expected


SAMPLED = {"temperature": 1.2, "top_k": 50, "top_p": 0.95, "max_new_tokens": 15}


def test_a_seed_gives_the_same_tokens_and_another_seed_others(small):
    model, params = small
    first = generate_tokens(model, params, PROMPTS, seed=3, **SAMPLED)
    assert generate_tokens(model, params, PROMPTS, seed=3, **SAMPLED) == first
    assert generate_tokens(model, params, PROMPTS, seed=4, **SAMPLED) != first


def test_a_row_does_not_depend_on_its_neighbours_or_on_how_the_loop_is_cut(small):
    model, params = small
    together = generate_tokens(model, params, PROMPTS, seed=3, **SAMPLED)
    for row, prompt in list(enumerate(PROMPTS))[1:3]:
        alone = generate_tokens(model, params, [prompt], seed=3, first_row=row, **SAMPLED)
        assert alone[0] == together[row]
    pieces = Decoding(model, params, PROMPTS, seed=3, **SAMPLED)
    for steps in (1, 2, 7, 1, 30):
        pieces.advance(steps)
    assert pieces.tokens() == together
    seen = []
    generate_tokens(model, params, PROMPTS, seed=3, on_tokens=seen.append, **SAMPLED)
    assert seen[-1] == together


def test_settings_for_each_row_and_first_token_from_the_right_distribution(small):
    model, params = small
    prompt = [5, 6, 7]
    heats = [0.0, 1.0, 0.0, 2.0]
    rows = generate_tokens(model, params, [prompt] * 4, temperature=heats, max_new_tokens=12)
    assert [rows[0]] == [rows[2]] == full_greedy(model, params, [prompt], 12)
    logits = model.apply({"params": params}, jnp.array([prompt]))[:, -1]
    for row in (1, 3):
        key = jax.random.fold_in(row_keys(0, jnp.arange(4))[row], 0)
        assert rows[row][0] == jax.random.categorical(key, process_logits(logits, heats[row])[0])


def test_rows_end_one_by_one_and_the_context_is_never_passed(small):
    model, params = small
    context = model.config.context_length
    prompts = [[1, 2, 3], list(range(context - 4)), list(range(context - 1))]
    free = generate_tokens(model, params, prompts, max_new_tokens=30)
    assert [len(r) for r in free] == [30, 4, 1]
    eos = free[0][9]
    cut = generate_tokens(model, params, prompts, max_new_tokens=30, eos_id=eos)
    for before, after in zip(free, cut, strict=True):
        end = before.index(eos) + 1 if eos in before else len(before)
        assert after == before[:end]


def test_ids_beyond_the_limit_and_banned_ids_are_never_drawn(small):
    model, params = small
    free = generate_tokens(model, params, PROMPTS, max_new_tokens=12)
    banned = sorted({t for row in free for t in row})[:5]
    settings = {"temperature": 5.0, "max_new_tokens": 16, "vocab_limit": 100}
    drawn = generate_tokens(model, params, PROMPTS, banned=banned, **settings)
    assert not {t for row in drawn for t in row} & set(banned)
    assert max(max(row) for row in drawn) < 100
    hot = generate_tokens(model, params, PROMPTS, **settings | {"temperature": 1e5})
    assert max(max(row) for row in hot) < 100


def test_prompts_that_cannot_be_continued_are_refused(small):
    model, params = small
    for prompts, message in [
        ([], "no prompt"),
        ([[1], []], "prompt 1 is empty"),
        ([[1] * 96], "has 96 tokens, and the context 96; shorten it to 95"),
        ([[1, 320]], "outside 0..319"),
        ([[-1]], "outside 0..319"),
    ]:
        with pytest.raises(GeexError, match=message):
            generate_tokens(model, params, prompts)
    with pytest.raises(GeexError, match="max_new_tokens = 0"):
        generate_tokens(model, params, [[1]], max_new_tokens=0)
    with pytest.raises(GeexError, match="banned id 400"):
        generate_tokens(model, params, [[1]], banned=[400])


def test_few_programs_serve_many_prompts_and_settings():
    model, params = small_model(d_ff=48)
    before = _decode._cache_size()
    for length in (3, 14):
        for heat, k, p in ((0.0, 0, 0.0), (0.7, 5, 0.9), (1.3, 0, 0.5)):
            generate_tokens(
                model, params, [[1] * length], max_new_tokens=16,
                temperature=heat, top_k=k, top_p=p, seed=length,
            )  # fmt: skip
    assert _decode._cache_size() - before == 1
    assert [bucket(n, 2048) for n in (1, 16, 17, 65, 129, 2000)] == [16, 16, 32, 128, 256, 2048]
    assert bucket(90, 96) == 96
