from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
import weakref
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import dataflow as D  # noqa: N812  # as the field writes it
from dataflow import BatchData, DataFromGenerator, DataFromList, DataFromQueue, MapData, RepeatedData
from dataflow.errors import EmptyFlowError, UsageError, WorkerDied
from dataflow.testing import FailsAt, FailsOnce, check_dataflow, numbers

ALL = ["inline", "thread", "fork", "spawn", "forkserver", "zmq", "zmq-spawn"]
QUICK = ["inline", "thread", "fork", "zmq"]


def shuffled(count=40):
    return DataFromList([[i] for i in range(count)])


def tenfold(dp):
    return [dp[0] * 10]


def odd(dp):
    return dp if dp[0] % 2 else None


def jitter(dp, rng):
    return [dp[0], float(rng.normal())]


def jitter_odd(dp, rng):
    return [dp[0], float(rng.normal())] if dp[0] % 3 else None


def nothing(dp):
    return None


def values(rows):
    return [dp[0] for dp in rows]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_ordered_map_is_bit_equal_to_map_data(kind, workers, make_map):
    D.set_seed(3)
    wanted = MapData(shuffled(), jitter_odd)
    with make_map(kind, shuffled(), workers, jitter_odd, ordered=True) as df:
        for _ in range(3):
            assert list(df) == list(wanted)


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_unordered_map_yields_what_map_data_yields_each_once(kind, workers, make_map):
    D.set_seed(3)
    wanted = MapData(shuffled(), jitter)
    with make_map(kind, shuffled(), workers, jitter) as df:
        for _ in range(3):
            assert sorted(df) == sorted(wanted)


@pytest.mark.parametrize("kind", QUICK)
def test_one_worker_keeps_the_order(kind, make_map):
    D.set_seed(3)
    with make_map(kind, shuffled(), 1, jitter_odd) as df:
        assert list(df) == list(MapData(shuffled(), jitter_odd))


@pytest.mark.parametrize("buffer_size", [1, 2, 3, 39, 40, 41, 1000])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_strict_pass_is_exact_for_any_buffer(buffer_size, ordered, make_map):
    with make_map("thread", shuffled(), 3, tenfold, buffer_size=buffer_size, ordered=ordered) as df:
        for _ in range(2):
            assert sorted(values(df)) == list(range(0, 400, 10))


@pytest.mark.parametrize(
    ("make", "func", "wanted"),
    [
        pytest.param(lambda: numbers(0), tenfold, [], id="empty"),
        pytest.param(lambda: numbers(1), tenfold, [0], id="one"),
        pytest.param(lambda: DataFromGenerator(lambda: iter([[1], [2]])), tenfold, [10, 20], id="no length"),
        pytest.param(lambda: numbers(5), odd, [1, 3], id="filtered"),
        pytest.param(lambda: numbers(5), nothing, [], id="all dropped"),
    ],
)
@pytest.mark.parametrize("kind", ["thread", "fork"])
def test_a_strict_pass_is_exact_for_any_source(kind, make, func, wanted, make_map):
    with make_map(kind, make(), 2, func) as df:
        assert sorted(values(df)) == sorted(values(df)) == wanted


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize("ordered", [True, False])
def test_after_a_break_nothing_old_is_delivered(kind, ordered, make_map):
    D.set_seed(5)
    with make_map(kind, shuffled(), 2, jitter, ordered=ordered) as df:
        wanted = MapData(shuffled(), jitter)
        for _ in range(5):
            for count, _ in enumerate(df):
                if count == 3:
                    break
            next(iter(wanted))
        assert sorted(df) == sorted(wanted)


def test_a_map_without_end_reorders_the_passes_of_ds(make_map):
    with make_map("thread", numbers(5), 2, tenfold, buffer_size=7, strict=False) as df:
        got = values(islice(df, 100))
    assert len(df) == 5
    for value in (0, 10, 20, 30, 40):
        assert 17 <= got.count(value) <= 23


