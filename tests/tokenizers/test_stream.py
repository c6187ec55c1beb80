"""StreamDecoder: the same text, never half a character."""

import random

import pytest

from geex_jax.tokenizers import StreamDecoder

TEXTS = ["é한국😀 x\u2581y\n", "    return '한'\r\n", "\ufffd\ufeff a", ""]


@pytest.mark.parametrize("text", TEXTS)
def test_the_parts_join_to_the_text(tokenizer, text):
    stream = StreamDecoder(tokenizer)
    parts = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(parts) == text
    assert all(text.startswith("".join(parts[:n])) for n in range(len(parts) + 1))
    assert stream.flush() == ""


def test_random_ids_join_to_decode(tokenizer):
    rng = random.Random(0)
    for _ in range(200):
        ids = [rng.randrange(tokenizer.vocab_size + 3) for _ in range(rng.randrange(12))]
        stream = StreamDecoder(tokenizer)
        joined = "".join([stream.push(i) for i in ids]) + stream.flush()
        assert joined == tokenizer.decode(ids)


def test_an_unfinished_character_waits_and_then_is_replaced(tokenizer):
    ids = tokenizer.encode("😀")
    assert len(ids) > 1, "the vocabulary must not know this character"
    stream = StreamDecoder(tokenizer)
    assert [stream.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == "\ufffd"
    assert "".join(stream.push(i) for i in ids) == "😀"  # a new stream after flush
