from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    CacheData,
    DataFromList,
    FixedSizeData,
    JoinData,
    LocallyShuffleData,
    MapData,
    ProxyDataFlow,
    RepeatedData,
    ShuffleData,
)
from dataflow.errors import EmptyFlowError, EndlessLength, UsageError
from dataflow.proxies import shuffle
from dataflow.testing import check_dataflow, numbers


def shuffled(count=10):
    return DataFromList([[i] for i in range(count)])


def values(rows):
    return [dp[0] for dp in rows]


class Watched(ProxyDataFlow):
    taken = 0

    def __iter__(self):
        for dp in self.ds:
            self.taken += 1
            yield dp


class Interrupted:
    """A function that is interrupted once, as by Ctrl-C."""

    calls = 0

    def __call__(self, dp):
        self.calls += 1
        if self.calls == 8:
            raise KeyboardInterrupt
        return dp


class TestShuffleData:
    @pytest.mark.parametrize("buffer_size", [1, 2, 7, 100, 101, 1000])
    def test_each_datapoint_comes_once(self, buffer_size):
        df = ShuffleData(numbers(100), buffer_size)
        for _ in range(2):
            assert sorted(values(df)) == list(range(100))
        assert len(df) == 100

    def test_a_buffer_of_one_changes_nothing(self):
        assert values(ShuffleData(numbers(20), 1)) == list(range(20))

    def test_each_pass_is_shuffled_anew(self):
        df = ShuffleData(numbers(100), 10, seed=0)
        assert values(df) != values(df)

    def test_a_buffer_as_large_as_the_flow_puts_every_datapoint_everywhere(self):
        df = ShuffleData(numbers(6), 6, seed=0)
        counts = Counter((i, x) for _ in range(1200) for i, x in enumerate(values(df)))
        assert len(counts) == 36
        assert all(140 < count < 260 for count in counts.values())

    def test_a_datapoint_comes_forward_no_further_than_the_buffer_reaches(self):
        df = ShuffleData(numbers(12), 4, seed=0)
        places = {}
        for _ in range(1000):
            for i, x in enumerate(values(df)):
                places.setdefault(x, set()).add(i)
        assert all(min(places[x]) >= x - 3 for x in range(12))
        assert all(len(places[x]) >= 4 for x in range(12))

    def test_the_first_comes_when_the_buffer_is_full_and_not_much_is_read_ahead(self):
        ds = Watched(numbers(1000))
        it = iter(ShuffleData(ds, 100))
        assert ds.taken == 0
        next(it)
        assert 100 <= ds.taken <= 102

    def test_an_empty_flow_is_empty(self):
        assert list(ShuffleData(numbers(0), 3)) == []

    def test_an_endless_flow_is_shuffled_without_end(self):
        df = ShuffleData(RepeatedData(numbers(3), -1), 4)
        assert Counter(values(islice(df, 300))).keys() == {0, 1, 2}
        with pytest.raises(EndlessLength):
            len(df)

    def test_datapoints_of_any_kind_pass_through(self):
        data = [np.zeros(3), "text", None, {"x": 1}, (1, 2), [[1], [2]]]
        assert sorted(map(repr, ShuffleData(DataFromList(data, shuffle=False), 4))) == sorted(map(repr, data))

    def test_dropping_the_iterator_frees_the_buffer_at_once(self):
        df = ShuffleData(FixedSizeData(numbers(9), 5), 3)
        for _ in range(3):
            next(iter(df))

    def test_what_is_below_stands_where_it_stood_even_if_nothing_more_is_asked(self):
        check_dataflow(
            lambda: JoinData([numbers(3), ShuffleData(FixedSizeData(shuffled(10), 8), 2)]), new_process=False
        )

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda: CacheData(shuffled(20), True), id="a cache"),
            pytest.param(lambda: FixedSizeData(shuffled(7), 11), id="what is kept"),
            pytest.param(lambda: ShuffleData(shuffled(20), 3), id="a shuffle"),
            pytest.param(lambda: RepeatedData(shuffled(8), 3), id="a repetition"),
        ],
    )
    def test_it_keeps_the_contract_over(self, make):
        check_dataflow(lambda: ShuffleData(make(), 6), new_process=False)


