from __future__ import annotations

import json
import pickle
import weakref
from collections import UserList

import numpy as np
import pytest

from dataflow import DataFromList, FixedSizeData, MapData, MultiProcessRunner, RepeatedData
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


SHARED = [
    pytest.param([{"path": f"{i}.jpg", "label": i} for i in range(20)], id="one layout"),
    pytest.param([[i] * i for i in range(20)], id="several layouts"),
    pytest.param([[np.full(3, i), i] for i in range(20)], id="arrays"),
    pytest.param([], id="empty"),
    pytest.param(UserList(range(20)), id="sequence"),
]


@pytest.mark.parametrize("lst", SHARED)
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_a_shared_list_is_a_flow_like_any(lst, shuffle):
    check_dataflow(lambda: DataFromList(lst, shuffle, shared=True), new_process=False)


@pytest.mark.slow
def test_the_position_in_a_shared_list_loads_in_a_new_process():
    check_dataflow(lambda: DataFromList([[i, "x"] for i in range(10)], shared=True))


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_a_shared_list_yields_what_the_list_does_and_in_its_order(shuffle):
    lst = [{"path": f"{i}.jpg", "label": i} for i in range(5000)]
    shared, plain = DataFromList(lst, shuffle, shared=True, seed=3), DataFromList(lst, shuffle, seed=3)
    assert [list(shared), list(shared)] == [list(plain), list(plain)]
    assert len(shared) == len(plain) == 5000


def test_a_state_loads_into_a_shared_list_and_into_the_list():
    lst = [[i] for i in range(5000)]
    shared, plain = DataFromList(lst, shared=True, seed=3), DataFromList(lst, seed=3)
    it = iter(shared)
    for _ in range(2000):
        next(it)
    state = shared.state_dict()
    assert state["at"] == {"pass": [0], "index": 2000, "size": 5000}
    plain.load_state_dict(state)
    assert list(plain) == list(it)


def test_a_datapoint_of_a_shared_list_belongs_to_its_consumer_all_through():
    df = DataFromList([{"boxes": [[1, 2]], "image": np.zeros(2)}] * 3, shuffle=False, shared=True)
    for dp in df:
        assert (dp["boxes"], dp["image"].tolist()) == ([[1, 2]], [0, 0])
        dp["boxes"][0].clear()
        dp["image"][:] = 1


def test_a_shared_list_is_not_kept():
    class Record(dict):
        pass

    lst = [Record(x=1)]
    record = weakref.ref(lst[0])
    df = DataFromList(lst, shared=True)
    lst.append(Record(x=2))
    del lst
    assert record() is None
    assert list(df) == [{"x": 1}]


def test_a_shared_list_travels_by_pickle():
    df = pickle.loads(pickle.dumps(DataFromList([[i, f"{i}"] for i in range(50)], shared=True, seed=3)))
    assert sorted(df) == [[i, f"{i}"] for i in range(50)]


@pytest.mark.parametrize("start_method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_yield_a_shared_list(start_method):
    lst = [{"path": f"{i}.jpg", "image": np.full(3, i)} for i in range(50)]
    with MultiProcessRunner(DataFromList(lst, shared=True), 10, 1, start_method=start_method) as df:
        rows = sorted(df, key=lambda dp: int(dp["path"][:-4]))
    assert [(dp["path"], dp["image"].tolist()) for dp in rows] == [(f"{i}.jpg", [i] * 3) for i in range(50)]


def test_a_shared_list_is_shown_in_one_line():
    assert repr(DataFromList([[1], [2]], shared=True)) == "DataFromList(lst=packed list of 2, shared=True)"


def test_what_cannot_be_packed_is_named():
    with pytest.raises(TypeError, match=r"lst\[1\]\['x'\] is a generator and cannot be sent to another process"):
        DataFromList([{"x": 1}, {"x": (i for i in [])}], shared=True)


@pytest.mark.parametrize("lst", [{1: [1]}, "text", b"text", 5, None, iter([[1]]), {1}], ids=repr)
def test_what_has_no_index_is_refused(lst):
    with pytest.raises(TypeError, match=r"lst must be a list of datapoints, got .*; for others, DataFromIterable"):
        DataFromList(lst)


def test_shuffle_must_be_a_flag():
    with pytest.raises(TypeError, match=r"shuffle must be True or False, got 1 \(int\)"):
        DataFromList([], shuffle=1)


def test_shared_must_be_a_flag():
    with pytest.raises(TypeError, match=r"shared must be True or False, got 'yes'"):
        DataFromList([], shared="yes")


def test_the_seed_must_be_a_number():
    with pytest.raises(TypeError, match="seed must be an integer of at least 0, got 'x'"):
        DataFromList([], seed="x")
