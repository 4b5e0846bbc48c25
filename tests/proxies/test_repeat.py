from __future__ import annotations

import queue
from itertools import chain, islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    CacheData,
    DataFromList,
    DataFromQueue,
    FixedSizeData,
    MapData,
    RepeatedData,
    RepeatedDataPoint,
    ShuffleData,
)
from dataflow.errors import EmptyFlowError, EndlessLength, UnknownLength, UsageError
from dataflow.testing import check_dataflow, numbers

ONE_TO_FIVE = [[1], [2], [3], [4], [5]]


def one_to_five():
    return DataFromList(ONE_TO_FIVE, shuffle=False)


def shuffled(count=10):
    return DataFromList([[i] for i in range(count)])


def values(rows):
    return [dp[0] for dp in rows]


class Fails:
    """A function that fails once, or is interrupted, as by Ctrl-C."""

    def __init__(self, at, error):
        self.at = at
        self.error = error

    def __call__(self, dp):
        if dp[0] == self.at:
            self.at = None
            raise self.error
        return dp


class TestRepeatedData:
    @pytest.mark.parametrize(("num", "result"), [(0, []), (1, [0, 1]), (3, [0, 1, 0, 1, 0, 1])])
    def test_it_yields_the_flow_num_times(self, num, result):
        df = RepeatedData(numbers(2), num)
        assert values(df) == values(df) == result
        assert len(df) == len(result)

    def test_minus_one_never_ends(self):
        df = RepeatedData(numbers(2), -1)
        assert values(islice(df, 7)) == [0, 1, 0, 1, 0, 1, 0]

    def test_each_repetition_is_a_pass_of_its_own(self):
        got = values(RepeatedData(shuffled(50), 2))
        assert sorted(got[:50]) == sorted(got[50:]) == list(range(50))
        assert got[:50] != got[50:]

    def test_an_endless_flow_has_no_length(self):
        with pytest.raises(EndlessLength, match=r"RepeatedData\(ds=DataFromList, num=-1\) never ends.*FixedSizeData"):
            len(RepeatedData(numbers(2), -1))

    @pytest.mark.parametrize("error", [ValueError, NotImplementedError, TypeError])
    def test_its_error_is_what_the_document_and_what_python_expect(self, error):
        with pytest.raises(error):
            len(RepeatedData(numbers(2), -1))

    def test_an_empty_flow_repeated_for_ever_is_an_error_not_a_busy_loop(self):
        with pytest.raises(EmptyFlowError, match=r"RepeatedData\(.*\) repeats DataFromList\(.*one pass of it is empty"):
            list(RepeatedData(numbers(0), -1))

    def test_a_flow_that_becomes_empty_is_an_error_too(self):
        rows = [[1]]
        df = RepeatedData(DataFromList(rows, shuffle=False), -1)
        it = iter(df)
        assert next(it) == [1]
        rows.clear()
        with pytest.raises(EmptyFlowError):
            next(it)

    def test_an_empty_flow_repeated_some_times_is_empty(self):
        assert list(RepeatedData(numbers(0), 3)) == []

    @pytest.mark.parametrize(
        ("num", "error", "match"),
        [
            (-2, ValueError, "num must be an integer of at least -1, got -2"),
            (1.0, TypeError, r"num must be an integer of at least -1, got 1.0 \(float\)"),
            (None, TypeError, "got None"),
            (True, TypeError, r"got True \(bool\)"),
            ("3", TypeError, r"got '3' \(str\)"),
        ],
        ids=str,
    )
    def test_a_wrong_number(self, num, error, match):
        with pytest.raises(error, match=match):
            RepeatedData(numbers(2), num)

    def test_the_old_argument_name_warns(self):
        with pytest.warns(DeprecationWarning, match="'nr' is an old name, use 'num'"):
            assert len(RepeatedData(numbers(2), nr=3)) == 6

    def test_it_keeps_the_contract_over_what_is_kept(self):
        check_dataflow(lambda: RepeatedData(FixedSizeData(shuffled(4), 3), 3), new_process=False)


