"""Packing and the row format: nothing lost, nothing twice, full rows."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.data import make_batch
from geex_jax.data.batches import padding_row
from geex_jax.data.pack import LEAST_TEXT, METHODS, Counts, Tokens, concat, pack
from geex_jax.data.records import Row, decode_row, encode_row, token_dtype
from geex_jax.errors import GeexError

PAD, EOS, TAG = 0, 1, 2


def documents_of(lengths, prefix):
    """Documents whose tokens are all different: 10, 11, ... with tag and eos as in real ones."""
    documents, number = [], 10
    for length in lengths:
        body = np.arange(number, number + length)
        documents.append(Tokens(np.concatenate([prefix, body, [EOS]])))
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
    rows = list(concat(documents, row_length, prefix, PAD))
    assert unpack(rows, prefix) == [d.ids.tolist() for d in documents]
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
    rows = list(concat(documents, row_length, prefix, PAD))
    if not rows:
        return
    last = rows[min(cut, len(rows) - 1)]
    rest = concat(
        documents[last.next_document :],
        row_length,
        prefix,
        PAD,
        first_document=last.next_document,
        first_offset=last.next_offset,
    )
    for again, row in zip(rest, rows[min(cut, len(rows) - 1) + 1 :], strict=True):
        assert np.array_equal(again.tokens, row.tokens)
        assert np.array_equal(again.starts, row.starts) and again[3:] == row[3:]


@pytest.mark.parametrize("row_length", [257, 2049])
def test_fill_is_above_99_5_percent(row_length):
    rng = np.random.default_rng(0)
    prefix = np.full(6, TAG)
    documents = documents_of(rng.lognormal(7, 1, 3000).astype(int) + 250, prefix)
    rows = list(concat(documents, row_length, prefix, PAD))
    assert sum(row.used for row in rows) / (len(rows) * row_length) > 0.995


def test_rows_too_short_for_the_tag_are_refused():
    with pytest.raises(ValueError, match="tag line"):
        list(pack([Tokens(np.arange(9))], 20, np.arange(5), PAD))


def joined(rows, prefix):
    """The documents of rows in any order: pieces put together by their numbers, tags left out."""
    pieces = [
        row.tokens[start + len(prefix) : end].tolist()
        for row in rows
        for start, end in itertools.pairwise([*row.starts.tolist(), row.used])
    ]
    # A document's numbers ascend from piece to piece; a piece of an end alone follows any other.
    ends = [piece for piece in pieces if piece == [EOS]]
    pieces = sorted(piece for piece in pieces if piece != [EOS])
    return list(itertools.chain(*pieces)), len(ends)


@settings(max_examples=200, deadline=None)
@given(CASES, st.sampled_from([1, 300, 1 << 22]))
def test_best_fit_cuts_no_document_that_fits_and_loses_nothing(case, window):
    lengths, tag, row_length = case
    prefix = np.full(tag, TAG)
    documents = documents_of(lengths, prefix)
    counts = Counts()
    rows = list(pack(documents, row_length, prefix, PAD, counts=counts, window=window))
    bodies, lonely_ends = joined(rows, prefix)
    ends = bodies.count(EOS) + lonely_ends
    assert ends == len(documents)
    expected = [x for d in documents for x in d.ids[tag:].tolist()]
    assert sorted(bodies + [EOS] * lonely_ends) == sorted(expected)
    numbers = [x for x in bodies if x != EOS]
    assert numbers == sorted(numbers)  # every piece's tokens are in their order
    segments = {
        tuple(row.tokens[start:end])
        for row in rows
        for start, end in itertools.pairwise([*row.starts.tolist(), row.used])
    }
    fitting = [d for d in documents if len(d.ids) <= row_length]
    assert all(tuple(d.ids) in segments for d in fitting)
    assert (counts.documents, counts.whole) == (len(documents), len(fitting))
    assert (counts.rows, counts.tokens) == (len(rows), sum(row.used for row in rows))
    for row in rows:
        assert row.starts[0] == 0 and np.all(row.tokens[row.used :] == PAD)
        assert all(np.array_equal(row.tokens[s : s + tag], prefix) for s in row.starts)


def test_best_fit_takes_the_fullest_row_with_room():
    # 60 + 40 fill one row, 55 + 45 another, in the order of their first documents.
    documents = [Tokens(np.full(n, n)) for n in (40, 55, 60, 45, 9)]
    rows = list(pack(documents, 100, np.array([], int), PAD))
    assert [sorted(set(row.tokens[: row.used].tolist())) for row in rows] == [
        [40, 60], [45, 55], [9]
    ]  # fmt: skip


def test_rows_are_written_in_the_order_of_their_first_documents():
    # rows that one document fills do not come before the others
    documents = [Tokens(np.full(n, i + 3)) for i, n in enumerate((30, 100, 30, 100, 40, 250))]
    rows = list(pack(documents, 100, np.array([], int), PAD))
    firsts = [int(row.tokens.min() if row.used == 100 else row.tokens[: row.used].min())
              for row in rows]  # fmt: skip
    assert firsts == [3, 4, 6, 7, 8, 8]


def test_best_fit_fills_rows_and_holds_no_more_than_its_window():
    rng = np.random.default_rng(0)
    prefix = np.full(6, TAG)
    lengths = rng.lognormal(6, 1.2, 4000).astype(int) + 40
    read = 0

    def documents():
        nonlocal read
        for n in lengths:
            read += n
            yield Tokens(np.full(n, 3))

    counts, written, held = Counts(), 0, 0
    for row in pack(documents(), 2049, prefix, PAD, counts=counts, window=100_000):
        written += row.used - 6 * (len(row.starts) - 1)
        held = max(held, read - written)
    assert counts.fill > 0.99 and counts.share_whole == np.mean(lengths <= 2049)
    assert held < 2 * 100_000


@pytest.mark.parametrize("how", METHODS)
def test_a_prompt_stays_with_its_completion(how):
    prefix = np.full(3, TAG)
    # 40 % prompt each; two fit into a row, so that concat would cut every other one
    documents = [Tokens(np.full(30, 100 + i), 12) for i in range(9)]
    counts = Counts()
    rows = list(pack(documents, 50, prefix, PAD, how=how, counts=counts))
    assert counts.share_whole == 1.0
    for row in rows:
        for start, prompt in zip(row.starts, row.prompts, strict=True):
            assert prompt == 12 and row.tokens[start] >= 100  # no tag before a prompt
    assert sum(len(row.starts) for row in rows) == 9


@pytest.mark.parametrize("how", METHODS)
def test_prompts_too_long_lose_their_head(how):
    prefix = np.full(3, TAG)
    long = Tokens(np.arange(100, 180), 60)  # a completion of 20
    (row,) = pack([long], 50, prefix, PAD, how=how)
    assert row.tokens.tolist() == list(range(130, 180)) and row.prompts.tolist() == [30]
    both = Tokens(np.arange(100, 200), 40)  # a completion of 60: longer than a row itself
    first, second = pack([both], 50, prefix, PAD, how=how)
    assert first.tokens.tolist() == list(range(115, 165)) and first.prompts.tolist() == [25]
    assert second.tokens[:38].tolist() == [TAG] * 3 + list(range(165, 200))
    assert second.prompts.tolist() == [0] and second.used == 38


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


def test_prompts_come_back_and_cost_nothing_where_there_are_none():
    starts, tokens = np.array([0, 9, 20]), np.arange(50)
    plain = encode_row(Row(tokens, starts, 50, 3), token_dtype(300))
    zeros = encode_row(Row(tokens, starts, 50, 3, np.zeros(3, int)), token_dtype(300))
    assert zeros == plain and decode_row(plain).prompts is None
    data = encode_row(Row(tokens, starts, 50, 3, np.array([4, 0, 7])), token_dtype(300))
    row = decode_row(data)
    assert row.prompts.tolist() == [4, 0, 7] and row.starts.tolist() == [0, 9, 20]
    assert row.tokens.tolist() == tokens.tolist() and len(data) == len(plain) + 6


def test_damaged_records_are_one_line():
    for prompts in (None, np.array([0, 3])):
        data = encode_row(Row(np.arange(50), np.array([0, 9]), 50, 3, prompts), token_dtype(300))
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


def test_prompts_carry_no_loss():
    #          prompt 2 + 2, eos  | code 2, eos | prompt 3 to the end of the row
    ids = np.array([5, 6, 7, 8, EOS, 9, 9, EOS, 4, 4, 4])
    row = Row(ids, np.array([0, 5, 8]), 11, 4, np.array([2, 0, 3]))
    batch = make_batch([padding_row(11, 2, PAD), row])
    assert batch["loss_mask"][1].tolist() == [0, 1, 1, 1, 0, 1, 1, 0, 0, 0]
    assert batch["segment_ids"][1].tolist() == [1, 1, 1, 1, 1, 2, 2, 2, 3, 3]
    assert batch["positions"][1].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 0, 1]
    assert not batch["loss_mask"][0].any()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_batches_are_what_a_plain_loop_makes(data):
    length = data.draw(st.integers(2, 40))
    rows = []
    for _ in range(data.draw(st.integers(1, 4))):
        used = data.draw(st.integers(0, length))
        cuts = data.draw(st.sets(st.integers(1, max(used - 1, 1)), max_size=5))
        starts = np.array(sorted({0} | {c for c in cuts if c < used}) if used else [], int)
        prompts = data.draw(st.none() | st.just([data.draw(st.integers(0, 9)) for _ in starts]))
        prompts = None if prompts is None else np.array(prompts, int)
        rows.append(Row(np.arange(length), starts, used, 1, prompts))
    batch = make_batch(rows)
    for i, row in enumerate(rows):
        segment, position, prompt = 0, 0, 0
        expected = []
        for column in range(length):
            if column in row.starts:
                prompt = 0 if row.prompts is None else row.prompts[segment]
                segment, position = segment + 1, 0
            inside = column < row.used
            learned = inside and position > 0 and position >= prompt
            expected.append((segment * inside, position * inside, float(learned)))
            position += 1
        segments, positions, mask = (list(x) for x in zip(*expected, strict=True))
        assert batch["segment_ids"][i].tolist() == segments[:-1]
        assert batch["positions"][i].tolist() == positions[:-1]
        assert batch["loss_mask"][i].tolist() == mask[1:]
