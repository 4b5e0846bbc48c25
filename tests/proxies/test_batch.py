from __future__ import annotations

import pickle
from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    BatchDataByShape,
    CacheData,
    ConcatData,
    DataFlow,
    DataFromList,
    FixedSizeData,
    LocallyShuffleData,
    MapData,
    ProxyDataFlow,
    RepeatedData,
    ShuffleData,
)
from dataflow.errors import BatchError, UnknownLength, UsageError
from dataflow.testing import check_dataflow, numbers, same


def rows(*datapoints):
    return DataFromList(list(datapoints), shuffle=False)


def shuffled(count=10):
    return DataFromList([[i, str(i)] for i in range(count)])


class NoLength(DataFlow):
    def __iter__(self):
        for i in range(5):
            yield [i]


class TestBatchData:
    def test_components_are_stacked_along_a_new_first_axis(self):
        ((x, y),) = BatchData(rows([np.zeros((2, 3)), 1], [np.ones((2, 3)), 2]), 2)
        assert x.shape == (2, 2, 3)
        assert x[:, 0, 0].tolist() == [0, 1]
        assert y.tolist() == [1, 2]

    @pytest.mark.parametrize(
        ("components", "stacked"),
        [
            pytest.param([True, False], np.array([True, False]), id="bool"),
            pytest.param([1, -2], np.array([1, -2], np.int32), id="int"),
            pytest.param([2**31 - 1, -(2**31)], np.array([2**31 - 1, -(2**31)], np.int32), id="int32 limits"),
            pytest.param([0.5, 2.0], np.array([0.5, 2.0], np.float32), id="float"),
            pytest.param(["a", "ccc"], np.array(["a", "ccc"], "<U3"), id="str"),
            pytest.param(["ä", "日本"], np.array(["ä", "日本"]), id="not ASCII"),
            pytest.param([b"a", b"\xff\xfe"], np.array([b"a", b"\xff\xfe"], "S2"), id="bytes"),
            pytest.param([np.uint8(3), np.uint8(4)], np.array([3, 4], np.uint8), id="numpy integer"),
            pytest.param([np.float64(3), np.float64(4)], np.array([3, 4], np.float64), id="numpy float"),
            pytest.param([np.bool_(True), np.bool_(False)], np.array([True, False]), id="numpy bool"),
            pytest.param([np.str_("a"), np.str_("bcd")], np.array(["a", "bcd"]), id="numpy str"),
            pytest.param([np.zeros(2, ">i2")] * 2, np.zeros((2, 2), ">i2"), id="byte order"),
            pytest.param([np.zeros(())] * 2, np.zeros(2), id="no dimension"),
            pytest.param([np.zeros((0, 3))] * 2, np.zeros((2, 0, 3)), id="nothing in it"),
            pytest.param([np.datetime64("2020-01-01")] * 2, np.array(["2020-01-01"] * 2, "datetime64[D]"), id="dates"),
        ],
    )
    def test_dtypes(self, components, stacked):
        ((got,),) = BatchData(rows(*([component] for component in components)), 2)
        assert same(got, stacked)

    @pytest.mark.parametrize(
        ("datapoints", "batch"),
        [
            pytest.param([{"x": 1, "y": "a"}, {"y": "b", "x": 2}], {"x": [1, 2], "y": ["a", "b"]}, id="dicts"),
            pytest.param([(1, "a"), (2, "b")], [[1, 2], ["a", "b"]], id="tuples"),
            pytest.param([(1, "a"), [2, "b"]], [[1, 2], ["a", "b"]], id="a mix of lists and tuples"),
        ],
    )
    def test_a_dict_gives_a_dict_and_a_tuple_a_list(self, datapoints, batch):
        assert list(BatchData(rows(*datapoints), 2, use_list=True)) == [batch]

    def test_use_list_takes_anything(self):
        df = BatchData(rows([None, {"x": 1}], [[1, 2], "a"]), 2, use_list=True)
        assert list(df) == [[[None, [1, 2]], [{"x": 1}, "a"]]]

    def test_a_short_last_batch_is_dropped_by_default(self):
        df = BatchData(numbers(5), 2, use_list=True)
        assert list(df) == list(df) == [[[0, 1]], [[2, 3]]]
        assert len(df) == 2

    def test_a_remainder_comes_as_a_smaller_batch(self):
        df = BatchData(numbers(5), 2, remainder=True, use_list=True)
        assert list(df) == [[[0, 1]], [[2, 3]], [[4]]]
        assert len(df) == 3

    @pytest.mark.parametrize(("size", "batches"), [(2, 2), (4, 1), (3, 2), (9, 1)])
    def test_its_length_with_a_remainder(self, size, batches):
        df = BatchData(numbers(4), size, remainder=True)
        assert len(df) == len(list(df)) == batches

    def test_the_array_is_new_and_writable(self):
        array = np.zeros(3)
        ((batch,),) = BatchData(rows([array]), 1)
        batch += 1
        assert array.tolist() == [0, 0, 0]

    def test_memory_maps_are_arrays(self, tmp_path):
        array = np.memmap(tmp_path / "array", np.uint8, "w+", shape=(2, 3))
        ((batch,),) = BatchData(rows([array[0]], [array[1]]), 2)
        assert type(batch) is np.ndarray
        assert batch.shape == (2, 3)

    @pytest.mark.parametrize("size", [4, 100])
    def test_a_batch_larger_than_the_flow_is_an_error_at_construction(self, size):
        with pytest.raises(
            ValueError, match=rf"batch_size {size} is larger than the flow, which has 3.*remainder=True"
        ):
            BatchData(numbers(3), size)

    @pytest.mark.parametrize("ds", [NoLength(), RepeatedData(numbers(3), -1)], ids=["unknown", "endless"])
    def test_without_a_known_length_any_size_goes(self, ds):
        df = BatchData(ds, 100)
        with pytest.raises(UnknownLength):
            len(df)

    def test_with_a_remainder_it_may_be_larger(self):
        assert list(BatchData(numbers(2), 9, remainder=True, use_list=True)) == [[[0, 1]]]

    def test_an_empty_flow_with_a_remainder_is_empty(self):
        assert list(BatchData(numbers(0), 9, remainder=True)) == []

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
            ({"batch_size": -1}, ValueError, "batch_size must be an integer of at least 1, got -1"),
            ({"batch_size": 2.9}, TypeError, r"batch_size must be an integer of at least 1, got 2.9 \(float\)"),
            ({"batch_size": "2"}, TypeError, r"got '2' \(str\)"),
            ({"batch_size": True}, TypeError, r"got True \(bool\)"),
            ({"batch_size": np.array([2, 3])}, TypeError, "got a ndarray"),
            ({"remainder": 1}, TypeError, r"remainder must be True or False, got 1 \(int\)"),
            ({"use_list": None}, TypeError, "use_list must be True or False, got None"),
            ({"ds": 5}, TypeError, r"ds must be a DataFlow or another iterable of datapoints, got 5 \(int\)"),
        ],
        ids=str,
    )
    def test_wrong_arguments(self, options, error, match):
        with pytest.raises(error, match=match):
            BatchData(**{"ds": numbers(3), "batch_size": 2, **options})

    def test_a_numpy_integer_is_a_size(self):
        assert len(BatchData(numbers(3), np.int64(2))) == 1

    def test_an_error_says_in_which_batch(self):
        df = BatchData(rows([1], [2], [3], [4.5]), 2)
        with pytest.raises(BatchError, match=r"component 0: kinds differ \(1 of int, 1 of float\)") as caught:
            list(df)
        assert caught.value.__notes__ == ["in BatchData(ds=DataFromList, batch_size=2), datapoint 1"]

    def test_keys_that_differ_name_a_way_out(self):
        with pytest.raises(
            BatchError, match=r"keys differ \(1 of \('a',\), 1 of \('b',\)\). Make them alike .*MapData\("
        ):
            list(BatchData(rows({"a": 1}, {"b": 1}), 2))

    def test_the_number_of_the_batch_counts_on_after_a_position_was_loaded(self):
        df = BatchData(rows([1], [2], [3], [4.5]), 2)
        next(iter(df))
        df.load_state_dict(df.state_dict())
        with pytest.raises(BatchError) as caught:
            list(df)
        assert caught.value.__notes__ == ["in BatchData(ds=DataFromList, batch_size=2), datapoint 1"]

    def test_aggregate_batch_is_public(self):
        assert BatchData.aggregate_batch([[1, "a"], [2, "b"]], use_list=True) == [[1, 2], ["a", "b"]]
        batch = BatchData.aggregate_batch([{"x": 1.0}, {"x": 2.0}])
        assert same(batch, {"x": np.array([1, 2], np.float32)})

    @pytest.mark.parametrize(
        ("holder", "error", "match"),
        [
            ([], BatchError, "cannot stack an empty list of datapoints"),
            (3, TypeError, r"data_holder must be a list of datapoints, got 3 \(int\)"),
            ([3, 4], TypeError, r"a datapoint must be a list or dict of components, got 3 \(int\)"),
        ],
        ids=str,
    )
    def test_aggregate_batch_of_something_else(self, holder, error, match):
        with pytest.raises(error, match=match):
            BatchData.aggregate_batch(holder)

    def test_repr_shows_what_differs_from_the_defaults(self):
        assert (
            repr(BatchData(numbers(3), 2, use_list=True)) == "BatchData(ds=DataFromList, batch_size=2, use_list=True)"
        )

    @pytest.mark.parametrize("remainder", [False, True])
    @pytest.mark.parametrize("make", [lambda: ShuffleData(shuffled(), 4), lambda: CacheData(shuffled(), True)])
    def test_it_keeps_the_contract_over_what_reads_ahead_or_keeps(self, make, remainder):
        check_dataflow(lambda: BatchData(make(), 3, remainder), new_process=False)


