from __future__ import annotations

import gc
import logging
import pickle
import time
import weakref

import numpy as np
import pytest

from dataflow import DataFromList, MapData, MapDataComponent, Replace, Retry, Skip
from dataflow.errors import TooManyErrors
from dataflow.policies import ErrorReport, Settled
from dataflow.testing import FailsOnce, check_dataflow, numbers


class FailsFirst:
    """Return each datapoint, but raise ``error`` the first ``times`` times it comes."""

    def __init__(self, times, error=OSError):
        self.times, self.error, self.calls = times, error, {}

    def __call__(self, dp):
        self.calls[dp[0]] = self.calls.get(dp[0], 0) + 1
        if self.calls[dp[0]] <= self.times:
            raise self.error(f"call {self.calls[dp[0]]} of {dp[0]}")
        return dp


def not_7(dp):
    """Raise at every datapoint that ends in 7."""
    if dp[0] % 10 == 7:
        raise ValueError(f"seven: {dp[0]}")
    return [dp[0]]


def test_skip_drops_the_datapoint_and_nothing_else():
    df = MapData(numbers(30), not_7, on_error=Skip())
    assert list(df) == [[i] for i in range(30) if i % 10 != 7]
    assert (df.error_report.skipped, df.error_report.replaced, df.error_report.retried) == (3, 0, 0)
    assert [settled.number for settled in df.error_report.first] == [7, 17, 27]


def test_a_flow_with_a_policy_is_a_flow():
    check_dataflow(lambda: MapData(numbers(30), not_7, on_error=Skip()), exact_length=False)
    check_dataflow(lambda: MapData(numbers(30), not_7, on_error=Replace([-1])))


def test_without_a_policy_the_error_is_raised_as_it_was():
    with pytest.raises(ValueError, match="seven: 7") as caught:
        list(MapData(numbers(30), not_7))
    assert not any("dataflow/policies" in str(entry.path) for entry in caught.traceback)
    assert "datapoint 7" in caught.value.__notes__[0]


def test_one_more_than_allowed_is_an_error_at_its_place():
    it = iter(MapData(numbers(30), not_7, on_error=Skip(at_most=1)))
    assert [next(it) for _ in range(16)] == [[i] for i in range(17) if i != 7]
    with pytest.raises(
        TooManyErrors, match=r"datapoint 17 was skipped: ValueError: seven: 17 \(test_policies.py:\d+ in "
    ):
        next(it)


def test_no_ceiling_is_none():
    assert len(list(MapData(numbers(300), not_7, on_error=Skip(at_most=None)))) == 270


def test_each_pass_has_a_report_and_a_ceiling_of_its_own():
    df = MapData(numbers(20), not_7, on_error=Skip(at_most=2))
    for _ in range(3):
        assert len(list(df)) == 18
        assert df.error_report.skipped == 2


def test_another_error_than_the_policy_is_for_is_raised():
    with pytest.raises(ValueError, match="seven: 7") as caught:
        list(MapData(numbers(30), not_7, on_error=Skip(only=(OSError, KeyError))))
    assert "datapoint 7" in caught.value.__notes__[0]


def test_a_replacement_is_a_copy():
    by = [np.zeros(2)]
    first, second = MapData(DataFromList([[7], [17]], shuffle=False), not_7, on_error=Replace(by))
    first[0] += 1
    assert second[0].tolist() == by[0].tolist() == [0, 0]


def test_a_replacement_may_be_made_from_the_datapoint_and_the_error():
    df = MapData(numbers(10), not_7, on_error=Replace(lambda dp, error: [dp[0] * 100, str(error)]))
    assert list(df)[7] == [700, "seven: 7"]


def test_a_replacement_of_none_drops_the_datapoint():
    df = MapData(numbers(10), not_7, on_error=Replace(lambda dp, error: None))
    assert len(list(df)) == 9
    assert df.error_report.replaced == 1


