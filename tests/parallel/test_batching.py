from __future__ import annotations

import json
import os
import time
from itertools import islice

import numpy as np
import pytest

import dataflow as D  # noqa: N812  # as the field writes it
from dataflow import BatchData, DataFromGenerator, DataFromList, MapData
from dataflow.errors import BatchError
from dataflow.testing import FailsAt, check_dataflow, numbers

QUICK = ["inline", "thread", "fork", "zmq"]


def shuffled(count=50):
    return DataFromList([[i] for i in range(count)])


def same(dp):
    return dp


def jitter_odd(dp, rng):
    return [dp[0], float(rng.normal())] if dp[0] % 3 else None


def lists(batches):
    return [[component.tolist() for component in batch] for batch in batches]


def rows(batches):
    return sorted(row for batch in lists(batches) for row in zip(*batch, strict=True))


@pytest.mark.parametrize("remainder", [False, True])
@pytest.mark.parametrize("kind", QUICK)
def test_one_worker_is_bit_equal_to_batch_data_of_map_data(kind, remainder, make_batches):
    D.set_seed(2)
    wanted = BatchData(MapData(shuffled(), jitter_odd), 4, remainder=remainder)
    with make_batches(kind, shuffled(), 1, jitter_odd, 4, remainder=remainder) as df:
        for _ in range(3):
            assert lists(df) == lists(wanted)


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("kind", QUICK)
def test_ordered_batches_are_bit_equal_with_any_number_of_workers(kind, workers, make_batches):
    D.set_seed(2)
    wanted = BatchData(MapData(shuffled(), jitter_odd), 4, remainder=True)
    with make_batches(kind, shuffled(), workers, jitter_odd, 4, remainder=True, ordered=True) as df:
        for _ in range(3):
            assert lists(df) == lists(wanted)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("kind", QUICK)
def test_a_pass_is_the_full_batches_of_one_pass(kind, workers, make_batches):
    with make_batches(kind, shuffled(), workers, jitter_odd, 4) as df:
        for _ in range(2):
            batches = lists(df)
            values = [value for batch in batches for value in batch[0]]
            assert [len(batch[0]) for batch in batches] == [4] * 8
            assert len({*values}) == 32
            assert {*values} <= {i for i in range(50) if i % 3}


@pytest.mark.parametrize("kind", QUICK)
def test_with_the_remainder_each_datapoint_is_in_one_batch(kind, make_batches):
    D.set_seed(2)
    wanted = BatchData(MapData(shuffled(), jitter_odd), 4, remainder=True)
    with make_batches(kind, shuffled(), 3, jitter_odd, 4, remainder=True) as df:
        for _ in range(2):
            batches = [*df]
            assert sorted(len(batch[0]) for batch in batches) == [1] + [4] * 8
            assert rows(batches) == rows(wanted)


@pytest.mark.parametrize("buffer_size", [1, 2, 5, 1000])
def test_any_buffer_does(buffer_size, make_batches):
    with make_batches("thread", numbers(20), 3, same, 4, buffer_size=buffer_size) as df:
        assert sorted(value for batch in lists(df) for value in batch[0]) == list(range(20))


def test_a_batch_larger_than_what_is_left_gives_nothing(make_batches):
    with make_batches("thread", DataFromGenerator(lambda: iter([[1], [2]])), 2, same, 4) as df:
        assert [*df] == []


def test_after_a_break_no_worker_keeps_anything_from_before(make_batches):
    with make_batches("fork", numbers(50), 3, same, 7, remainder=True) as df:
        for _ in range(20):
            next(iter(df))
        assert rows(df) == [(i,) for i in range(50)]


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        pytest.param(1, {}, id="one worker"),
        pytest.param(1, {"remainder": True, "buffer_size": 3}, id="one worker, remainder"),
        pytest.param(3, {"ordered": True}, id="ordered"),
        pytest.param(3, {"ordered": True, "remainder": True}, id="ordered, remainder"),
    ],
)
@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_batches_keep_the_contract(kind, workers, options, make_batches):
    check_dataflow(
        lambda: make_batches(kind, shuffled(40), workers, jitter_odd, 3, **options),
        exact_length=False, new_process=False,
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 2, 5, 8])
def test_an_unordered_position_neither_loses_nor_repeats(count, make_batches):
    D.set_seed(4)
    with make_batches("thread", shuffled(), 3, jitter_odd, 4, remainder=True, buffer_size=17) as df:
        it = iter(df)
        got = [*islice(it, count)]
        state = json.dumps(it.state_dict())
    with make_batches("thread", shuffled(), 2, jitter_odd, 4, remainder=True) as df:
        df.load_state_dict(json.loads(state))
        rest = [*df]
        wanted = BatchData(MapData(shuffled(), jitter_odd), 1)
        assert rows(got + rest) == rows(wanted)
        assert len(got + rest) == 9
        assert rows(df) == rows(wanted)


def test_the_length_is_that_of_batch_data(make_batches):
    assert len(make_batches("inline", numbers(10), 1, same, 4)) == 2
    assert len(make_batches("inline", numbers(10), 1, same, 4, remainder=True)) == 3


def ragged(dp):
    return [np.zeros(1 + (dp[0] == 11))]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", QUICK)
def test_results_that_do_not_stack_are_an_error_that_says_where(kind, ordered, make_batches):
    with make_batches(kind, numbers(40), 2, ragged, 4, ordered=ordered) as df:
        with pytest.raises(
            BatchError, match=r"component 0.*are mapped.*BatchData\(ds, batch_size, use_list=True"
        ) as caught:
            list(df)
        assert any("in Batches(" in note and ", datapoint " in note for note in caught.value.__notes__)


def fail_at_17(dp):
    if dp[0] == 17:
        raise KeyError(dp[0])
    return dp


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", QUICK)
def test_an_error_comes_after_the_batches_before_it(kind, ordered, make_batches):
    with make_batches(kind, numbers(40), 1, fail_at_17, 4, ordered=ordered) as df:
        it = iter(df)
        assert lists(islice(it, 4)) == [[[i, i + 1, i + 2, i + 3]] for i in (0, 4, 8, 12)]
        with pytest.raises(KeyError, match="17"):
            next(it)
        assert len(lists(islice(df, 4))) == 4


def wait_for(file):
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_worker_that_dies_for_a_pass_that_was_given_up_is_replaced(make_batches, tmp_path, caplog):
    left, taken = tmp_path / "left", tmp_path / "taken"

    def die_once(dp):
        if dp[0] == 4 and not taken.exists():
            taken.touch()
            wait_for(left)
            os._exit(3)
        return dp

    with make_batches("fork", numbers(20), 1, die_once, 4) as df:
        assert lists([next(iter(df))]) == [[[0, 1, 2, 3]]]
        wait_for(taken)
        left.touch()
        assert rows(df) == [(i,) for i in range(20)]
    assert "new workers go on" in caplog.text


def test_an_error_of_the_flow_below_is_raised(make_batches):
    with (
        make_batches("fork", FailsAt(numbers(40), 9, OSError("disk")), 2, same, 4) as df,
        pytest.raises(OSError, match="disk"),
    ):
        list(df)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, got 0"),
        ({"batch_size": 11}, ValueError, r"batch_size 11 is larger than the flow.*remainder=True"),
        ({"buffer_size": 0}, ValueError, "buffer_size must be an integer of at least 1, got 0"),
        ({"remainder": 1}, TypeError, "remainder must be True or False"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, error, message, make_batches):
    with pytest.raises(error, match=message):
        make_batches("thread", **{"ds": numbers(10), "workers": 2, "func": same, "batch_size": 2, **arguments})