class TestRepeatedDataPoint:
    def test_each_datapoint_num_times_in_a_row(self):
        df = RepeatedDataPoint(numbers(3), 2)
        assert values(df) == [0, 0, 1, 1, 2, 2]
        assert len(df) == 6

    def test_each_is_a_list_of_its_own_with_the_same_components(self):
        array = np.zeros(2)
        first, second = RepeatedDataPoint(DataFromList([[array]], shuffle=False), 2)
        assert first is not second
        assert first[0] is second[0] is array

    def test_what_a_consumer_changes_does_not_reach_the_next(self):
        it = iter(RepeatedDataPoint(DataFromList([{"x": 1}]), 3))
        next(it).clear()
        assert list(it) == [{"x": 1}, {"x": 1}]

    def test_an_empty_flow_is_empty(self):
        assert list(RepeatedDataPoint(numbers(0), 3)) == []

    @pytest.mark.parametrize(
        ("num", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (None, TypeError)], ids=str
    )
    def test_a_wrong_number(self, num, error):
        with pytest.raises(error, match="num must be an integer of at least 1, got"):
            RepeatedDataPoint(numbers(2), num)

    def test_the_old_argument_name_warns(self):
        with pytest.warns(DeprecationWarning, match="'nr' is an old name, use 'num'"):
            assert len(RepeatedDataPoint(numbers(2), nr=3)) == 6

    def test_it_keeps_the_contract_over_what_reads_ahead(self):
        check_dataflow(lambda: RepeatedDataPoint(ShuffleData(shuffled(9), 4), 3), new_process=False)


