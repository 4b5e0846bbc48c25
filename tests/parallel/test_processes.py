from __future__ import annotations

import inspect
import os
import signal
import sys
import threading

import pytest

from dataflow import DataFlow, DataFromList, MapData, ProxyDataFlow
from dataflow.errors import UsageError, WorkerDied, WorkerTimeout
from dataflow.parallel import (
    MultiProcessMapAndBatchData,
    MultiProcessMapAndBatchDataZMQ,
    MultiProcessMapData,
    MultiProcessMapDataZMQ,
    MultiProcessRunner,
    MultiProcessRunnerZMQ,
)
from dataflow.testing import check_dataflow, numbers


def same(dp):
    return dp


def values(rows):
    return [dp[0] for dp in rows]


def raises(dp):
    raise LookupError("not there")


def unpicklable(dp):
    return [threading.Lock()]


def leaves(dp):
    sys.exit(3)


def is_killed(dp):
    os.kill(os.getpid(), signal.SIGKILL)


# what goes wrong, the error that tells
CRASHES = [
    pytest.param(raises, LookupError, "not there", id="raises"),
    pytest.param(unpicklable, TypeError, r"dp\[0\]", id="unpicklable"),
    pytest.param(leaves, WorkerDied, "exited with 3 before finishing", id="sys.exit"),
    pytest.param(is_killed, WorkerDied, "was killed by SIGKILL.*memory", id="killed"),
]


@pytest.mark.parametrize(
    ("make", "place", "stage"),
    [
        pytest.param(
            lambda func: MultiProcessMapData(numbers(3), 2, func, start_method="spawn"),
            "task.map_func's variable lock",
            "in MultiProcessMapDataZMQ(ds=DataFromList, num_proc=2, map_func=<lambda>, start_method='spawn')",
            id="map",
        ),
        pytest.param(
            lambda func: MultiProcessRunner(MapData(numbers(3), func), 9, 2, start_method="spawn"),
            "task.make.ds.func's variable lock",
            "in MultiProcessRunner(ds=MapData, num_prefetch=9, num_proc=2, start_method='spawn')",
            id="runner",
        ),
    ],
)
def test_a_function_that_cannot_be_sent_is_named_with_its_stage(make, place, stage):
    lock = threading.Lock()
    with pytest.raises(TypeError, match=f"^{place} is a lock and cannot be sent .* Take it out, or make") as caught:
        make(lambda dp: (lock, dp)).reset_state()
    assert caught.value.__notes__ == [stage]


class InReset(ProxyDataFlow):
    def __init__(self, ds, crash):
        super().__init__(ds)
        self.crash = crash

    def reset_state(self):
        self.crash(None)


class TestCrashes:
    @pytest.mark.parametrize(("crash", "error", "message"), CRASHES)
    def test_in_the_function_of_a_map(self, crash, error, message):
        with MultiProcessMapData(numbers(9), 2, crash, strict=True) as df:
            for _ in range(2):
                with pytest.raises(error, match=message):
                    list(df)

    @pytest.mark.parametrize(("crash", "error", "message"), CRASHES)
    def test_in_the_function_of_a_map_that_batches(self, crash, error, message):
        with (
            MultiProcessMapAndBatchData(numbers(9), 2, crash, 3) as df,
            pytest.raises((error, TypeError), match=f"{message}|component 0"),
        ):
            list(df)

    @pytest.mark.parametrize(("crash", "error", "message"), CRASHES)
    @pytest.mark.parametrize(
        "runner", [lambda ds: MultiProcessRunner(ds, 5, 2), lambda ds: MultiProcessRunnerZMQ(ds, 2)]
    )
    def test_in_the_source_of_a_runner(self, runner, crash, error, message):
        with runner(MapData(numbers(9), crash)) as df:
            for _ in range(2):
                with pytest.raises(error, match=message):
                    list(df)

    @pytest.mark.parametrize(("crash", "error", "message"), [CRASHES[0], *CRASHES[2:]])
    def test_in_reset_state_below_a_runner(self, crash, error, message):
        with MultiProcessRunnerZMQ(InReset(numbers(9), crash), 2) as df, pytest.raises(error, match=message):
            list(df)


def killed_at_5(dp):
    return is_killed(dp) if dp[0] == 5 else dp


def test_what_was_done_before_a_death_is_delivered_first():
    with MultiProcessMapData(numbers(9), 1, killed_at_5, buffer_size=2, strict=True) as df:
        it = iter(df)
        assert values([next(it) for _ in range(4)]) == [0, 1, 2, 3]
        with pytest.raises(WorkerDied) as caught:
            list(it)
        assert 5 in caught.value.samples
    with MultiProcessRunner(MapData(numbers(9), killed_at_5), 1, 1) as df:
        it = iter(df)
        assert values([next(it) for _ in range(5)]) == [0, 1, 2, 3, 4]
        with pytest.raises(WorkerDied):
            next(it)


def hang(dp):
    threading.Event().wait()


