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


def test_what_follows_other_ids_is_the_same_as_if_they_had_been_pushed(tokenizer):
    rng = random.Random(1)
    texts = [t for t in TEXTS if t] + ["😀" * 40, " ", "x" * 50]
    for _ in range(200):
        ids = tokenizer.encode("".join(rng.choices(texts, k=rng.randrange(8))))
        ids[: rng.randrange(3)] = [rng.randrange(tokenizer.vocab_size + 3) for _ in range(2)]
        cut = rng.randrange(len(ids) + 1)
        pushed, skipped = StreamDecoder(tokenizer), StreamDecoder(tokenizer)
        for token in ids[:cut]:
            pushed.push(token)
        skipped.follow(ids[:cut])
        expected = [pushed.push(token) for token in ids[cut:]] + [pushed.flush()]
        assert [skipped.push(token) for token in ids[cut:]] + [skipped.flush()] == expected


def test_an_unfinished_character_waits_and_then_is_replaced(tokenizer):
    ids = tokenizer.encode("😀")
    assert len(ids) > 1, "the vocabulary must not know this character"
    stream = StreamDecoder(tokenizer)
    assert [stream.push(i) for i in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == "\ufffd"
    assert "".join(stream.push(i) for i in ids) == "😀"  # a new stream after flush
