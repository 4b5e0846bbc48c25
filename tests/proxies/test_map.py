from __future__ import annotations

import functools
import json
import re
import traceback
from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    DataFromList,
    FixedSizeData,
    MapData,
    MapDataComponent,
    ProxyDataFlow,
    RepeatedData,
    SelectComponent,
    ShuffleData,
    set_seed,
)
from dataflow.testing import check_dataflow, numbers


def rows(*datapoints):
    return DataFromList(list(datapoints), shuffle=False)


def draw(dp, rng):
    return [*dp, float(rng.normal()), int(rng.integers(1 << 30)), rng.random(2).tolist()]


def fresh(seed, place, path, n):
    """The generator that sample ``n`` (from 1) of a map must see: a new one, that nothing was drawn from."""
    key = np.random.SeedSequence(seed, spawn_key=(place, *path, 1)).generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, n]))


class TestMapData:
    def test_it_applies_the_function_in_order(self):
        df = MapData(rows([1, "a"], [2, "b"]), lambda dp: [dp[0] * 255, dp[1]])
        assert list(df) == [[255, "a"], [510, "b"]]

    def test_none_drops_the_datapoint_and_the_length_is_that_of_the_flow(self):
        df = MapData(numbers(5), lambda dp: dp if dp[0] % 2 else None)
        assert list(df) == [[1], [3]]
        assert len(df) == 5

    @pytest.mark.parametrize("value", [0, False, "", [], {}], ids=repr)
    def test_other_false_values_are_kept(self, value):
        assert list(MapData(numbers(2), lambda _: value)) == [value, value]

    def test_an_empty_flow_stays_empty(self):
        assert list(MapData([], draw)) == []

    def test_a_function_may_change_the_list_that_it_is_given(self):
        data = [[1], [2]]
        df = MapData(DataFromList(data, shuffle=False), lambda dp: dp.append("x") or dp)
        assert list(df) == list(df) == [[1, "x"], [2, "x"]]
        assert data == [[1], [2]]

    @pytest.mark.parametrize("wrong", [None, 3, "f", [len]], ids=repr)
    def test_the_function_must_be_callable(self, wrong):
        with pytest.raises(TypeError, match="func must be callable, got"):
            MapData(numbers(3), wrong)

    @pytest.mark.parametrize("wrong", [None, 3, "text", int], ids=repr)
    def test_the_flow_must_be_one(self, wrong):
        with pytest.raises(TypeError, match="ds must be a DataFlow or another iterable of datapoints, got"):
            MapData(wrong, list)

    def test_repr_names_the_function(self):
        assert repr(MapData(numbers(3), draw)) == "MapData(ds=DataFromList, func=draw)"


class TwoArguments(Exception):
    def __init__(self, code, text):
        super().__init__(code, text)
        self.code = code