def test_a_process_that_hangs_is_an_error_after_the_timeout():
    with (
        MultiProcessMapData(numbers(3), 1, hang, strict=True, timeout=0.2, start_method="fork") as df,
        pytest.raises(WorkerTimeout, match=r"sent nothing for 0\.2 s(.|\n)*in hang"),
    ):
        list(df)


def test_two_names_of_one_class():
    assert MultiProcessMapData is MultiProcessMapDataZMQ
    assert MultiProcessMapAndBatchData is MultiProcessMapAndBatchDataZMQ


# class: documented base, documented parameters (those that a position can give, with their defaults)
DOCUMENTED = {
    MultiProcessRunner: (ProxyDataFlow, {"ds": ..., "num_prefetch": ..., "num_proc": ...}),
    MultiProcessRunnerZMQ: (DataFlow, {"ds": ..., "num_proc": 1, "hwm": 50}),
    MultiProcessMapData: (DataFlow, {"ds": ..., "num_proc": None, "map_func": None}),
    MultiProcessMapAndBatchData: (
        DataFlow, {"ds": ..., "num_proc": ..., "map_func": ..., "batch_size": ..., "buffer_size": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOCUMENTED)
def test_the_classes_are_what_the_document_says(kind):
    base, wanted = DOCUMENTED[kind]
    assert issubclass(kind, base)
    assert {
        name: ... if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    } == wanted


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MultiProcessMapData(numbers(3)), TypeError, "num_proc must be an integer of at least 1, got None"),
        (lambda: MultiProcessMapData(numbers(3), 0, same), ValueError, "num_proc must be an integer of at least 1"),
        (lambda: MultiProcessMapData(numbers(3), 2), TypeError, "map_func must be callable, got None"),
        (lambda: MultiProcessMapData(numbers(3), 2, same, start_method="magic"), ValueError, "start_method must be"),
        (lambda: MultiProcessRunner(numbers(3), 0, 1), ValueError, "num_prefetch must be an integer of at least 1"),
        (
            lambda: MultiProcessRunner(numbers(3), 1, 1.5),
            TypeError,
            "num_proc must be an integer of at least 1, got 1.5",
        ),
        (lambda: MultiProcessRunnerZMQ(numbers(3), hwm=0), ValueError, "hwm must be an integer of at least 1, got 0"),
        (lambda: MultiProcessRunnerZMQ(7), TypeError, "ds must be a DataFlow"),
        (lambda: MultiProcessMapAndBatchData(numbers(3), 1, same, 0), ValueError, "batch_size must be an integer"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_old_arguments_are_understood():
    with pytest.warns(DeprecationWarning, match="use 'num_proc'"):
        assert MultiProcessMapData(numbers(3), nr_proc=2, map_func=same).num_proc == 2
    with pytest.warns(DeprecationWarning, match="is an old name"):
        df = MultiProcessRunner(numbers(3), nr_prefetch=5, nr_proc=2)
    assert (df.num_prefetch, df.num_proc) == (5, 2)
    with pytest.warns(DeprecationWarning, match="is an old name"):
        assert MultiProcessRunnerZMQ(numbers(3), nr_proc=3).num_proc == 3


def test_repr_is_short():
    assert (
        repr(MultiProcessRunnerZMQ(numbers(3), 2, hwm=7)) == "MultiProcessRunnerZMQ(ds=DataFromList, num_proc=2, hwm=7)"
    )
    assert repr(MultiProcessMapAndBatchData(numbers(9), 2, same, 3)) == (
        "MultiProcessMapAndBatchDataZMQ(ds=DataFromList, num_proc=2, map_func=same, batch_size=3, buffer_size=30)"
    )


def test_a_child_that_is_forked_after_the_start_has_workers_of_its_own():
    with MultiProcessMapData(numbers(9), 2, same, strict=True, ordered=True, start_method="fork") as df:
        it = iter(df)
        assert next(it) == [0]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if values(df) == [*range(9)] else 2
                df.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert values(it) == [*range(1, 9)]


def test_an_iterator_does_not_go_on_in_a_forked_child():
    with MultiProcessMapData(numbers(900), 2, same, strict=True, start_method="fork") as df:
        it = iter(df)
        next(it)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                list(it)
            except UsageError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len([*it]) == 899


def test_functions_may_be_lambdas_and_closures_under_spawn():
    factor = 7
    with MultiProcessMapData(numbers(3), 1, lambda dp: [dp[0] * factor], strict=True, start_method="spawn") as df:
        assert values(df) == [0, 7, 14]


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda ds: MultiProcessRunner(ds, 3, 1), id="MultiProcessRunner"),
        pytest.param(lambda ds: MultiProcessRunnerZMQ(ds), id="MultiProcessRunnerZMQ"),
        pytest.param(lambda ds: MultiProcessMapData(ds, 1, same, strict=True), id="MultiProcessMapData"),
        pytest.param(lambda ds: MultiProcessMapAndBatchData(ds, 1, same, 2), id="MultiProcessMapAndBatchData"),
    ],
)
def test_they_keep_the_contract(make):
    check_dataflow(lambda: make(DataFromList([[i] for i in range(4)])))