class TestLocallyShuffleData:
    def test_the_first_comes_when_the_buffer_is_full(self):
        ds = Watched(numbers(100))
        next(iter(LocallyShuffleData(ds, 10)))
        assert ds.taken in (10, 11)

    def test_it_never_ends_and_mixes_passes(self):
        df = LocallyShuffleData(numbers(4), 3, seed=0)
        assert Counter(values(islice(df, 400))).keys() == {0, 1, 2, 3}

    def test_counts_are_balanced(self):
        counts = Counter(values(islice(LocallyShuffleData(numbers(10), 5, seed=1), 1000)))
        assert len(counts) == 10
        assert all(99 <= count <= 101 for count in counts.values())

    @pytest.mark.parametrize("buffer_size", [1, 2, 3])
    def test_small_buffers_work(self, buffer_size):
        counts = Counter(values(islice(LocallyShuffleData(numbers(5), buffer_size, seed=1), 500)))
        assert all(98 <= count <= 102 for count in counts.values())

    def test_a_buffer_of_one_changes_nothing(self):
        assert values(islice(LocallyShuffleData(numbers(3), 1), 7)) == [0, 1, 2, 0, 1, 2, 0]

    def test_it_shuffles(self):
        got = values(islice(LocallyShuffleData(numbers(1000), 30, seed=1), 900))
        assert got != sorted(got)
        assert len(set(got)) == 900

    def test_a_datapoint_may_come_anywhere_from_its_entry_into_the_buffer(self):
        places = set()
        for seed in range(300):
            got = values(islice(LocallyShuffleData(numbers(1000), 9, seed=seed), 90))
            places.add(got.index(20))
        assert min(places) == 12
        assert places >= set(range(12, 28))

    @pytest.mark.parametrize("num_reuse", [1, 2, 3])
    def test_each_datapoint_comes_num_reuse_times(self, num_reuse):
        df = LocallyShuffleData(numbers(40), 6, num_reuse, seed=1)
        counts = Counter(values(islice(df, 20 * num_reuse)))
        assert max(counts.values()) <= num_reuse
        counts = Counter(values(islice(df, 4000 * num_reuse)))
        assert all(abs(count - 100 * num_reuse) <= 3 * num_reuse for count in counts.values())

    def test_copies_of_a_datapoint_are_lists_of_their_own(self):
        it = iter(LocallyShuffleData(numbers(3), 6, num_reuse=2, seed=0))
        for _ in range(20):
            dp = next(it)
            assert len(dp) == 1
            dp.clear()

    def test_num_reuse_above_the_buffer_works(self):
        counts = Counter(values(islice(LocallyShuffleData(numbers(5), 2, num_reuse=4, seed=1), 400)))
        assert all(70 <= count <= 90 for count in counts.values())

    def test_an_interval_above_the_buffer_leaves_the_first_datapoints_in_order(self):
        df = LocallyShuffleData(numbers(200), 5, shuffle_interval=50, seed=1)
        got = values(islice(df, 150))
        assert got[:45] == list(range(45))
        assert got != list(range(150))
        assert len(set(got)) == 150

    def test_the_next_iter_continues_the_buffer(self):
        kept, whole = (LocallyShuffleData(numbers(10), 4, seed=1) for _ in range(2))
        parts = values(islice(kept, 7)) + values(islice(kept, 1)) + values(islice(kept, 12))
        assert parts == values(islice(whole, 20))

    def test_reset_empties_the_buffer(self):
        df = LocallyShuffleData(numbers(10), 4, seed=1)
        first = values(islice(df, 7))
        df.reset_state()
        assert values(islice(df, 7)) == first

    def test_its_length_is_that_of_the_flow_times_reuse(self):
        assert len(LocallyShuffleData(numbers(10), 4)) == 10
        assert len(LocallyShuffleData(numbers(10), 4, num_reuse=3)) == 30

    def test_passes_cannot_overlap(self):
        df = LocallyShuffleData(numbers(10), 4)
        first, second = iter(df), iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"LocallyShuffleData.*df\.close\(\)"):
            next(second)

    def test_an_empty_flow_is_an_error(self):
        with pytest.raises(EmptyFlowError, match=r"LocallyShuffleData\(.*empty"):
            next(iter(LocallyShuffleData(numbers(0), 4)))

    def test_after_an_interrupt_it_is_not_silently_empty(self):
        df = LocallyShuffleData(MapData(numbers(5), Interrupted()), 3, seed=0)
        with pytest.raises(KeyboardInterrupt):
            list(islice(df, 9))
        assert len(list(islice(df, 9))) == 9

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"num_reuse": 0}, ValueError, "num_reuse must be an integer of at least 1, got 0"),
            ({"num_reuse": 1.5}, TypeError, "num_reuse must be an integer of at least 1, got 1.5"),
            ({"shuffle_interval": 0}, ValueError, "shuffle_interval must be an integer of at least 1, got 0"),
            ({"shuffle_interval": "3"}, TypeError, "shuffle_interval must be an integer"),
        ],
        ids=str,
    )
    def test_wrong_arguments(self, options, error, match):
        with pytest.raises(error, match=match):
            LocallyShuffleData(numbers(5), 2, **options)

    def test_the_old_argument_name_warns(self):
        with pytest.warns(DeprecationWarning, match="'nr_reuse' is an old name, use 'num_reuse'"):
            assert len(LocallyShuffleData(numbers(2), 4, nr_reuse=3)) == 6

    @pytest.mark.parametrize(
        ("count", "options"),
        [(10, {}), (10, {"num_reuse": 2}), (10, {"shuffle_interval": 1}), (10, {"shuffle_interval": 23})],
        ids=str,
    )
    def test_its_position_is_exact(self, count, options):
        check_dataflow(lambda: FixedSizeData(LocallyShuffleData(shuffled(count), 6, **options), 17), new_process=False)


