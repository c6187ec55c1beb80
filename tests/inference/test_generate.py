"""Text in, text out: tags, stop strings, streaming, finish reasons."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geex_jax.errors import GeexError
from geex_jax.inference import StopScanner, generate, generate_text, generate_tokens
from tests.inference.helpers import ByteTokenizer, small_model

TOKENIZER = ByteTokenizer()
PROMPTS = ["def f(", "x", "class Node:\n    value = 1"]


def writer(text, prompt_length):
    """A model that writes the bytes of `text` at the positions after a prompt, then eos."""
    model, params = small_model()
    width, context = model.config.d_model, model.config.context_length
    codes = [*text.encode(), 256]
    # The top query's residual is the final norm's output: its bias alone decides, all else is 0.
    params = jax.tree.map(jnp.zeros_like, params)
    table = jax.random.normal(jax.random.key(0), (model.config.vocab_size, width))
    table -= table.mean(axis=1, keepdims=True)
    table /= jnp.linalg.norm(table, axis=1, keepdims=True)
    positions = np.zeros((context, width), np.float32)
    for i, code in enumerate(codes):
        positions[prompt_length - 1 + i] = np.asarray(table[code]) * 1000
    params["embedding"] = {"tokens": table, "positions": jnp.asarray(positions)}
    params["final_norm"]["scale"] = jnp.ones(width)
    return model, params


@pytest.fixture(scope="module")
def small():
    return small_model()


def test_the_writer_writes_its_text_and_ends_with_eos():
    text = "return a + b  # größer"
    model, params = writer(text, 4)
    done = generate(model, params, TOKENIZER, "abcd", max_new_tokens=60)[0]
    assert (done.text, done.finish, done.prompt_tokens) == (text, "eos", 4)
    assert done.num_tokens == len(text.encode()) and 256 not in done.tokens
    cut = generate(model, params, TOKENIZER, "abcd", max_new_tokens=10)[0]
    assert (cut.text, cut.finish, cut.num_tokens) == (text[:10], "length", 10)


@pytest.mark.parametrize("stream", [False, True])
def test_stop_strings_cut_the_text_and_nothing_of_them_is_ever_shown(stream):
    model, params = writer("alpha beta\n\ngamma", 4)
    shown = []
    settings = {"max_new_tokens": 60, "stream": (lambda _, t: shown.append(t)) if stream else None}
    done = generate(model, params, TOKENIZER, "abcd", stop=["gam", "\n\n"], **settings)[0]
    assert (done.text, done.finish) == ("alpha beta", "stop")
    assert done.num_tokens == len("alpha beta\n\n")
    if stream:
        assert "".join(shown) == "alpha beta" and len(shown) > 1
    # "ta\nX" begins and does not go on: what was held back appears.
    free = generate(model, params, TOKENIZER, "abcd", stop="ta\nX", **settings)[0]
    assert (free.text, free.finish) == ("alpha beta\n\ngamma", "eos")
    # A stop string that has begun when the budget ends was none.
    short = {**settings, "max_new_tokens": 11}
    held = generate(model, params, TOKENIZER, "abcd", stop="\n\n", **short)[0]
    assert (held.text, held.finish) == ("alpha beta\n", "length")


def test_streamed_characters_are_whole():
    model, params = writer("größe €𝛼", 4)
    shown = []
    generate(
        model, params, TOKENIZER, "abcd", max_new_tokens=60, stream=lambda _, t: shown.append(t)
    )
    assert "".join(shown) == "größe €𝛼" and not any("\ufffd" in t for t in shown)


def test_batches_streams_and_single_calls_agree(small):
    model, params = small
    settings = {"max_new_tokens": 15, "temperature": 1.0, "top_p": 0.9, "seed": 5}
    together = generate(model, params, TOKENIZER, PROMPTS, **settings)
    assert [c.prompt for c in together] == PROMPTS
    shown = ["", "", ""]

    def show(row, text):
        shown[row] += text

    streamed = generate(model, params, TOKENIZER, PROMPTS, stream=show, **settings)
    assert streamed == together
    assert shown == [c.text for c in together]
    alone = generate_text(model, params, TOKENIZER, PROMPTS[1], first_row=1, **settings)
    assert alone == together[1].text
    assert all(t < TOKENIZER.vocab_size for c in together for t in c.tokens)


def test_samples_of_one_prompt_differ_and_repeat(small):
    model, params = small
    settings = {"max_new_tokens": 15, "temperature": 2.0, "seed": 1, "num_samples": 3}
    first = generate(model, params, TOKENIZER, "def f(", **settings)
    assert len({tuple(c.tokens) for c in first}) == 3
    assert generate(model, params, TOKENIZER, "def f(", **settings) == first


def test_the_language_tag_stands_before_the_prompt(small):
    model, params = small
    tagged = generate(model, params, TOKENIZER, "def", language="python", max_new_tokens=8)[0]
    prompt = TOKENIZER.encode("# language: Python\ndef")
    assert tagged.prompt == "def" and tagged.prompt_tokens == len(prompt)
    ids = generate_tokens(
        model, params, [prompt], max_new_tokens=8, eos_id=256, vocab_limit=TOKENIZER.vocab_size
    )[0]
    assert tagged.tokens == [t for t in ids if t != 256]
    empty = generate(model, params, TOKENIZER, "", max_new_tokens=8)[0]
    assert empty.prompt_tokens == 1  # eos opens a new document


def test_mistakes_are_named(small):
    model, params = small
    for prompts, settings, message in [
        ("x", {"language": "pyton"}, "did you mean Python"),
        ("x" * 96, {}, "shorten it to 95"),
        ([], {}, "no prompt"),
        ("x", {"stop": [""]}, "empty stop string"),
        ("x", {"num_samples": 0}, "num_samples = 0"),
        ("x", {"top_k": 321}, "top_k = 321"),
    ]:
        with pytest.raises(GeexError, match=message):
            generate(model, params, TOKENIZER, prompts, **settings)


@given(
    st.lists(st.text("ab\n", max_size=4), max_size=12),
    st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3),
)
def test_the_scanner_shows_the_text_before_the_first_complete_stop(pieces, stops):
    scanner = StopScanner(stops)
    shown = "".join(scanner.push(p) for p in pieces)
    text = "".join(pieces)
    assert not any(s in shown for s in stops)
    ends = [text.find(s) + len(s) for s in stops if s in text]
    assert scanner.stopped == bool(ends)
    if ends:
        whole = text[: min(ends)]
        assert any(shown + s == whole for s in stops)
    else:
        assert shown + scanner.flush() == text
