"""Packing and the row format: nothing lost, nothing twice, full rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.data import make_batch
from geex_jax.data.batches import padding_row
from geex_jax.data.pack import LEAST_TEXT, pack
from geex_jax.data.records import Row, decode_row, encode_row, token_dtype
from geex_jax.errors import GeexError

PAD, EOS, TAG = 0, 1, 2


def documents_of(lengths, prefix):
    """Documents whose tokens are all different: 10, 11, ... with tag and eos as in real ones."""
    documents, number = [], 10
    for length in lengths:
        body = np.arange(number, number + length)
        documents.append(np.concatenate([prefix, body, [EOS]]))
        number += length
    return documents


def unpack(rows, prefix):
    """Puts the documents together again."""
    documents, current = [], []
    for row in rows:
        bounds = [*row.starts.tolist(), row.used]
        for start, end in itertools.pairwise(bounds):
            piece = row.tokens[start:end].tolist()
            current += piece[len(prefix) :] if current else piece
            if piece[-1] == EOS:
                documents.append(current)
                current = []
    assert not current
    return documents


CASES = st.tuples(
    st.lists(st.integers(0, 300), max_size=25), st.integers(0, 6), st.integers(28, 130)
)


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_every_token_once_apart_from_repeated_tags(case):
    lengths, tag, row_length = case
    prefix = np.full(tag, TAG)
    documents = documents_of(lengths, prefix)
    rows = list(pack(documents, row_length, prefix, PAD))
    assert unpack(rows, prefix) == [d.tolist() for d in documents]
    for row in rows:
        assert len(row.tokens) == row_length
        assert row.starts[0] == 0 and np.all(np.diff(row.starts) > 0)
        assert np.all(row.tokens[row.used :] == PAD) and np.all(row.tokens[: row.used] != PAD)
        for start in row.starts:
            assert np.array_equal(row.tokens[start : start + tag], prefix)
    for row in rows[:-1]:
        assert row_length - row.used < tag + LEAST_TEXT


@settings(max_examples=100, deadline=None)
@given(CASES, st.integers(0, 30))
def test_packing_goes_on_from_any_row(case, cut):
    lengths, tag, row_length = case
    prefix = np.full(tag, TAG)
    documents = documents_of(lengths, prefix)
    rows = list(pack(documents, row_length, prefix, PAD))
    if not rows:
        return
    last = rows[min(cut, len(rows) - 1)]
    rest = pack(
        documents[last.next_document :],
        row_length,
        prefix,
        PAD,
        first_document=last.next_document,
        first_offset=last.next_offset,
    )
    for again, row in zip(rest, rows[min(cut, len(rows) - 1) + 1 :], strict=True):
        assert np.array_equal(again.tokens, row.tokens)
        assert np.array_equal(again.starts, row.starts) and again[2:] == row[2:]


@pytest.mark.parametrize("row_length", [257, 2049])
def test_fill_is_above_99_5_percent(row_length):
    rng = np.random.default_rng(0)
    prefix = np.full(6, TAG)
    documents = documents_of(rng.lognormal(7, 1, 3000).astype(int) + 250, prefix)
    rows = list(pack(documents, row_length, prefix, PAD))
    assert sum(row.used for row in rows) / (len(rows) * row_length) > 0.995


def test_rows_too_short_for_the_tag_are_refused():
    with pytest.raises(ValueError, match="tag line"):
        list(pack([np.arange(9)], 20, np.arange(5), PAD))


@given(
    st.integers(1, 300),
    st.integers(0, 22),
    st.sampled_from([258, 65_536, 65_537]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_rows_come_back_from_their_bytes(length, language, vocab_size, data):
    used = data.draw(st.integers(0, length))
    starts = np.unique(data.draw(st.lists(st.integers(0, max(used - 1, 0)), max_size=5)))
    tokens = np.random.default_rng(length).integers(0, vocab_size, length)
    row = decode_row(encode_row(Row(tokens, starts, used, language), token_dtype(vocab_size)))
    assert np.array_equal(row.tokens, tokens) and np.array_equal(row.starts, starts)
    assert (row.used, row.language) == (used, language)


def test_small_vocabularies_take_two_bytes_a_token_and_long_rows_wide_starts():
    assert token_dtype(65_536).itemsize == 2 and token_dtype(65_537).itemsize == 4
    row = Row(np.zeros(100), np.array([0]), 100, 1)
    assert len(encode_row(row, token_dtype(300))) == 16 + 2 + 200
    long = Row(np.ones(70_000), np.array([0, 69_000]), 70_000, 1)
    assert decode_row(encode_row(long, token_dtype(300))).starts.tolist() == [0, 69_000]


def test_damaged_records_are_one_line():
    data = encode_row(Row(np.arange(50), np.array([0, 9]), 50, 3), token_dtype(300))
    for bad in (b"", data[:10], data[:-1], data + b"x", b"\x09" + data[1:]):
        with pytest.raises(GeexError, match="geex prepare") as error:
            decode_row(bad)
        assert "\n" not in str(error.value)


def test_a_batch_by_hand():
    #        one segment of 3, one of 4, one token of padding
    row = Row(np.array([5, 6, EOS, 7, 8, 9, EOS, PAD]), np.array([0, 3]), 7, 4)
    batch = make_batch([row, padding_row(8, 2, PAD)])
    assert batch["tokens"][0].tolist() == [5, 6, EOS, 7, 8, 9, EOS]
    assert batch["targets"][0].tolist() == [6, EOS, 7, 8, 9, EOS, PAD]
    assert batch["positions"][0].tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert batch["segment_ids"][0].tolist() == [1, 1, 1, 2, 2, 2, 2]
    # the end of a text is learned; the head of the next text and the padding are not
    assert batch["loss_mask"][0].tolist() == [1, 1, 0, 1, 1, 1, 0]
    assert not batch["segment_ids"][1].any() and not batch["loss_mask"][1].any()
    assert batch["language"].tolist() == [4, 2]
    kinds = {name: str(array.dtype) for name, array in batch.items()}
    assert kinds.pop("loss_mask") == "float32" and set(kinds.values()) == {"int32"}