class TestErrorsOfTheFunction:
    @pytest.mark.parametrize(
        "error",
        [ValueError("bad"), KeyError("k"), TwoArguments(7, "bad"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")],
        ids=lambda error: type(error).__name__,
    )
    def test_it_is_the_very_same_error_with_a_note(self, error):
        def func(dp):
            if dp[0] == 2:
                raise error
            return dp

        it = iter(MapData(numbers(5), func))
        assert list(islice(it, 2)) == [[0], [1]]
        with pytest.raises(type(error)) as caught:
            next(it)
        assert caught.value is error
        assert caught.value.__notes__ == ["in MapData(ds=DataFromList, func=func), datapoint 2"]

    def test_dropped_datapoints_count(self):
        df = MapData(numbers(5), lambda dp: None if dp[0] < 3 else dp[7])
        with pytest.raises(IndexError) as caught:
            list(df)
        assert "datapoint 3" in caught.value.__notes__[0]

    def test_the_number_counts_on_after_a_position_was_loaded(self):
        df = MapData(numbers(5), lambda dp: 1 / (3 - dp[0]))
        it = iter(df)
        next(it), next(it)
        df.load_state_dict(df.state_dict())
        with pytest.raises(ZeroDivisionError) as caught:
            list(df)
        assert "datapoint 3" in caught.value.__notes__[0]

    def test_only_the_map_that_failed_is_named(self):
        inner = MapData(numbers(5), lambda dp: dp[1])
        with pytest.raises(IndexError) as caught:
            list(BatchData(MapDataComponent(MapData(inner, list), abs, 0), 2))
        assert caught.value.__notes__ == ["in MapData(ds=DataFromList, func=<lambda>), datapoint 0"]

    def test_stop_iteration_is_no_silent_end(self):
        def func(dp):
            return next(iter([]))

        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            list(MapData(numbers(5), func))
        text = "".join(traceback.format_exception(caught.value))
        assert "in MapData(ds=DataFromList, func=func), datapoint 0" in text

    def test_an_error_while_drawing_is_located_too(self):
        def func(dp, rng):
            raise OSError("no")

        with pytest.raises(OSError, match="no") as caught:
            list(MapData(numbers(5), func))
        assert "datapoint 0" in caught.value.__notes__[0]


class TestFunctionsThatDraw:
    def test_each_sample_has_a_fresh_philox_generator(self):
        set_seed(11)
        got = list(MapData(numbers(5), draw))
        assert got == [draw([i], fresh(11, place=1, path=[0], n=i + 1)) for i in range(5)]

    def test_what_one_sample_leaves_unused_does_not_reach_the_next(self):
        def func(dp, rng):  # half of a 64 bit word stays behind for every odd number of 32 bit draws
            return rng.integers(1 << 16, size=2 * dp[0] + 1, dtype=np.uint32).tolist()

        set_seed(3)
        expected = [func([i], fresh(3, place=1, path=[0], n=i + 1)) for i in range(6)]
        assert list(MapData(numbers(6), func)) == expected

    def test_the_second_pass_draws_anew(self):
        set_seed(11)
        df = MapData(numbers(3), draw)
        list(df)
        assert list(df) == [draw([i], fresh(11, place=1, path=[1], n=i + 1)) for i in range(3)]

    def test_a_repetition_has_a_path_of_its_own(self):
        set_seed(11)
        got = list(RepeatedData(MapData(numbers(2), draw), 2))
        assert got == [draw([i], fresh(11, place=1, path=[0, r], n=i + 1)) for r in range(2) for i in range(2)]

    def test_two_maps_draw_differently(self):
        set_seed(11)
        ((_, first, *_, second, _, _),) = MapData(MapData(numbers(1), draw), draw)
        assert first != second

    def test_samples_are_numbered_as_they_are_given_so_a_filter_above_changes_nothing(self):
        set_seed(11)
        whole = list(MapData(numbers(6), draw))
        dropped = list(MapData(MapData(numbers(6), draw), lambda dp: dp if dp[0] % 2 else None))
        assert dropped == whole[1::2]

    def test_it_draws_the_same_after_a_position_was_loaded(self):
        set_seed(11)
        df, resumed = MapData(numbers(8), draw), MapData(numbers(8), draw)
        whole = list(df)
        df.reset_state()
        it = iter(df)
        list(islice(it, 3))
        resumed.load_state_dict(json.loads(json.dumps(df.state_dict())))
        assert list(resumed) == whole[3:]

    @pytest.mark.parametrize(
        "func",
        [
            pytest.param(lambda dp, *, rng: [rng.random()], id="keyword-only"),
            pytest.param(lambda dp, scale=1, rng=None: [rng.random()], id="with a default"),
            pytest.param(functools.partial(lambda scale, dp, rng: [rng.random()], 2), id="partial"),
            pytest.param(type("F", (), {"__call__": lambda self, dp, rng: [rng.random()]})(), id="object"),
            pytest.param(type("F", (), {"f": lambda self, dp, rng: [rng.random()]})().f, id="method"),
        ],
    )
    def test_the_parameter_is_found_wherever_it_is_declared(self, func):
        set_seed(2)
        assert list(MapData(numbers(1), func)) == [[fresh(2, place=1, path=[0], n=1).random()]]

    def test_a_generator_bound_by_partial_is_left_alone(self):
        func = functools.partial(lambda dp, rng: [rng], rng="mine")
        assert list(MapData(numbers(1), func)) == [["mine"]]

    def test_a_component_function_may_draw(self):
        set_seed(2)
        df = MapDataComponent(rows({"x": 1, "y": 2}), lambda y, rng: y + rng.random(), index="y")
        assert list(df) == [{"x": 1, "y": 2 + fresh(2, place=1, path=[0], n=1).random()}]

    def test_it_keeps_the_contract_wherever_it_stands(self):
        def make():
            ds = MapData(MapDataComponent(numbers(9), lambda x, rng: x + rng.random()), draw)
            return FixedSizeData(MapData(ShuffleData(ds, 4), draw), 5)

        check_dataflow(make, new_process=False)


# datapoint, what it does not have, the error, and what it has
MISSING = [
    ([1, 2], 2, IndexError, "a list of 2. Give 0 to 1 as ARGUMENT"),
    ([1, 2], -3, IndexError, "a list of 2. Give 0 to 1 as ARGUMENT"),
    ((1,), "x", TypeError, "a tuple of 1. Give 0 to 0 as ARGUMENT"),
    ({"x": 1, "y": 2}, 0, KeyError, "a dict with the keys 'x', 'y'. Give one of them as ARGUMENT"),
    (dict.fromkeys(range(9)), 9, KeyError, "a dict with the keys 0, 1, 2, 3, 4, 5, .... Give one of them"),
    ({"x": 1}, [], TypeError, "a dict with the keys 'x'. Give one of them"),
    ([], 0, IndexError, "an empty list. Drop those upstream, e.g. MapData"),
    ({}, "x", KeyError, "an empty dict. Drop those upstream, e.g. MapData"),
]


class TestMapDataComponent:
    @pytest.mark.parametrize(
        ("dp", "index", "result"),
        [
            ([1, 2, 3], 0, [-1, 2, 3]),
            ([1, 2, 3], -1, [1, 2, -3]),
            ((1, 2), 1, [1, -2]),
            ({"x": 1, "y": 2}, "y", {"x": 1, "y": -2}),
        ],
        ids=["list", "from the end", "tuple", "dict"],
    )
    def test_it_replaces_one_component(self, dp, index, result):
        assert list(MapDataComponent(rows(dp), lambda x: -x, index)) == [result]

    def test_the_first_is_the_default(self):
        assert list(MapDataComponent(rows([1, 2]), lambda x: -x)) == [[-1, 2]]

    def test_none_drops_the_datapoint(self):
        df = MapDataComponent(numbers(4), lambda x: x if x % 2 else None)
        assert list(df) == [[1], [3]]
        assert len(df) == 4

    def test_the_datapoint_that_came_in_is_not_changed(self):
        dp = {"x": 1}
        df = MapDataComponent(MapData(numbers(1), lambda _: dp), lambda x: x + 1, "x")
        assert list(df) == [{"x": 2}]
        assert dp == {"x": 1}

    @pytest.mark.parametrize(("dp", "index", "error", "content"), MISSING, ids=str)
    def test_a_missing_component_is_located_and_the_others_are_named(self, dp, index, error, content):
        text = f"there is no component {index!r}: the datapoint is {content}".replace("ARGUMENT", "index")
        with pytest.raises(error, match=f"^{re.escape(text)}") as caught:
            list(MapDataComponent(MapData(rows(dp), lambda dp: dp), str, index))
        assert caught.value.__notes__[0].startswith("in MapDataComponent(ds=MapData, func=str")

    def test_an_error_of_the_function_is_left_as_it_is(self):
        with pytest.raises(IndexError) as caught:
            list(MapDataComponent(rows([[]]), lambda x: x[0]))
        assert str(caught.value) == "list index out of range"

    def test_a_datapoint_of_another_kind_speaks_for_itself(self):
        with pytest.raises(TypeError, match="'int' object is not subscriptable"):
            list(MapDataComponent(rows(3), abs))

    def test_the_function_must_be_callable(self):
        with pytest.raises(TypeError, match=r"func must be callable, got 0 \(int\)"):
            MapDataComponent(numbers(3), 0, abs)

    def test_it_keeps_the_contract(self):
        check_dataflow(
            lambda: MapDataComponent(DataFromList([{"x": i} for i in range(9)]), str, "x"), new_process=False
        )


class TestSelectComponent:
    @pytest.mark.parametrize(
        ("dp", "idxs", "result"),
        [
            (["c1", "c2", "c3"], [2, 1], ["c3", "c2"]),
            (["c1", "c2"], [0, 0, -1], ["c1", "c1", "c2"]),
            (("c1", "c2"), (1,), ["c2"]),
            ({"x": 1, "y": 2, "z": 3}, ["z", "x"], {"z": 3, "x": 1}),
        ],
        ids=["documented", "again and from the end", "tuple", "dict"],
    )
    def test_it_selects_and_reorders(self, dp, idxs, result):
        (got,) = SelectComponent(rows(dp), idxs)
        assert got == result
        assert list(got) == list(result)

    @pytest.mark.parametrize("wrong", [0, "xy", {0}, None], ids=repr)
    def test_idxs_must_be_a_list(self, wrong):
        with pytest.raises(TypeError, match="idxs must be a list of indices or keys, got"):
            SelectComponent(numbers(3), wrong)

    @pytest.mark.parametrize(("dp", "idx", "error", "content"), MISSING, ids=str)
    def test_a_missing_component_is_located_and_the_others_are_named(self, dp, idx, error, content):
        text = f"there is no component {idx!r}: the datapoint is {content}".replace("ARGUMENT", "idxs")
        with pytest.raises(error, match=f"^{re.escape(text)}") as caught:
            list(SelectComponent(MapData(rows(dp), lambda dp: dp), [*([*dp] if isinstance(dp, dict) else []), idx]))
        assert "in SelectComponent(" in caught.value.__notes__[0]

    def test_the_callers_list_is_not_kept(self):
        idxs = [0]
        df = SelectComponent(numbers(1), idxs)
        idxs.append(7)
        assert list(df) == [[0]]

    def test_it_keeps_the_contract(self):
        check_dataflow(lambda: SelectComponent(DataFromList([[i, -i] for i in range(9)]), [1, 0]), new_process=False)


def test_the_documented_chain():
    class Double(ProxyDataFlow):
        def __iter__(self):
            for dp in self.ds:
                yield [dp[0] * 2, *dp[1:]]

    df = SelectComponent(MapDataComponent(Double(rows([1, "a"], [2, "b"])), str.upper, 1), [1, 0])
    assert list(df) == [["A", 2], ["B", 4]]
