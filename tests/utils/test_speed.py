from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from dataflow.utils import speed
from dataflow.utils.speed import SpeedReport, count_bytes, measure

REPORT = SpeedReport(2000, 4.0, 500.0, 2.5e9, 0.0015, 1.25e-05, 3_200_000_000, complete=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only stands still or jumps: ``clock.now += 1``."""

    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(speed, "perf_counter", clock)
    return clock


def test_only_the_time_inside_of_the_iterator_counts(clock):
    def rows():
        for seconds in (5, 1, 2, 3):
            clock.now += seconds
            yield [np.zeros(10)]

    def received(_dp):
        clock.now += 100

    report = measure(rows(), size=3, warmup=1, received=received)
    assert (report.datapoints, report.seconds, report.datapoints_per_second) == (3, 6.0, 0.5)
    assert (report.median_seconds, report.bytes_per_second, report.complete) == (2.0, 40.0, True)
    assert 2.9 < report.p99_seconds <= 3


def test_takes_no_more_than_it_was_told():
    it = iter(range(10))
    received = []
    measure(it, size=3, warmup=2, received=received.append)
    assert received == [0, 1, 2, 3, 4]
    assert list(it) == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("available", "size", "warmup", "measured", "complete"),
    [
        pytest.param(5, 3, 2, 3, True, id="just enough"),
        pytest.param(4, 3, 2, 2, False, id="ends while it is measured"),
        pytest.param(1, 3, 2, 0, False, id="ends in the warmup"),
        pytest.param(0, 3, 0, 0, False, id="empty"),
    ],
)
def test_measures_as_far_as_it_goes(available, size, warmup, measured, complete):
    report = measure(iter([[1]] * available), size, warmup, received=lambda dp: None)
    assert (report.datapoints, report.complete) == (measured, complete)


def test_an_empty_report_is_all_zero():
    report = measure(iter([]), 3, 0, received=lambda dp: None)
    assert dataclasses.astuple(dataclasses.replace(report, peak_memory_bytes=1)) == (0, 0, 0, 0, 0, 0, 1, False, [])


def test_the_peak_of_memory_is_in_bytes():
    report = measure(iter([[1]]), 1, 0, received=lambda dp: None)
    assert 5e6 < report.peak_memory_bytes < 1e12


def test_says_it_in_four_lines():
    assert str(REPORT) == (
        "2000 datapoints in 4 s\n"
        "500 datapoints/s, 2.5 GB/s\n"
        "2 ms a datapoint: median 1.5 ms, 99 % within 12.5 us\n"
        "3.2 GB peak memory"
    )


def test_says_that_the_flow_was_short_or_empty():
    short = dataclasses.replace(REPORT, complete=False)
    assert str(short).startswith("2000 datapoints in 4 s, and then the flow ended: fewer than warmup + size\n")
    empty = dataclasses.replace(REPORT, datapoints=0, complete=False)
    assert str(empty) == "no datapoint to measure: the flow is empty, or has no more than the warmup takes"


def test_goes_to_json_and_back():
    assert SpeedReport(**json.loads(REPORT.to_json())) == REPORT
    assert REPORT.as_dict()["datapoints"] == 2000


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        REPORT.datapoints = 1


@pytest.mark.parametrize(
    ("dp", "count"),
    [
        ([np.zeros((2, 3), "f4"), np.float32(1)], 28),
        (["abc", b"de", bytearray(4)], 9),
        ([1, 2.5, True], 24),
        ({"a": [1, (2,)], "b": {"c": {3}}}, 24),
        ([None, object()], 0),
        (np.zeros(3), 24),
    ],
    ids=str,
)
def test_bytes_are_counted_through_and_through(dp, count):
    assert count_bytes(dp) == count