def test_the_next_pass_of_a_map_without_end_goes_on_behind_the_last(make_map):
    with make_map("thread", numbers(5), 2, tenfold, strict=False, ordered=True) as df:
        assert values(islice(df, 3)) == [0, 10, 20]
        assert values(islice(df, 4)) == [30, 40, 0, 10]
        df.close()
        assert values(islice(df, 2)) == [20, 30]
        df.reset_state()
        assert values(islice(df, 2)) == [0, 10]


def test_a_map_without_end_draws_anew_in_each_pass_of_ds(make_map):
    with make_map("fork", numbers(5), 2, jitter, strict=False, ordered=True) as df:
        drawn = [dp[1] for dp in islice(df, 15)]
    assert len({*drawn}) == 15


def test_an_empty_flow_cannot_be_mapped_for_ever(make_map):
    with (
        make_map("thread", numbers(0), 2, tenfold, strict=False) as df,
        pytest.raises(EmptyFlowError, match=r"repeats DataFromList\(.*one pass of it is empty"),
    ):
        next(iter(df))


@pytest.mark.parametrize(
    ("workers", "options"),
    [
        pytest.param(1, {}, id="one worker"),
        pytest.param(3, {"ordered": True}, id="ordered"),
        pytest.param(2, {"ordered": True, "buffer_size": 3}, id="small buffer"),
        pytest.param(2, {"ordered": True, "strict": False}, id="without end"),
    ],
)
@pytest.mark.parametrize("kind", ["inline", "thread"])
def test_maps_keep_the_contract(kind, workers, options, make_map):
    check_dataflow(
        lambda: make_map(kind, shuffled(25), workers, jitter_odd, **options),
        exact_length=False, new_process=False, limit=40,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fork", "zmq"])
def test_maps_in_processes_keep_the_contract(kind, make_map):
    check_dataflow(lambda: make_map(kind, shuffled(4), 2, jitter, ordered=True), new_process=False)


@pytest.mark.parametrize("count", [0, 1, 7, 19, 26])
@pytest.mark.parametrize("loaded", ["inline", "thread"])
def test_an_unordered_position_is_exact_whatever_was_read_ahead(count, loaded, make_map):
    D.set_seed(4)
    wanted = MapData(shuffled(), jitter_odd)
    with make_map("thread", shuffled(), 3, jitter_odd, buffer_size=9) as df:
        it = iter(df)
        got = [*islice(it, count)]
        state = json.dumps(it.state_dict())
    with make_map(loaded, shuffled(), 2, jitter_odd) as df:
        df.load_state_dict(json.loads(state))
        assert sorted([*got, *df]) == sorted(wanted)
        assert sorted(df) == sorted(wanted)


@pytest.mark.parametrize("count", [0, 1, 4, 13, 40])
def test_an_unordered_position_without_end_is_exact_too(count, make_map):
    D.set_seed(4)
    with make_map("inline", shuffled(10), 1, jitter, strict=False) as df:
        wanted = [*islice(df, 60)]
    with make_map("thread", shuffled(10), 3, jitter, buffer_size=9, strict=False) as df:
        it = iter(df)
        got = [*islice(it, count)]
        state = json.dumps(it.state_dict())
    with make_map("inline", shuffled(10), 1, jitter, strict=False) as df:
        df.load_state_dict(json.loads(state))
        assert sorted([*got, *islice(df, 60 - count)]) == sorted(wanted)


def test_a_position_loads_with_another_number_of_workers(make_map):
    D.set_seed(6)
    wanted = [*MapData(shuffled(), jitter)]
    with make_map("thread", shuffled(), 3, jitter, ordered=True) as df:
        it = iter(df)
        got = [*islice(it, 11)]
        state = it.state_dict()
    with make_map("fork", shuffled(), 2, jitter, ordered=True) as df:
        df.load_state_dict(state)
        assert [*got, *df] == wanted


def test_a_position_is_small(make_map):
    with make_map("thread", numbers(5000), 3, tenfold, buffer_size=1000) as df:
        it = iter(df)
        assert len([*islice(it, 2000)]) == 2000
        assert len(json.dumps(df.state_dict())) < 2000


def fail_at_17(dp):
    if dp[0] == 17:
        raise KeyError("seventeen", dp[0])
    return dp


@pytest.mark.parametrize("kind", ALL)
def test_an_error_of_the_function_comes_where_its_datapoint_would(kind, make_map):
    with make_map(kind, numbers(40), 3, fail_at_17, ordered=True) as df:
        it = iter(df)
        assert values(islice(it, 17)) == list(range(17))
        with pytest.raises(KeyError) as caught:
            next(it)
        assert caught.value.args == ("seventeen", 17)
        assert [note for note in caught.value.__notes__ if "in Map(" in note and note.endswith("datapoint 17")]
        # The workers have survived.
        assert values(islice(df, 17)) == list(range(17))


@pytest.mark.parametrize("kind", QUICK)
def test_an_unordered_error_comes_after_what_was_done_before_it(kind, make_map):
    with make_map(kind, numbers(40), 1, fail_at_17) as df:
        it = iter(df)
        assert values(islice(it, 17)) == list(range(17))
        with pytest.raises(KeyError, match="seventeen"):
            next(it)


@pytest.mark.parametrize("at", [0, 1, 17, 399])
@pytest.mark.parametrize("ordered", [True, False])
def test_after_an_error_the_position_neither_loses_nor_repeats(ordered, at, make_map):
    with make_map("thread", numbers(400), 3, FailsOnce(at), ordered=ordered) as df:
        got = []
        with pytest.raises(LookupError):
            got.extend(df)
        state = json.dumps(df.state_dict())
        df.load_state_dict(json.loads(state))
        assert sorted(values([*got, *df])) == list(range(400))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", QUICK)
def test_an_error_of_the_flow_below_comes_when_all_before_it_has_come(kind, ordered, make_map):
    with make_map(kind, FailsAt(numbers(40), 23, OSError("disk")), 3, tenfold, ordered=ordered) as df:
        it = iter(df)
        assert sorted(values(islice(it, 23))) == list(range(0, 230, 10))
        with pytest.raises(OSError, match="disk") as caught:
            next(it)
        assert any("in FailsAt" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("kind", ["thread", "fork"])
def test_an_error_object_that_is_raised_again_says_where_it_was_last(kind, make_map):
    error, at = ValueError("always the same one"), [2]

    def fail(dp):
        if dp[0] == at[0]:
            raise error
        return dp

    with make_map(kind, numbers(3), 1, fail) as df:
        for at[0] in [2, 2, 0] if kind == "thread" else [2, 2, 2]:
            with pytest.raises(ValueError, match="always") as caught:
                list(df)
            (note,) = caught.value.__notes__
            assert note.endswith(f"datapoint {at[0]}")


@pytest.mark.parametrize("kind", ["fork", "zmq"])
def test_a_worker_that_dies_for_a_pass_that_was_given_up_is_replaced(kind, make_map, tmp_path, caplog):
    with make_map(kind, numbers(20), 1, DiesOnce(tmp_path)) as df:
        assert next(iter(df)) == [0]
        wait_for(tmp_path / "taken")
        (tmp_path / "left").touch()
        assert values(df) == list(range(20))
    assert "exited with 3" in caplog.text
    assert "It worked for a pass that was given up; new workers go on with this one." in caplog.text


def test_a_worker_that_dies_for_the_pass_that_runs_is_an_error(make_map, tmp_path):
    (tmp_path / "left").touch()
    with make_map("fork", numbers(20), 2, DiesOnce(tmp_path)) as df, pytest.raises(WorkerDied, match="exited with 3"):
        list(df)


class DiesOnce:
    """A function that ends its process at datapoint 1, once, after the consumer has left."""

    def __init__(self, folder):
        self.left, self.taken = folder / "left", folder / "taken"

    def __call__(self, dp):
        if dp[0] == 1 and not self.taken.exists():
            self.taken.touch()
            wait_for(self.left)
            os._exit(3)
        return dp


def wait_for(file):
    deadline = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize("kind", ["inline", "thread", "fork"])
def test_results_that_wait_for_the_consumer_are_limited_in_bytes(kind, make_map):
    read = []

    def counted(dp):
        read.append(dp[0])
        return dp

    def large(dp):
        return [np.zeros(1 << 18, np.uint8)]

    with make_map(kind, MapData(numbers(300), counted), 2, large, buffer_size=300) as df:
        df.reset_state()
        df._queues.pool.buffer_bytes = 4 << 20  # of 16 results
        ahead = [len(read) - count for count, _ in enumerate(df, 1)]
    assert len(ahead) == 300
    assert max(ahead) <= 20


def test_a_result_that_is_larger_than_the_limit_comes_too(make_map):
    with make_map("fork", numbers(5), 2, lambda dp: [np.zeros(1 << 16, np.uint8)]) as df:
        df.reset_state()
        df._queues.pool.buffer_bytes = 1 << 10
        assert len([*df]) == 5


def stop(dp):
    raise StopIteration(dp[0])


@pytest.mark.parametrize("kind", QUICK)
def test_stop_iteration_in_the_function_does_not_end_the_pass_in_silence(kind, make_map):
    with make_map(kind, numbers(4), 2, stop) as df, pytest.raises(RuntimeError, match="StopIteration"):
        list(df)


def with_lock(dp):
    return [dp[0], {"lock": threading.Lock()}]


@pytest.mark.parametrize("kind", ["fork", "zmq"])
def test_a_result_that_cannot_be_pickled_is_an_error_that_names_it(kind, make_map):
    with make_map(kind, numbers(4), 2, with_lock) as df, pytest.raises(TypeError, match=r"dp\[1\]\['lock'\]"):
        list(df)


@pytest.mark.parametrize("kind", ["fork", "zmq"])
def test_a_datapoint_that_cannot_be_pickled_is_an_error_that_names_it(kind, make_map):
    with (
        make_map(kind, MapData(numbers(4), with_lock), 2, tenfold) as df,
        pytest.raises(TypeError, match=r"dp\[1\]\['lock'\]"),
    ):
        list(df)


def test_two_passes_at_once_are_a_usage_error(make_map):
    with make_map("thread", numbers(9), 2, tenfold) as df:
        first, second = iter(df), iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"df\.close\(\)"):
            next(second)


def test_a_pass_ends_when_the_flow_is_reset(make_map):
    with make_map("thread", numbers(500), 2, tenfold) as df:
        it = iter(df)
        next(it)
        df.reset_state()
        with pytest.raises(UsageError, match=r"was reset while it was iterated; call iter\(\)"):
            list(it)
        assert len(list(df)) == 500


def test_workers_start_with_reset_state_and_are_kept(make_map):
    before = threading.active_count()
    df = make_map("thread", numbers(5), 3, tenfold)
    assert threading.active_count() == before
    df.reset_state()
    assert threading.active_count() == before + 3
    df.reset_state()
    list(df)
    list(df)
    assert threading.active_count() == before + 3
    df.close()
    df.close()
    assert threading.active_count() == before
    assert sorted(values(df)) == [0, 10, 20, 30, 40]
    df.close()


def test_a_map_that_is_dropped_ends_its_workers(make_map):
    before = threading.active_count()
    df = make_map("thread", numbers(50), 3, tenfold)
    next(iter(df))
    del df
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["thread", "fork", "zmq"])
def test_a_thousand_breaks_leave_nothing(kind, make_map):
    with make_map(kind, numbers(50), 2, tenfold, ordered=True) as df:
        for count in range(1000):
            it = iter(df)
            assert next(it) == [0]
            if count % 2:
                assert next(it) == [10]
        del it
        assert values(df) == list(range(0, 500, 10))


