"""The shuffled order: every row once an epoch, another order each, the same everywhere."""

import numpy as np
import pytest

from geex_jax.data import shuffle


def shuffled(numbers, count, seed):
    return shuffle.shuffled(
        numbers, np.full(len(numbers), count), np.full(len(numbers), seed, np.uint64)
    )


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 100, 257, 4096, 5000])
def test_every_epoch_holds_every_row_once_in_an_order_of_its_own(count):
    order = shuffled(np.arange(3 * count), count, 7).reshape(3, count)
    assert all(np.array_equal(np.sort(epoch), np.arange(count)) for epoch in order)
    if count > 99:
        assert not np.array_equal(order[0], order[1]) and not np.array_equal(order[1], order[2])
        other = shuffled(np.arange(count), count, 8)
        assert np.mean(order[0] == other) < 0.1 and np.mean(order[0] == np.arange(count)) < 0.1


def test_any_place_by_itself_and_places_far_out():
    order = shuffled(np.arange(1000), 300, 3)
    assert [int(shuffled(np.array([i]), 300, 3)[0]) for i in range(0, 1000, 37)] == list(
        order[::37]
    )
    far = shuffled(np.arange(10**12, 10**12 + 50), 10**9, 5)
    assert len(set(far.tolist())) == 50 and far.min() >= 0 and far.max() < 10**9
    assert len(shuffled(np.zeros(0, np.int64), 5, 0)) == 0


def test_neighbours_are_spread_evenly():
    count = 10_000
    order = shuffled(np.arange(count), count, 1)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.04
    cells = np.histogram2d(np.arange(count), order, bins=10)[0]
    # 100 cells of 100 on average: chi square has 81 degrees of freedom, deviation 12.7
    assert ((cells - 100) ** 2 / 100).sum() < 81 + 5 * 12.7


def test_orders_of_several_counts_side_by_side():
    numbers, counts = np.arange(90) % 45, np.repeat([20, 33], 45)
    seeds = np.repeat(np.array([3, 4], np.uint64), 45)
    both = shuffle.shuffled(numbers, counts, seeds)
    assert np.array_equal(both[:45], shuffled(np.arange(45), 20, 3))
    assert np.array_equal(both[45:], shuffled(np.arange(45), 33, 4))


def test_the_order_is_the_same_on_every_machine():
    assert shuffled(np.arange(8), 8, 0).tolist() == [4, 2, 3, 7, 1, 6, 0, 5]