class TestFixedSizeData:
    @pytest.mark.parametrize(
        ("size", "keep_state", "passes"),
        [
            (3, True, [[1, 2, 3], [4, 5, 1], [2, 3, 4], [5, 1, 2]]),
            (3, False, [[1, 2, 3], [1, 2, 3], [1, 2, 3]]),
            (6, False, [[1, 2, 3, 4, 5, 1], [1, 2, 3, 4, 5, 1]]),
            (6, True, [[1, 2, 3, 4, 5, 1], [2, 3, 4, 5, 1, 2], [3, 4, 5, 1, 2, 3]]),
            (5, True, [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]),
            (12, True, [[1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2], [3, 4, 5, 1, 2, 3, 4, 5, 1, 2, 3, 4]]),
        ],
        ids=str,
    )
    def test_the_documented_sequences(self, size, keep_state, passes):
        df = FixedSizeData(one_to_five(), size, keep_state)
        assert [values(df) for _ in passes] == passes
        assert len(df) == size

    def test_it_keeps_state_by_default(self):
        df = FixedSizeData(one_to_five(), 3)
        assert values(df) + values(df) == [1, 2, 3, 4, 5, 1]

    def test_after_a_break_it_goes_on_behind_the_last_datapoint_received(self):
        df = FixedSizeData(one_to_five(), 3)
        assert next(iter(df)) == [1]
        assert values(df) == [2, 3, 4]

    def test_after_a_break_without_state_it_starts_again(self):
        df = FixedSizeData(one_to_five(), 3, keep_state=False)
        assert next(iter(df)) == [1]
        assert values(df) == [1, 2, 3]

    def test_without_state_a_shuffled_flow_is_shuffled_anew(self):
        df = FixedSizeData(shuffled(50), 50, keep_state=False)
        assert values(df) != values(df)

    def test_reset_forgets_the_state(self):
        df = FixedSizeData(one_to_five(), 3)
        values(df)
        df.reset_state()
        assert values(df) == [1, 2, 3]

    def test_it_cuts_an_endless_flow(self):
        assert values(FixedSizeData(RepeatedData(numbers(2), -1), 5)) == [0, 1, 0, 1, 0]

    @pytest.mark.parametrize("keep_state", [True, False])
    def test_an_empty_flow_is_an_error_not_an_endless_loop(self, keep_state):
        with pytest.raises(EmptyFlowError, match=r"FixedSizeData\(.*\) repeats .* until it has enough.*empty"):
            list(FixedSizeData(numbers(0), 3, keep_state))

    def test_a_flow_that_drops_everything_is_an_error(self):
        with pytest.raises(EmptyFlowError):
            list(FixedSizeData(MapData(numbers(3), lambda dp: None), 3))

    def test_passes_cannot_overlap(self):
        df = FixedSizeData(one_to_five(), 3)
        first, second = iter(df), iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"FixedSizeData.*df\.close\(\)"):
            next(second)

    def test_without_state_passes_overlap(self):
        df = FixedSizeData(one_to_five(), 3, keep_state=False)
        assert values(x for pair in zip(df, df, strict=True) for x in pair) == [1, 1, 2, 2, 3, 3]

    @pytest.mark.parametrize("error", [KeyboardInterrupt, LookupError])
    @pytest.mark.parametrize("at", [1, 3, 4, 5])
    def test_after_an_error_it_goes_on_behind_the_last_datapoint_received(self, at, error):
        df = FixedSizeData(MapData(one_to_five(), Fails(at, error)), 3)
        got = []
        with pytest.raises(error):
            got.extend(chain(df, df))
        assert got == ONE_TO_FIVE[: at - 1]
        assert values([*got, *df]) == [1, 2, 3, 4, 5, 1, 2][: at + 2]

    def test_after_an_error_a_flow_that_cannot_go_back_just_goes_on(self):
        arrived = queue.SimpleQueue()
        for i in range(1, 6):
            arrived.put([i])
        df = FixedSizeData(MapData(DataFromQueue(arrived), Fails(3, LookupError)), 3)
        got = []
        with pytest.raises(LookupError):
            got.extend(df)
        assert values(islice(df, 2)) == [4, 5]

    @pytest.mark.parametrize(
        ("size", "error"),
        [(0, ValueError), (-1, ValueError), (3.0, TypeError), (None, TypeError), ("3", TypeError)],
        ids=str,
    )
    def test_a_wrong_size(self, size, error):
        with pytest.raises(error, match="size must be an integer of at least 1, got"):
            FixedSizeData(numbers(3), size)

    def test_a_wrong_flag(self):
        with pytest.raises(TypeError, match=r"keep_state must be True or False, got 1 \(int\)"):
            FixedSizeData(numbers(3), 2, 1)

    @pytest.mark.parametrize("keep_state", [True, False])
    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda: CacheData(shuffled(4), True), id="cache"),
            pytest.param(lambda: BatchData(ShuffleData(shuffled(7), 3), 2, remainder=True), id="shuffle"),
            pytest.param(lambda: FixedSizeData(shuffled(5), 3), id="itself"),
        ],
    )
    def test_it_keeps_the_contract_over(self, make, keep_state):
        check_dataflow(lambda: FixedSizeData(make(), 5, keep_state), new_process=False)


@pytest.mark.parametrize("kind", [RepeatedData, RepeatedDataPoint, FixedSizeData])
@pytest.mark.parametrize("wrong", [None, 3, "text"], ids=repr)
def test_the_flow_must_be_one(kind, wrong):
    with pytest.raises(TypeError, match="ds must be a DataFlow or another iterable of datapoints, got"):
        kind(wrong, 2)


def test_repr_shows_the_options():
    assert (
        repr(FixedSizeData(numbers(3), 2, keep_state=False))
        == "FixedSizeData(ds=DataFromList, size=2, keep_state=False)"
    )
    assert repr(RepeatedData(numbers(3), 2)) == "RepeatedData(ds=DataFromList, num=2)"


def test_a_flow_over_an_unknown_length_has_none():
    ds = MapData(RepeatedData(numbers(3), -1), list)
    for df in (RepeatedData(ds, 2), RepeatedDataPoint(ds, 2)):
        with pytest.raises(UnknownLength):
            len(df)
