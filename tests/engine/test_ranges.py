"""Free ranges of addresses: whatever is taken and given back, none is handed out twice and none is lost."""

from __future__ import annotations

import random

import pytest

from dataflow.engine.ranges import Ranges


def test_the_smallest_range_that_is_large_enough_is_cut():
    ranges = Ranges()
    ranges.add(0, 100)
    ranges.add(200, 10)
    ranges.add(300, 20)
    assert [ranges.take(15), ranges.take(10), ranges.take(6), ranges.take(5)] == [300, 200, 0, 315]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 1, 0), (1, 0, 2)])
def test_ranges_that_touch_become_one(order):
    ranges = Ranges()
    for i in order:
        ranges.add(10 * i, 10)
    assert ranges.take(30) == 0
    assert ranges.take(1) is None


def test_ranges_that_do_not_touch_stay_apart():
    ranges = Ranges()
    ranges.add(0, 10)
    ranges.add(11, 10)
    assert ranges.take(11) is None


def test_the_last_one_is_taken_from_its_end():
    ranges = Ranges()
    ranges.add(0, 50)
    ranges.add(100, 10)
    assert [ranges.take_last(4), ranges.take_last(99), ranges.take_last(20)] == [(106, 110), (100, 106), (30, 50)]
    assert ranges.take(30) == 0


def test_nothing_is_handed_out_twice_or_lost():
    draw = random.Random(1)
    ranges, used = Ranges(), {}
    ranges.add(0, 1000)
    for _ in range(3000):
        size = draw.randint(1, 60)
        start = ranges.take(size) if draw.random() < 0.6 else None
        if start is not None:
            assert not set(range(start, start + size)) & {at for s, n in used.items() for at in range(s, s + n)}
            used[start] = size
        elif used:
            start = draw.choice([*used])
            ranges.add(start, used.pop(start))
    for start, size in used.items():
        ranges.add(start, size)
    assert ranges.take(1000) == 0