def of_length(*lengths):
    """A flow of arrays of these lengths, numbered."""
    return DataFromList([[np.full(length, i), i] for i, length in enumerate(lengths)], shuffle=False)


def shapes(df):
    return [dp[0].shape for dp in df]


def mixed(count=11):
    return DataFromList([[np.full((1 + i * i % 3,), i), i] for i in range(count)])


class TestBatchDataByShape:
    def test_datapoints_of_one_shape_come_together_when_they_are_enough(self):
        df = BatchDataByShape(of_length(2, 3, 3, 2, 2, 2), 2, 0)
        assert [(dp[0].shape, dp[1].tolist()) for dp in df] == [((2, 3), [1, 2]), ((2, 2), [0, 3]), ((2, 2), [4, 5])]

    def test_groups_that_are_not_full_wait_for_the_next_pass(self):
        df = BatchDataByShape(of_length(2, 2, 2, 3, 3), 2, 0)
        assert shapes(df) == [(2, 2), (2, 3)]
        assert shapes(df) == [(2, 2), (2, 2), (2, 3)]

    def test_an_abandoned_pass_loses_nothing(self):
        df = BatchDataByShape(of_length(1, 2, 3, 1, 2, 3), 2, 0)
        assert [dp[1].tolist() for dp in islice(df, 1)] == [[0, 3]]
        assert [dp[1].tolist() for dp in df] == [[1, 1], [2, 2], [0, 3]]
        assert [dp[1].tolist() for dp in df] == [[4, 1], [5, 2], [0, 3]]

    def test_shapes_of_several_dimensions_and_of_none(self):
        df = BatchDataByShape(rows([np.zeros((2, 1))], [np.float64(0)], [np.zeros((2, 1))], [np.float64(1)]), 2, 0)
        assert shapes(df) == [(2, 2, 1), (2,)]

    def test_the_component_may_have_a_key(self):
        df = BatchDataByShape(rows({"x": np.zeros(2), "y": 1}, {"x": np.zeros(2), "y": 2}), 2, "x")
        (batch,) = df
        assert batch["y"].tolist() == [1, 2]

    def test_a_negative_index_counts_from_the_end(self):
        assert shapes(BatchDataByShape(of_length(1, 1), 2, -2)) == [(2, 1)]

    def test_its_length_is_rough(self):
        assert len(BatchDataByShape(of_length(2, 2, 2, 3, 3), 2, 0)) == 2

    def test_a_batch_larger_than_a_pass_fills_up_over_several(self):
        df = BatchDataByShape(of_length(1, 1), 5, 0)
        assert [shapes(df) for _ in range(5)] == [[], [], [(5, 1)], [], [(5, 1)]]

    def test_it_is_a_batch_data(self):
        assert issubclass(BatchDataByShape, BatchData)

    def test_reset_forgets_what_waits(self):
        df = BatchDataByShape(of_length(1), 2, 0)
        assert shapes(df) == []
        df.reset_state()
        assert shapes(df) == []
        assert shapes(df) == [(2, 1)]

    def test_a_pickled_one_has_nothing_waiting(self):
        df = BatchDataByShape(of_length(1), 2, 0)
        list(df)
        assert shapes(pickle.loads(pickle.dumps(df))) == []

    def test_passes_cannot_overlap(self):
        df = BatchDataByShape(of_length(1, 1, 1), 1, 0)
        first, second = iter(df), iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"BatchDataByShape.*df\.close\(\)"):
            next(second)

    @pytest.mark.parametrize("wrong", [3, "text", None, [1, 2]], ids=str)
    def test_a_component_without_shape_is_named(self, wrong):
        df = BatchDataByShape(rows([np.zeros(2), 1], [wrong, 2]), 2, 0)
        with pytest.raises(TypeError, match=r"component 0 must be an array to be grouped .*idx.*np.asarray") as caught:
            list(df)
        assert caught.value.__notes__ == ["in BatchDataByShape(ds=DataFromList, batch_size=2, idx=0), datapoint 1"]

    def test_a_missing_component_is_located(self):
        with pytest.raises(
            IndexError, match=r"no component 4: the datapoint is a list of 1\. Give 0 to 0 as idx"
        ) as caught:
            list(BatchDataByShape(rows([1]), 2, 4))
        assert caught.value.__notes__ == ["in BatchDataByShape(ds=DataFromList, batch_size=2, idx=4), datapoint 0"]

    def test_other_components_must_be_fit_to_be_stacked(self):
        df = BatchDataByShape(rows([np.zeros(2), 1], [np.zeros(2), "a"], [np.zeros(2), 2], [np.zeros(2), 3]), 2, 0)
        with pytest.raises(BatchError, match="component 1: kinds differ") as caught:
            list(df)
        assert "datapoint 1" in caught.value.__notes__[0]

    def test_after_an_error_it_goes_on_with_what_waits(self):
        bad = [np.zeros(2), "a"]
        data = [[np.zeros(3), 7], [np.zeros(2), 1], bad]
        df = BatchDataByShape(DataFromList(data, shuffle=False), 2, 0)
        with pytest.raises(BatchError):
            list(df)
        bad[1] = 2
        assert [dp[1].tolist() for dp in df] == [[7, 7], [1, 2]]

    @pytest.mark.parametrize(
        ("size", "error"), [(0, ValueError), (2.5, TypeError), (None, TypeError), (False, TypeError)], ids=str
    )
    def test_a_wrong_size(self, size, error):
        with pytest.raises(error, match="batch_size must be an integer of at least 1, got"):
            BatchDataByShape(numbers(3), size, 0)

    def test_a_wrong_flow(self):
        with pytest.raises(TypeError, match="ds must be a DataFlow or another iterable"):
            BatchDataByShape(None, 2, 0)

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(mixed, id="a list"),
            pytest.param(lambda: FixedSizeData(mixed(), 5), id="what is kept"),
            pytest.param(lambda: CacheData(mixed(), True), id="a cache"),
            pytest.param(lambda: FixedSizeData(LocallyShuffleData(mixed(), 5), 7), id="a buffer"),
            pytest.param(lambda: ConcatData([mixed(4), FixedSizeData(mixed(), 3)]), id="several"),
            pytest.param(lambda: MapData(mixed(), lambda dp, rng: [*dp, rng.random()]), id="a map that draws"),
        ],
    )
    @pytest.mark.parametrize("size", [2, 4, 7])
    def test_its_position_is_exact_over(self, make, size):
        check_dataflow(lambda: BatchDataByShape(make(), size, 0), exact_length=False, new_process=False)

    @pytest.mark.parametrize(
        "over",
        [
            pytest.param(lambda df: RepeatedData(df, 3), id="repeated"),
            pytest.param(lambda df: FixedSizeData(df, 5), id="cut"),
            pytest.param(lambda df: ConcatData([df, numbers(2), df]), id="in a row"),
            pytest.param(ProxyDataFlow, id="handed on"),
        ],
    )
    def test_its_position_is_exact_under(self, over):
        check_dataflow(lambda: over(BatchDataByShape(mixed(), 4, 0)), exact_length=False, new_process=False)

    def test_its_position_is_small_and_exact_in_a_long_flow(self):
        data = [[np.zeros(50 if i % 251 == 0 else i % 5), i] for i in range(3000)]

        def make():
            return BatchDataByShape(DataFromList(data, seed=1), 16, 0)

        df, resumed = make(), make()
        list(df)
        it = iter(df)
        list(islice(it, 100))
        state = df.state_dict()
        assert len(str(state)) < 3000
        resumed.load_state_dict(state)
        assert same(list(resumed), list(it))
        assert same(list(resumed), list(df))