def test_an_error_of_the_replacement_is_raised():
    with pytest.raises(ZeroDivisionError) as caught:
        list(MapData(numbers(10), not_7, on_error=Replace(lambda dp, error: 1 / 0)))
    assert "datapoint 7" in caught.value.__notes__[0]


def test_a_component_that_fails_is_replaced_as_a_datapoint():
    ds = DataFromList([["1", "a"], ["x", "b"]], shuffle=False)
    assert list(MapDataComponent(ds, int, on_error=Replace([0, "none"]))) == [[1, "a"], [0, "none"]]


def test_retry_serves_what_fails_at_times():
    df = MapData(numbers(5), FailsFirst(2), on_error=Retry(2, wait=0))
    assert list(df) == [[i] for i in range(5)]
    assert df.error_report.retried == 5


def test_the_last_error_is_raised_when_retries_are_used_up():
    with pytest.raises(OSError, match="call 3 of 0"):
        list(MapData(numbers(5), FailsFirst(3), on_error=Retry(2, wait=0)))


def test_what_fails_after_retries_may_be_skipped():
    df = MapData(numbers(10), not_7, on_error=Retry(2, wait=0, then=Skip(at_most=1)))
    assert len(list(df)) == 9
    assert df.error_report.skipped == 1


def test_the_ceiling_behind_retries_counts():
    with pytest.raises(TooManyErrors, match="at_most=0"):
        list(MapData(numbers(10), not_7, on_error=Retry(1, wait=0, then=Skip(at_most=0))))


def test_retries_are_for_some_errors_and_the_rest_goes_on_to_then():
    func = FailsFirst(1, KeyError)
    df = MapData(numbers(3), func, on_error=Retry(2, wait=0, only=OSError, then=Skip()))
    assert list(df) == []
    assert func.calls == {0: 1, 1: 1, 2: 1}


def test_retries_wait_twice_as_long_each_time():
    start = time.perf_counter()
    list(MapData(numbers(1), FailsFirst(3), on_error=Retry(3, wait=0.02)))
    assert time.perf_counter() - start >= 0.02 + 0.04 + 0.08


def test_a_retry_draws_the_same_numbers():
    fails = FailsOnce(3)

    def func(dp, rng):
        value = rng.random()
        return [fails(dp)[0], value]

    def plain(dp, rng):
        return [dp[0], rng.random()]

    wanted = MapData(numbers(6), plain)
    wanted.reset_state()
    seen = MapData(numbers(6), func, on_error=Retry(1, wait=0))
    seen.load_state_dict(wanted.state_dict())
    assert list(seen) == list(wanted)


def test_a_resumed_pass_skips_the_same():
    df = MapData(numbers(30), not_7, on_error=Skip(at_most=2))
    it = iter(df)
    first = [next(it) for _ in range(15)]
    again = MapData(numbers(30), not_7, on_error=Skip(at_most=2))
    again.load_state_dict(df.state_dict())
    assert first + list(again) == [[i] for i in range(30) if i % 10 != 7]
    assert again.error_report.skipped == 2  # counted from where it was resumed


def test_the_first_of_all_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING, "dataflow"):
        df = MapData(numbers(30), not_7, on_error=Skip())
        list(df)
        list(df)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "datapoint 7 was skipped: ValueError: seven: 7" in record.getMessage()


def test_a_report_keeps_ten_and_counts_all():
    report = ErrorReport("MapData", None)
    for i in range(100):
        report.note(Settled(i, "skipped", "ValueError: x"))
    assert report.skipped == 100
    assert [settled.number for settled in report.first] == list(range(10))
    assert str(report).startswith(
        "MapData: 100 skipped, 0 replaced, 0 retried\n  datapoint 0 was skipped: ValueError: x"
    )


def test_before_the_first_pass_the_report_is_empty():
    assert MapData(numbers(3), not_7, on_error=Skip()).error_report.skipped == 0