class Gate:
    """A function that holds one datapoint until the others are done."""

    def __init__(self):
        self.open = threading.Event()

    def __call__(self, dp):
        if dp[0] == 0:
            assert self.open.wait(5)
        return dp


def test_idle_workers_take_work_while_another_is_held_up(make_map):
    gate = Gate()
    with make_map("thread", numbers(100), 2, gate) as df:
        it = iter(df)
        # A worker has two small frames in hand at first, so a few datapoints may wait behind the slow one.
        early = values(islice(it, 90))
        assert 0 not in early
        gate.open.set()
        assert sorted(early + values(it)) == list(range(100))


def test_an_ordered_map_holds_no_more_than_its_buffer(make_map):
    gate, read = Gate(), []

    def count(dp):
        read.append(dp[0])
        return dp

    with make_map("thread", MapData(numbers(100), count), 2, gate, buffer_size=10, ordered=True) as df:
        it = iter(df)
        gate.open.set()
        next(it)
        assert len(read) <= 11
        assert len([*it]) == 99


def test_a_buffer_of_one_reads_nothing_ahead(make_map):
    arrived = queue.SimpleQueue()
    arrived.put([1])
    with make_map("thread", DataFromQueue(arrived), 2, tenfold, buffer_size=1) as df:
        it = iter(df)
        assert next(it) == [10]
        arrived.put([2])
        assert next(it) == [20]