def test_buffers_over_buffers_in_a_users_class_keep_the_contract():
    class User(ProxyDataFlow):
        def __iter__(self):
            yield from self.ds

    def make():
        inner = FixedSizeData(RepeatedData(shuffled(11), 2), 7)
        return User(FixedSizeData(LocallyShuffleData(inner, 4, shuffle_interval=1), 9))

    check_dataflow(make, exact_length=False, new_process=False)


@pytest.mark.parametrize("kind", [ShuffleData, LocallyShuffleData])
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"buffer_size": 0}, ValueError, "buffer_size must be an integer of at least 1, got 0"),
        ({"buffer_size": 2.5}, TypeError, r"buffer_size must be an integer of at least 1, got 2.5 \(float\)"),
        ({"buffer_size": None}, TypeError, "buffer_size must be an integer of at least 1, got None"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, got -1"),
        ({"seed": 0.5}, TypeError, "seed must be an integer of at least 0"),
        ({"ds": 3}, TypeError, "ds must be a DataFlow or another iterable"),
    ],
    ids=str,
)
def test_wrong_arguments(kind, options, error, match):
    with pytest.raises(error, match=match):
        kind(**{"ds": numbers(3), "buffer_size": 2, **options})


@pytest.mark.parametrize("slow", [False, True], ids=["fast flow", "slow flow"])
def test_how_much_is_read_at_a_time_does_not_change_the_order(slow, monkeypatch):
    expected = values(ShuffleData(numbers(300), 20, seed=5))
    monkeypatch.setattr(shuffle, "READ_SECONDS", 0 if slow else 1e9)
    assert values(ShuffleData(numbers(300), 20, seed=5)) == expected


def test_it_feeds_batches():
    df = BatchData(ShuffleData(numbers(10), 4, seed=0), 5)
    assert sorted(x for (batch,) in df for x in batch.tolist()) == list(range(10))
