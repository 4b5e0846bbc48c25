from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    CacheData,
    DataFlow,
    DataFromList,
    FixedSizeData,
    LocallyShuffleData,
    MapData,
    ProxyDataFlow,
    RepeatedData,
    ShuffleData,
)
from dataflow.errors import EmptyFlowError, UnknownLength, UsageError
from dataflow.testing import FailsAt, check_dataflow, numbers


def shuffled(count=10):
    return DataFromList([[i] for i in range(count)])


def even(dp):
    return dp if dp[0] % 2 == 0 else None


class Watched(ProxyDataFlow):
    """Counts the passes that were begun, and the datapoints that were taken."""

    passes = taken = 0

    def __iter__(self):
        self.passes += 1
        for dp in self.ds:
            self.taken += 1
            yield dp


class Generated(DataFlow):
    def __iter__(self):
        for i in range(4):
            yield [i]


class Reuses(DataFlow):
    """Yields one list again and again, as careless code does."""

    def __iter__(self):
        dp = [None]
        for i in range(4):
            dp[0] = i
            yield dp


def test_the_first_pass_streams_and_later_ones_come_from_memory():
    source = Watched(numbers(3))
    df = CacheData(source)
    it = iter(df)
    assert (next(it), source.taken) == ([0], 1)
    assert list(it) == [[1], [2]]
    assert list(df) == list(df) == [[0], [1], [2]]
    assert (source.passes, source.taken) == (1, 3)


def test_the_first_pass_is_never_shuffled():
    df = CacheData(numbers(50), shuffle=True)
    assert list(df) == [[i] for i in range(50)]


def test_later_passes_are_shuffled_each_anew():
    df = CacheData(numbers(50), shuffle=True, seed=1)
    first, second, third = list(df), list(df), list(df)
    assert sorted(second) == sorted(third) == first
    assert len({str(order) for order in (first, second, third)}) == 3


def test_the_order_of_a_pass_does_not_depend_on_the_passes_before():
    given_up, whole = CacheData(numbers(20), True, seed=1), CacheData(numbers(20), True, seed=1)
    list(given_up)
    next(iter(given_up))
    list(whole)
    list(whole)
    assert list(given_up) == list(whole)


def test_an_abandoned_first_pass_leaves_nothing():
    source = Watched(numbers(5))
    df = CacheData(source)
    assert list(islice(df, 3)) == [[0], [1], [2]]
    assert list(df) == [[0], [1], [2], [3], [4]]
    assert list(df) == [[0], [1], [2], [3], [4]]
    assert source.passes == 2


def test_a_pass_that_failed_leaves_nothing():
    source = FailsAt(numbers(3), 2, OSError("disk"))
    df = CacheData(source)
    with pytest.raises(OSError, match="disk"):
        list(df)
    source.number = None
    assert list(df) == [[0], [1], [2]]


def test_taking_exactly_its_length_completes_it():
    source = Watched(numbers(5))
    df = CacheData(source)
    for _ in range(3):
        assert list(islice(df, 5)) == [[0], [1], [2], [3], [4]]
    assert source.passes == 1


@pytest.mark.parametrize("said", [2, 5, 0], ids=["too short", "too long", "none"])
def test_a_wrong_length_does_no_harm(said):
    class Wrong(Watched):
        def __len__(self):
            return said

    source = Wrong(numbers(4))
    df = CacheData(source)
    assert [list(df) for _ in range(3)] == [[[0], [1], [2], [3]]] * 3
    assert source.passes == 1
    check_dataflow(lambda: CacheData(Wrong(shuffled(4)), True), exact_length=False, new_process=False)


def test_what_a_consumer_changes_stays_out_of_the_cache():
    df = CacheData(DataFromList([[1], {"x": 1}, (1,)], shuffle=False))
    for _ in range(3):
        first, second, third = df
        assert (first, second, third) == ([1], {"x": 1}, (1,))
        first.append(2)
        second["y"] = 2


def test_what_a_source_changes_stays_out_of_the_cache():
    df = CacheData(Reuses())
    list(df)
    assert list(df) == [[0], [1], [2], [3]]


