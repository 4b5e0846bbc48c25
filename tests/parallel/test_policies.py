"""Policies for errors in workers: the stream and the report are those of ``MapData``."""

from __future__ import annotations

import os
import tempfile
import time
from itertools import islice

import pytest

import dataflow as D  # noqa: N812  # as the field writes it
from dataflow import BatchData, MapData, Replace, Retry, Skip
from dataflow.errors import TooManyErrors, WorkerTimeout
from dataflow.testing import FailsOnce, check_dataflow, numbers

QUICK = ["inline", "thread", "fork", "zmq"]


def not_7(dp):
    if dp[0] % 10 == 7:
        raise ValueError(f"seven: {dp[0]}")
    return [dp[0]]


def drawn_not_7(dp, rng):
    return [*not_7(dp), float(rng.normal())]


def until_error(df):
    seen = []
    with pytest.raises(TooManyErrors) as caught:
        seen.extend(df)  # which keeps what came before
    return seen, str(caught.value).partition(": ")[2]


@pytest.mark.parametrize(
    ("kind", "workers"),
    [("inline", 1), ("thread", 1), ("thread", 3), ("fork", 1), ("fork", 3), ("spawn", 2), ("zmq", 2)],
)
@pytest.mark.parametrize("policy", [Skip(), Replace([-1]), Retry(1, wait=0, then=Skip())], ids=str)
def test_the_stream_and_the_report_are_those_of_one_process(make_map, kind, workers, policy):
    wanted = MapData(numbers(300), not_7, on_error=policy)
    with make_map(kind, numbers(300), workers, not_7, ordered=True, on_error=policy) as df:
        for _ in range(2):
            assert list(df) == list(wanted)
            assert df.error_report.first == wanted.error_report.first
            assert df.error_report.skipped == wanted.error_report.skipped
            assert df.error_report.replaced == wanted.error_report.replaced


@pytest.mark.parametrize("kind", QUICK)
def test_too_many_errors_come_at_the_same_place(make_map, kind):
    policy = Skip(at_most=5)
    with make_map(kind, numbers(300), 2, not_7, ordered=True, on_error=policy) as df:
        assert until_error(df) == until_error(MapData(numbers(300), not_7, on_error=policy))
        assert until_error(df)[0][-1] == [56]  # and in the next pass again


@pytest.mark.parametrize("kind", ["thread", "fork", "zmq"])
def test_without_order_all_come_but_those_that_are_skipped(make_map, kind):
    with make_map(kind, numbers(500), 3, not_7, on_error=Skip()) as df:
        assert sorted(df) == [[i] for i in range(500) if i % 10 != 7]
        assert df.error_report.skipped == 50


@pytest.mark.parametrize("kind", QUICK)
def test_a_retry_in_a_worker_draws_the_same(make_map, kind):
    def fails_once(dp, rng):
        value = float(rng.normal())
        return [fails(dp)[0], value]

    fails = FailsOnce(33)
    with make_map(kind, numbers(60), 2, fails_once, ordered=True, on_error=Retry(1, wait=0)) as df:
        df.reset_state()
        plain = MapData(numbers(60), drawn)
        plain.load_state_dict(df.state_dict())
        assert list(df) == list(plain)
        assert df.error_report.retried == 1


def drawn(dp, rng):
    return [dp[0], float(rng.normal())]


def test_a_position_with_errors_before_it_loads_anywhere(make_map):
    with make_map("fork", numbers(200), 2, not_7, ordered=True, on_error=Skip()) as df:
        it = iter(df)
        first = [next(it) for _ in range(70)]
        state = df.state_dict()
    plain = MapData(numbers(200), not_7, on_error=Skip())
    plain.load_state_dict(state)
    assert first + list(plain) == [[i] for i in range(200) if i % 10 != 7]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", QUICK)
def test_batches_are_made_of_what_is_left(make_batches, kind, ordered):
    wanted = list(BatchData(MapData(numbers(100), not_7, on_error=Skip()), 9))
    with make_batches(kind, numbers(100), 2, not_7, 9, ordered=ordered, on_error=Skip()) as df:
        batches = list(df)
        assert df.error_report.skipped == 10
    assert len(batches) == len(wanted)
    seen = [i for batch in batches for i in batch[0].tolist()]
    assert sorted(seen) == [i for i in range(100) if i % 10 != 7]
    if ordered:
        assert seen == sorted(seen)


@pytest.mark.parametrize("ordered", [True, False])
def test_batches_end_at_too_many_errors(make_batches, ordered):
    with make_batches("fork", numbers(300), 2, not_7, 9, ordered=ordered, on_error=Skip(at_most=5)) as df:
        seen, words = until_error(df)
    assert len(seen) < 30
    assert "at_most=5" in words


def test_an_endless_map_has_a_ceiling_a_pass(make_map):
    with make_map("fork", numbers(20), 2, not_7, strict=False, ordered=True, on_error=Skip(at_most=2)) as df:
        it = iter(df)
        assert [next(it) for _ in range(100)][-1] == [10]
        assert df.error_report.skipped <= 2  # of the sixth pass: that is reported a frame at a time


def test_the_waits_of_a_retry_are_no_silence(make_map):
    with make_map("fork", numbers(2), 1, FailsOnce(0), timeout=0.4, on_error=Retry(1, wait=1.5)) as df:
        assert list(df) == [[0], [1]]


def test_passes_that_run_into_each_other_are_counted_apart(make_map):
    def uneven(dp):
        time.sleep(0.002 * (dp[0] % 3))
        return not_7(dp)

    with make_map("thread", numbers(20), 3, uneven, strict=False, on_error=Skip(at_most=2)) as df:
        assert len(list(islice(df, 1000))) == 1000


def test_one_frame_of_failures_is_given_up_in_its_middle(make_map):
    def fails(dp):
        with open(calls, "ab") as file:
            file.write(b"x")
        raise OSError("the network is down")

    with (
        tempfile.TemporaryDirectory() as folder,
        make_map("fork", numbers(5000), 1, fails, buffer_size=4000, ordered=True, on_error=Skip(at_most=3)) as df,
    ):
        calls = f"{folder}/calls"
        assert until_error(df)[0] == []
        assert os.path.getsize(calls) < 100


def test_a_worker_that_is_stuck_in_a_retry_is_found_out(make_map):
    def stuck(dp):
        if dp[0] == 1 and fails(dp):
            time.sleep(60)
        return dp

    fails = FailsOnce(1)
    with (
        make_map("fork", numbers(2), 1, stuck, timeout=0.5, on_error=Retry(1, wait=0)) as df,
        pytest.raises(WorkerTimeout),
    ):
        list(df)


@pytest.mark.parametrize(
    "make",
    [
        lambda: D.MultiThreadMapData(numbers(10), 2, not_7, strict=True, ordered=True, on_error=Skip()),
        lambda: D.MultiProcessMapData(numbers(10), 2, not_7, strict=True, ordered=True, on_error=Skip()),
        lambda: D.MultiProcessMapDataZMQ(numbers(10), 2, not_7, strict=True, ordered=True, on_error=Replace([7])),
        lambda: D.MultiProcessMapAndBatchData(numbers(10), 2, not_7, 7, ordered=True, on_error=Skip()),
    ],
)
def test_every_map_takes_a_policy(make):
    with make() as df:
        assert len(list(df)) in (1, 9, 10)
        assert len(df.error_report.first) == 1


def test_a_map_with_a_policy_is_a_flow():
    check_dataflow(
        lambda: D.MultiThreadMapData(numbers(30), 2, not_7, strict=True, ordered=True, on_error=Skip()),
        exact_length=False,
    )
