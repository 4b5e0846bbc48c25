"""Every flow of the package keeps the contract. Flows over files are checked beside their tests."""

from __future__ import annotations

import inspect
import queue
from itertools import islice

import numpy as np
import pytest

import dataflow as D  # noqa: N812  # as the field writes it
from dataflow.testing import check_dataflow


def shuffled(count=10):
    return D.DataFromList([[i, str(i)] for i in range(count)])


def first():
    return D.SelectComponent(shuffled(), [0])


def odd(dp):
    return dp if dp[0] % 2 else None


def jitter(dp, rng):
    return [*dp, float(rng.normal())]


def component(x, rng):
    return x + int(rng.integers(100))


def rows():
    for i in range(7):
        yield {"x": i}


def arrays(count=9):
    return D.DataFromList([[np.full((1 + i % 3,), i, np.float32), i] for i in range(count)])


# name: (make, exact length)
FLOWS = {
    "ProxyDataFlow": (lambda: D.ProxyDataFlow(shuffled()), True),
    "DataFromList": (lambda: shuffled(), True),
    "DataFromList in order": (lambda: D.DataFromList([{"x": i} for i in range(5)], shuffle=False), True),
    "DataFromList of tuples": (lambda: D.DataFromList([(i,) for i in range(5)]), True),
    "DataFromList empty": (lambda: D.DataFromList([]), True),
    "DataFromGenerator": (lambda: D.DataFromGenerator(rows), True),
    "DataFromIterable": (lambda: D.DataFromIterable([[i] for i in range(6)]), True),
    "FakeData": (lambda: D.FakeData([(2, 3), (4,)], size=9, dtype=["float32", "uint8"], domain=[(0, 1), (0, 9)]), True),
    "FakeData constant": (lambda: D.FakeData([(2,)], size=5, random=False), True),
    "MapData": (lambda: D.MapData(shuffled(), odd), False),
    "MapData that draws": (lambda: D.MapData(D.MapData(shuffled(), jitter), jitter), True),
    "MapDataComponent": (lambda: D.MapDataComponent(shuffled(), component, 0), True),
    "SelectComponent": (lambda: D.SelectComponent(shuffled(), [1, 0, 1]), True),
    "BatchData": (lambda: D.BatchData(shuffled(), 3), True),
    "BatchData with remainder": (lambda: D.BatchData(D.MapData(shuffled(), jitter), 3, remainder=True), True),
    "BatchData of lists": (lambda: D.BatchData(shuffled(), 3, use_list=True), True),
    "BatchDataByShape": (lambda: D.BatchDataByShape(arrays(), 2, 0), False),
    "FixedSizeData": (lambda: D.FixedSizeData(D.MapData(shuffled(), jitter), 7), True),
    "FixedSizeData without state": (lambda: D.FixedSizeData(shuffled(), 13, keep_state=False), True),
    "RepeatedData": (lambda: D.RepeatedData(shuffled(4), 3), True),
    "RepeatedData never": (lambda: D.RepeatedData(shuffled(4), 0), True),
    "RepeatedData for ever": (lambda: D.RepeatedData(shuffled(4), -1), True),
    "RepeatedDataPoint": (lambda: D.RepeatedDataPoint(shuffled(4), 3), True),
    "RandomChooseData": (lambda: D.RandomChooseData([shuffled(), (shuffled())]), True),
    "RandomChooseData weighted": (lambda: D.RandomChooseData([(shuffled(), 0.25), (shuffled(20), 0.75)]), True),
    "RandomMixData": (lambda: D.RandomMixData([shuffled(4), shuffled(0), D.MapData(shuffled(6), odd)]), False),
    "JoinData": (lambda: D.JoinData([shuffled(), D.MapData(shuffled(6), jitter)]), True),
    "JoinData of one flow twice": (lambda: twice(D.MapData(shuffled(), jitter)), True),
    "ConcatData": (lambda: D.ConcatData([shuffled(3), shuffled(0), D.MapData(shuffled(4), jitter)]), True),
    "LocallyShuffleData": (lambda: D.LocallyShuffleData(D.MapData(shuffled(), jitter), 4), False),
    "LocallyShuffleData with reuse": (lambda: D.LocallyShuffleData(shuffled(), 7, 2, 5), False),
    "LocallyShuffleData of one": (lambda: D.LocallyShuffleData(shuffled(), 1), False),
    "ShuffleData": (lambda: D.ShuffleData(D.MapData(shuffled(30), jitter), 7), True),
    "ShuffleData larger than its flow": (lambda: D.ShuffleData(shuffled(), 70), True),
    "ShuffleData over RepeatedData": (lambda: D.ShuffleData(D.RepeatedData(shuffled(), 3), 8), True),
    "CacheData": (lambda: D.CacheData(D.MapData(shuffled(), jitter)), True),
    "CacheData shuffled": (lambda: D.CacheData(shuffled(), shuffle=True), True),
    "a long composition": (
        lambda: D.BatchData(
            D.ShuffleData(
                D.ConcatData([D.CacheData(D.JoinData([first(), first()])), D.FixedSizeData(shuffled(), 7)]), 5
            ),
            2,
            use_list=True,
        ),
        True,
    ),
}
# Flows that print are quiet after their first datapoints, and the report is beside the point here.
PRINTING = {
    "PrintData": lambda: D.PrintData(shuffled()),
    "TestDataSpeed": lambda: D.TestDataSpeed(shuffled(), size=5),
}
# Those that need files: tests/sources.
ELSEWHERE = {"CaffeLMDB", "HDF5Data", "ImageFromFile", "LMDBData", "LMDBDataDecoder", "SVMLightData"}
ELSEWHERE |= {name for name in D.__all__ if name.startswith("Multi")}  # need workers: tests/parallel
ABSTRACT = {"DataFlow", "RNGDataFlow"}


def twice(df):
    return D.JoinData([df, df])


@pytest.mark.parametrize("name", FLOWS)
def test_flows_keep_the_contract(name):
    make, exact_length = FLOWS[name]
    check_dataflow(make, exact_length=exact_length)


@pytest.mark.parametrize("name", PRINTING)
def test_flows_that_print_keep_the_contract(name, capsys):
    check_dataflow(PRINTING[name], new_process=False)
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", [name for name in FLOWS if name != "FakeData constant"])
def test_inserting_print_data_changes_nothing(name, capsys):
    D.set_seed(8)
    make, _ = FLOWS[name]
    plain, printed = make(), D.PrintData(make(), num=2)
    for _ in range(2):
        assert str(list(islice(printed, 40))) == str(list(islice(plain, 40)))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: D.DataFromGenerator(rows()), id="generator object"),
        pytest.param(lambda: D.DataFromIterable(iter([[1], [2]])), id="iterator"),
        pytest.param(lambda: D.BatchData(D.ShuffleData(D.DataFromQueue(filled(4)), 2), 2), id="queue"),
    ],
)
def test_what_cannot_go_back_says_so(make):
    df = make()
    next(iter(df))
    with pytest.raises(D.errors.UsageError, match="no position that can be saved"):
        df.state_dict()


def filled(count):
    filled = queue.Queue()
    for i in range(count):
        filled.put([i])
    return filled


def test_every_public_flow_is_checked():
    flows = {name for name in D.__all__ if inspect.isclass(kind := getattr(D, name)) and issubclass(kind, D.DataFlow)}
    checked = {name.partition(" ")[0] for name in FLOWS} | PRINTING.keys() | ELSEWHERE | ABSTRACT
    assert flows - checked == {"DataFromQueue"}
