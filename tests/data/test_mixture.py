"""The stream of languages: shares, the cap on epochs, the curriculum, access at any place."""

import collections

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geex_jax.data.mixture import Stream

ROWS = {"A": 100, "B": 40, "C": 7}


def rows_of(stream, first, count):
    languages, numbers = stream.take(first, count)
    return list(zip(languages.tolist(), numbers.tolist(), strict=True))


STAGES = st.lists(
    st.tuples(
        st.integers(1, 90),
        st.dictionaries(st.sampled_from("ABC"), st.floats(1e-4, 1.0), min_size=1),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(STAGES, st.sampled_from([0.0, 0.5, 1.0, 2.5]), st.integers(1, 37))
def test_any_place_of_the_stream_is_what_reading_from_its_start_gives(steps, cap, size):
    first, stages = 0, []
    for length, weights in steps:
        total = sum(weights.values())
        stages.append((first, {name: w / total for name, w in weights.items()}))
        first += length
    stream = Stream(stages, ROWS, cap)
    length = min(400, 400 if stream.total is None else stream.total)
    whole = rows_of(stream, 0, length)
    pieces = [rows_of(stream, at, min(size, length - at)) for at in range(0, length, size)]
    assert [row for piece in pieces for row in piece] == whole
    counts = collections.Counter()
    for place, (language, number) in enumerate(whole):
        assert number == counts[language]  # each language's rows come in order, none left out
        counts[language] += 1
        weights = next(w for at, w in reversed(stages) if at <= place)
        assert weights[stream.names[language]] > 0
        if place % 29 == 0:
            seen = stream.seen(place + 1)
            assert [seen[name] for name in stream.names] == [
                counts[i] for i in range(len(stream.names))
            ]
    if cap:
        limits = {name: max(1, int(cap * ROWS[name])) for name in stream.names}
        assert all(counts[i] <= limits[name] for i, name in enumerate(stream.names))


def test_no_language_is_further_than_a_row_or_so_from_its_share():
    shares = {"A": 0.7, "B": 0.2999, "C": 0.0001}
    stream = Stream([(0, shares)], ROWS)
    for place in (1, 17, 4096, 10**6, 10**9, 4 * 10**11):
        for name, count in stream.seen(place).items():
            assert abs(count - place * shares[name]) <= 1.5
    assert rows_of(stream, 10**9 + 5, 3) == rows_of(stream, 10**9, 8)[5:]


def test_a_language_seen_often_enough_gives_its_share_to_the_others():
    stream = Stream([(0, {"A": 0.5, "B": 0.3, "C": 0.2})], ROWS, 2.0)
    firsts = [phase.first for phase in stream.phases]
    # C's 14 rows last 70 rows; A and B then share as 5 to 3; then A is alone
    assert len(firsts) == 3 and abs(firsts[1] - 70) <= 3
    assert stream.phases[1].shares.tolist() == pytest.approx([0.625, 0.375, 0.0])
    assert stream.phases[2].shares.tolist() == [1.0, 0.0, 0.0]
    assert stream.total == 2 * 147
    seen = collections.Counter(language for language, _ in rows_of(stream, 0, stream.total))
    assert [seen[i] for i in range(3)] == [200, 80, 14]
    with pytest.raises(IndexError):
        stream.take(stream.total - 1, 2)


def test_the_curriculum_changes_shares_at_its_row_and_keeps_the_counts():
    stream = Stream([(0, {"A": 1.0}), (10, {"B": 0.5, "A": 0.5}), (14, {"C": 1.0})], ROWS)
    rows = rows_of(stream, 0, 16)
    assert rows[:10] == [(0, i) for i in range(10)]
    assert sorted(rows[10:14]) == [(0, 10), (0, 11), (1, 0), (1, 1)]
    assert rows[14:] == [(2, 0), (2, 1)]


def test_a_stage_whose_languages_are_all_used_up_ends_the_stream():
    stream = Stream([(0, {"C": 1.0}), (50, {"A": 1.0})], ROWS, 1.0)
    assert stream.total == 7
    assert Stream([(0, {"C": 1.0}), (7, {"A": 1.0})], ROWS, 1.0).total == 107


def test_the_order_is_equal_on_every_machine():
    stream = Stream([(0, {"A": 1 / 3, "B": 2 / 3})], ROWS, 3.0)
    assert [language for language, _ in rows_of(stream, 0, 9)] == [1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert stream.fingerprint() == Stream([(0, {"A": 1 / 3, "B": 2 / 3})], ROWS, 3.0).fingerprint()
    assert stream.fingerprint() != Stream([(0, {"A": 1 / 3, "B": 2 / 3})], ROWS).fingerprint()
