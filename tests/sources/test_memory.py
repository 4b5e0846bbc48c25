from __future__ import annotations

import json
from collections import UserList

import numpy as np
import pytest

from dataflow import DataFromList, FixedSizeData, MapData, RepeatedData
from dataflow.testing import check_dataflow


def in_order(lst):
    return DataFromList(lst, shuffle=False)


def test_yields_the_list_in_order():
    assert list(in_order([[1, "a"], [2, "b"]])) == [[1, "a"], [2, "b"]]


def test_shuffles_by_default_and_anew_in_each_pass():
    df = DataFromList([[i] for i in range(20)], seed=3)
    first, second = list(df), list(df)
    assert first != second
    assert sorted(first) == sorted(second) == [[i] for i in range(20)]


def test_the_same_seed_gives_the_same_order():
    first = DataFromList(range(50), seed=3)
    second = DataFromList(range(50), seed=3)
    assert list(first) == list(second) != list(range(50))


def test_shuffling_leaves_the_list_of_the_user_in_order():
    lst = [[i] for i in range(20)]
    list(DataFromList(lst, seed=3))
    assert lst == [[i] for i in range(20)]


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(
    "lst",
    [
        pytest.param([[0], [1], [2]], id="lists"),
        pytest.param([{"x": 0}, {"x": 1}, {"x": 2}], id="dicts"),
        pytest.param([[0], {"x": 1}, [2]], id="lists and dicts"),
    ],
)
def test_what_a_consumer_changes_does_not_reach_the_list(lst, shuffle):
    before = json.dumps(lst)
    for dp in DataFromList(lst, shuffle=shuffle):
        dp.clear()
    assert json.dumps(lst) == before


def test_a_map_that_edits_its_datapoint_does_not_reach_the_list():
    def tenfold(dp):
        dp[0] *= 10
        return dp

    lst = [[1], [2]]
    assert list(RepeatedData(MapData(in_order(lst), tenfold), 2)) == [[10], [20], [10], [20]]
    assert lst == [[1], [2]]


def test_arrays_are_handed_on_without_a_copy():
    lst = [[np.zeros(3)]]
    assert next(iter(in_order(lst)))[0] is lst[0][0]


def test_an_empty_list_is_an_empty_flow():
    assert list(DataFromList([])) == []
    assert len(DataFromList([])) == 0


@pytest.mark.parametrize(
    "lst",
    [
        pytest.param(((0,), (1,), (2,)), id="tuple"),
        pytest.param(range(3), id="range"),
        pytest.param(np.arange(6).reshape(3, 2), id="array"),
        pytest.param(UserList([[0], [1], [2]]), id="sequence"),
    ],
)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_any_sequence_will_do(lst, shuffle):
    check_dataflow(lambda: DataFromList(lst, shuffle), new_process=False)


@pytest.mark.parametrize("lst", [[0, 1, 2, 3, 4], (0, 1, 2, 3, 4), range(5), UserList(range(5))], ids=repr)
def test_the_position_is_an_index(lst):
    df = in_order(lst)
    it = iter(df)
    places = [df.state_dict()["at"]["index"]]
    places += [df.state_dict()["at"]["index"] for _ in it]
    assert places == [0, 1, 2, 3, 4, 5]


def test_a_sequence_that_loads_its_datapoints_is_not_read_before_they_are_asked_for():
    loaded = []

    class Lazy:
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            loaded.append(index)
            return [index]

    it = iter(in_order(Lazy()))
    assert [next(it), next(it)] == [[0], [1]]
    assert loaded == [0, 1]


def test_a_list_that_grows_between_two_passes_is_read_as_it_is():
    lst = [[0]]
    df = in_order(lst)
    assert list(df) == [[0]]
    lst.append((1,))
    assert list(df) == [[0], (1,)]
    assert len(df) == 2


def test_a_list_that_grows_during_a_pass_keeps_its_position():
    lst = [[0], [1]]
    df = in_order(lst)
    it = iter(df)
    next(it)
    lst.append([2])
    assert df.state_dict()["at"]["index"] == 1


def test_overlapping_passes_are_independent():
    df = in_order([[0], [1]])
    first, second = iter(df), iter(df)
    assert [next(first), next(second), next(first), next(second)] == [[0], [0], [1], [1]]


def test_kept_passes_go_through_the_list():
    df = FixedSizeData(in_order([[1], [2], [3]]), 2)
    assert [list(df), list(df), list(df)] == [[[1], [2]], [[3], [1]], [[2], [3]]]


@pytest.mark.parametrize("lst", [{1: [1]}, "text", b"text", 5, None, iter([[1]]), {1}], ids=repr)
def test_what_has_no_index_is_refused(lst):
    with pytest.raises(TypeError, match=r"lst must be a list of datapoints, got .*; for others, DataFromIterable"):
        DataFromList(lst)


def test_shuffle_must_be_a_flag():
    with pytest.raises(TypeError, match=r"shuffle must be True or False, got 1 \(int\)"):
        DataFromList([], shuffle=1)


def test_the_seed_must_be_a_number():
    with pytest.raises(TypeError, match="seed must be an integer of at least 0, got 'x'"):
        DataFromList([], seed="x")