def test_long_messages_are_cut():
    def fails(dp):
        raise ValueError("long\n" * 10_000 + str(dp))

    df = MapData(numbers(1), fails, on_error=Skip())
    assert list(df) == []
    assert len(df.error_report.first[0].error) < 400
    assert "\n" not in df.error_report.first[0].error


def test_an_error_that_cannot_show_itself_is_skipped_too():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def fails(dp):
        raise Mute

    df = MapData(numbers(1), fails, on_error=Skip())
    assert list(df) == []
    assert "Mute: (its text cannot be shown)" in df.error_report.first[0].error


def test_what_would_upset_a_terminal_is_left_out():
    def fails(dp):
        raise ValueError("\x1b[31mred\x00")

    df = MapData(numbers(1), fails, on_error=Skip())
    assert list(df) == []
    assert df.error_report.first[0].error.isprintable()


def test_the_error_that_decided_is_reported():
    def fails(dp):
        calls.append(dp)
        raise OSError("first") if len(calls) == 1 else ValueError("second")

    calls = []
    df = MapData(numbers(1), fails, on_error=Retry(3, wait=0, only=OSError, then=Skip(only=ValueError)))
    assert list(df) == []
    assert len(calls) == 2
    assert "ValueError: second" in df.error_report.first[0].error


def test_a_replacement_may_strip_the_error():
    df = MapData(numbers(8), not_7, on_error=Replace(lambda dp, error: [str(error.with_traceback(None))]))
    assert list(df)[7] == ["seven: 7"]


@pytest.mark.parametrize("policy", [Skip(None), Replace([0], None), Retry(2, wait=0, then=Skip(None))], ids=str)
def test_what_has_failed_is_let_go_of(policy):
    alive = weakref.WeakSet()

    class Thing:
        pass

    def fails(dp):
        thing = Thing()
        alive.add(thing)
        raise ValueError(dp)

    gc.disable()
    try:
        for _ in MapData(numbers(5), fails, on_error=policy):
            pass
        assert len(alive) <= 1
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (Skip(), "Skip()"),
        (Skip(None), "Skip(at_most=None)"),
        (Skip(only=KeyError), "Skip(only=<class 'KeyError'>)"),
        (Replace([0], 3), "Replace(by=[0], at_most=3)"),
        (Retry(2, then=Skip(5)), "Retry(times=2, then=Skip(at_most=5))"),
    ],
)
def test_a_policy_shows_the_call_that_makes_it(policy, text):
    assert repr(policy) == text


def test_a_policy_is_pickled_with_its_flow():
    df = pickle.loads(pickle.dumps(MapData(numbers(10), not_7, on_error=Retry(1, wait=0, then=Replace([0])))))
    assert list(df)[7] == [0]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: MapData(numbers(1), not_7, on_error="skip"), TypeError, "on_error must be Skip.*got 'skip'"),
        (lambda: MapData(numbers(1), not_7, on_error=Skip), TypeError, "got the class Skip"),
        (lambda: Skip(at_most=-1), ValueError, "at_most"),
        (lambda: Skip(at_most=0.5), TypeError, "at_most"),
        (lambda: Skip(only="OSError"), TypeError, "only must be a class of exceptions"),
        (lambda: Skip(only=()), TypeError, "only must be a class of exceptions"),
        (lambda: Skip(only=KeyboardInterrupt), TypeError, "only must be a class of exceptions"),
        (lambda: Replace(0), TypeError, "by must be a datapoint or a function"),
        (lambda: Retry(0), ValueError, "times"),
        (lambda: Retry(1, wait=-1), ValueError, "wait"),
        (lambda: Retry(1, wait="1"), TypeError, "wait"),
        (lambda: Retry(1, wait=float("inf")), ValueError, "wait must be from 0 to 60 seconds, got inf"),
        (lambda: Retry(1, then="skip"), TypeError, "then must be Skip"),
        (lambda: Retry(1, then=Retry(1)), TypeError, "then must be Skip"),
    ],
)
def test_a_wrong_argument_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()