def test_results_belong_to_the_consumer(make_map):
    with make_map("thread", numbers(5), 2, lambda dp: dp, ordered=True) as df:
        for dp in df:
            dp.clear()
        assert values(df) == [0, 1, 2, 3, 4]


def test_it_composes_with_what_repeats_and_batches(make_map):
    D.set_seed(9)
    inline = BatchData(RepeatedData(MapData(shuffled(10), jitter), 3), 4, use_list=True)
    with BatchData(RepeatedData(make_map("fork", shuffled(10), 2, jitter, ordered=True), 3), 4, use_list=True) as df:
        assert [*df] == [*inline]
        assert [*df] == [*inline]


def test_a_map_over_a_map(make_map):
    D.set_seed(9)
    inline = MapData(MapData(shuffled(), jitter), jitter_odd)
    with make_map("fork", make_map("thread", shuffled(), 2, jitter, ordered=True), 2, jitter_odd, ordered=True) as df:
        assert [*df] == [*inline]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"func": 3}, TypeError, "map_func must be callable, got 3"),
        ({"func": None}, TypeError, "map_func must be callable, got None"),
        ({"buffer_size": 0}, ValueError, "buffer_size must be an integer of at least 1, got 0"),
        ({"strict": 1}, TypeError, "strict must be True or False"),
        ({"ordered": None}, TypeError, "ordered must be True or False"),
        ({"timeout": 0}, ValueError, "timeout must be more than 0"),
        ({"ds": 5}, TypeError, "ds must be a DataFlow"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(arguments, error, message, make_map):
    with pytest.raises(error, match=message):
        make_map("thread", **{"ds": numbers(3), "workers": 2, "func": tenfold, **arguments})


def across(kind, func, ordered):
    """Return a map of this kind, by its public class."""
    if kind == "inline":
        return MapData(shuffled(), func)
    if kind == "thread":
        return D.MultiThreadMapData(shuffled(), 3, func, strict=True, ordered=ordered)
    return D.MultiProcessMapData(shuffled(), 2, func, strict=True, ordered=ordered, start_method="fork")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("first", ["inline", "thread", "process"])
@pytest.mark.parametrize("second", ["inline", "thread", "process"])
def test_a_state_loads_into_every_kind_of_map(first, second, ordered):
    D.set_seed(3)
    wanted = [*MapData(shuffled(), jitter_odd)]
    received = []
    state = None
    # 3 datapoints here, 3 there, so that states are taken where the kind before has left holes
    for kind in [first, second, first, second]:
        with across(kind, jitter_odd, ordered) as df:
            if state is not None:
                df.load_state_dict(json.loads(state))
            received += islice(df, 3)
            state = json.dumps(df.state_dict())
    with across(first, jitter_odd, ordered) as df:
        df.load_state_dict(json.loads(state))
        received += df
    if ordered:
        assert received == wanted
    assert sorted(received) == sorted(wanted)


def test_the_state_of_an_endless_map_is_not_that_of_a_pass():
    with D.MultiThreadMapData(shuffled(), 1, tenfold) as df:
        next(iter(df))
        state = df.state_dict()
    with pytest.raises(
        UsageError, match=r"taken from MapData\(strict=False\) <- DataFromList, and this flow is MapData <-"
    ):
        MapData(shuffled(), tenfold).load_state_dict(state)


class Kills:
    """A function that kills its process at some datapoints, once at each."""

    def __init__(self, folder, *at):
        self.folder, self.at = folder, at

    def __call__(self, dp, rng):
        mark = self.folder / str(dp[0])
        if dp[0] in self.at and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return [dp[0], float(rng.normal())]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("ordered", [True, False])
def test_dead_workers_are_replaced_and_nothing_is_lost_or_repeated(ordered, method, tmp_path):
    D.set_seed(3)
    wanted = [*MapData(shuffled(200), jitter)]
    func = Kills(tmp_path, 0, 100, 101, 199)
    with D.MultiProcessMapData(
        shuffled(200), 2, func, strict=True, ordered=ordered, start_method=method, restarts=4
    ) as df:
        received = [*df]
    assert sorted(received) == sorted(wanted)
    assert not ordered or received == wanted
    assert len([*tmp_path.iterdir()]) == 4


def test_batches_of_dead_workers_are_made_again(tmp_path):
    D.set_seed(3)
    wanted = [*BatchData(MapData(shuffled(200), jitter), 16)]
    func = Kills(tmp_path, 3, 100)
    with D.MultiProcessMapAndBatchData(shuffled(200), 2, func, 16, start_method="fork", restarts=2) as df:
        for one, other in zip(df, wanted, strict=True):
            assert [column.tolist() for column in one] == [column.tolist() for column in other]


def anonymous(dp):
    """Return two megabytes, and the bytes that this process does not share."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    size = next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:"))
    return [dp[0], np.zeros(2 << 20, np.uint8), size << 10]


@pytest.mark.skipif(sys.platform != "linux", reason="it counts in /proc")
def test_a_worker_that_replaces_another_keeps_nothing_that_the_consumer_has_received():
    received = []
    with D.MultiProcessMapData(numbers(150), 1, anonymous, buffer_size=40, strict=True, restarts=1) as df:
        for number, _, size in df:
            received.append((number, size))
            time.sleep(0.01)  # the slower the consumer, the more it is given ahead
            if number == 49:
                assert df._queues is not None
                os.kill(df._queues.pool._crew.pid(0), signal.SIGKILL)
    assert [number for number, _ in received] == list(range(150))
    assert received[-1][1] < received[0][1] + (20 << 20)


def test_an_error_that_is_kept_keeps_nothing_that_was_read_ahead():
    made = weakref.WeakSet()

    class Thing:
        def __init__(self):
            made.add(self)

    def func(dp):
        if dp[0] == 0:
            deadline = time.monotonic() + 5
            while len(made) < 10 and time.monotonic() < deadline:
                time.sleep(0.001)
            raise LookupError
        return [Thing()]

    gc.disable()
    try:
        with D.MultiThreadMapData(numbers(100), 2, func, buffer_size=40, strict=True, ordered=True) as df:
            with pytest.raises(LookupError) as kept:
                next(iter(df))
            df.close()
            assert not made
            assert kept.value is not None
    finally:
        gc.enable()


def test_more_deaths_than_restarts_are_an_error(tmp_path):
    func = Kills(tmp_path, 3, 10, 20)
    df = D.MultiProcessMapData(shuffled(), 1, func, strict=True, start_method="fork", restarts=2)
    with df, pytest.raises(WorkerDied, match="SIGKILL"):
        list(df)
