"""What a gauge says of a buffer: how full it was, and where the time went."""

from __future__ import annotations

import time

import pytest

from dataflow.utils.gauge import BufferReport, Gauge


def test_nothing_is_said_before_the_buffer_has_been_used():
    gauge = Gauge(10)
    gauge.visit(0)
    assert gauge.report("flow") is None


def test_the_first_visit_waits_for_workers_that_start_and_does_not_count():
    gauge = Gauge(10)
    gauge.visit(0)
    gauge.waited_since(time.perf_counter() - 100)
    gauge.visit(6)
    gauge.visit(10)
    report = gauge.report("flow")
    assert (report.flow, report.size, report.full, report.waiting) == ("flow", 10, 0.8, 0.0)


@pytest.mark.parametrize(
    ("reading", "waiting", "slowest"),
    [
        pytest.param(0.9, 0.05, "ds is the bottleneck", id="source"),
        pytest.param(0.1, 0.6, "the workers are the bottleneck", id="workers"),
        pytest.param(0.1, 0.1, "what comes behind them is the bottleneck", id="consumer"),
    ],
)
def test_the_largest_share_is_the_bottleneck(reading, waiting, slowest):
    assert str(BufferReport("flow", 10, 0.5, reading, waiting)).endswith(f": {slowest}")


def test_the_shares_are_of_the_time_between_the_visits():
    gauge = Gauge(10)
    for _ in range(2):
        gauge.visit(5)
    start = time.perf_counter()
    time.sleep(0.03)
    gauge.read_since(start)
    start = time.perf_counter()
    time.sleep(0.01)
    gauge.waited_since(start)
    report = gauge.report("flow")
    assert 0.5 < report.reading < 0.9
    assert 0.1 < report.waiting < 0.5
    assert report.reading + report.waiting <= 1