def test_arrays_are_cached_not_copied():
    array = np.zeros(3)
    df = CacheData(MapData(numbers(1), lambda _: [array]))
    list(df)
    assert next(iter(df))[0] is array


def test_its_length_is_that_of_the_flow_until_it_knows_better():
    df = CacheData(MapData(numbers(5), even))
    assert len(df) == 5
    list(df)
    assert len(df) == 3


def test_a_flow_without_length_gets_one_by_being_cached():
    df = CacheData(Generated())
    with pytest.raises(UnknownLength):
        len(df)
    list(df)
    assert len(df) == 4


def test_reset_empties_it():
    source = Watched(numbers(3))
    df = CacheData(source)
    list(df)
    df.reset_state()
    list(df)
    assert source.passes == 2


@pytest.mark.parametrize("ds", [[], MapData(numbers(3), lambda dp: None)], ids=["no datapoints", "all dropped"])
def test_an_empty_flow_is_an_error(ds):
    with pytest.raises(EmptyFlowError, match=r"CacheData\(.*\) has nothing to cache: a pass of .* is empty"):
        list(CacheData(ds))


def test_passes_cannot_overlap_while_it_fills():
    df = CacheData(numbers(3))
    first, second = iter(df), iter(df)
    next(first)
    with pytest.raises(UsageError, match=r"CacheData.*already being iterated.*df\.close\(\)"):
        next(second)


def test_passes_overlap_once_it_is_full():
    df = CacheData(numbers(3))
    list(df)
    first, second = iter(df), iter(df)
    assert [next(first), next(second), next(first), next(second)] == [[0], [0], [1], [1]]


def test_dropping_the_iterator_frees_it_under_a_shuffle_too():
    df = BatchData(ShuffleData(CacheData(numbers(9)), 3), 2)
    for _ in range(3):
        next(iter(df))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"ds": 3}, TypeError, "ds must be a DataFlow or another iterable"),
        ({"shuffle": 1}, TypeError, r"shuffle must be True or False, got 1 \(int\)"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, got -1"),
        ({"seed": "0"}, TypeError, "seed must be an integer of at least 0"),
    ],
    ids=str,
)
def test_wrong_arguments(options, error, match):
    with pytest.raises(error, match=match):
        CacheData(**{"ds": numbers(3), **options})


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(CacheData(numbers(3), shuffle=True, seed=3)) == "CacheData(ds=DataFromList, shuffle=True, seed=3)"


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: CacheData(FixedSizeData(shuffled(), 7), True), id="over what is kept"),
        pytest.param(lambda: CacheData(FixedSizeData(LocallyShuffleData(shuffled(), 4), 6)), id="over a buffer"),
        pytest.param(lambda: CacheData(CacheData(shuffled(), True)), id="over a cache"),
        pytest.param(lambda: FixedSizeData(CacheData(shuffled(), True), 7), id="under FixedSizeData"),
        pytest.param(lambda: FixedSizeData(CacheData(shuffled(), True), 10, keep_state=False), id="cut to its length"),
        pytest.param(lambda: ShuffleData(CacheData(shuffled(30), True), 6), id="under a shuffle"),
        pytest.param(lambda: RepeatedData(CacheData(shuffled(), True), 3), id="repeated"),
        pytest.param(lambda: CacheData(Generated()), id="over a user's class"),
        pytest.param(lambda: Watched(CacheData(shuffled(), True)), id="under a user's class"),
    ],
)
def test_it_keeps_the_contract(make):
    check_dataflow(make, exact_length=False, new_process=False)


def test_a_position_after_an_abandoned_pass_fills_from_the_right_pass():
    def make():
        return CacheData(FixedSizeData(shuffled(7), 3), shuffle=True, seed=2)

    df, resumed = make(), make()
    next(iter(df))
    list(df)
    it = iter(df)
    got = [next(it)]
    resumed.load_state_dict(df.state_dict())
    got += list(resumed)
    assert got == [got[0], *it]
    assert list(resumed) == list(df)
