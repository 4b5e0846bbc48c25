from __future__ import annotations

import inspect
import os
import threading

import pytest

from dataflow import DataFlow, DataFromList, ProxyDataFlow
from dataflow.errors import WorkerDied, WorkerTimeout
from dataflow.parallel import MultiThreadMapData, MultiThreadRunner
from dataflow.testing import check_dataflow, numbers


def same(dp):
    return dp


def values(rows):
    return [dp[0] for dp in rows]


class Counted:
    """A function that makes flows, and says in which threads."""

    def __init__(self):
        self.threads = []

    def __call__(self):
        self.threads.append(threading.get_ident())
        return Resets()


class Resets(DataFlow):
    def __init__(self):
        self.resets = []

    def __len__(self):
        return 6

    def reset_state(self):
        self.resets.append(threading.get_ident())

    def __iter__(self):
        for _ in range(6):
            yield [threading.get_ident(), *self.resets]


def test_each_thread_makes_its_flow_and_resets_it_once():
    get_df = Counted()
    with MultiThreadRunner(get_df, num_prefetch=6, num_thread=3) as df:
        got = [dp for _ in range(4) for dp in df]
        assert len(get_df.threads) == len({*get_df.threads}) == 3
    assert threading.get_ident() not in get_df.threads
    for thread, *resets in got:
        assert resets == [thread]


def test_the_length_is_that_of_the_flow_also_before_the_threads_run():
    get_df = Counted()
    with MultiThreadRunner(get_df, 6, 2) as df:
        assert len(df) == 6
        assert len(df) == 6
        assert get_df.threads == [threading.get_ident()]
        assert len([*df]) == 6


def test_a_function_that_returns_no_flow_is_an_error_that_says_so():
    df = MultiThreadRunner(lambda: [1, 2], 6, 2)
    with pytest.raises(TypeError, match="get_df must be a function that returns a DataFlow, got a list"):
        df.reset_state()


def test_the_classes_are_what_the_document_says():
    assert issubclass(MultiThreadRunner, DataFlow)
    assert not issubclass(MultiThreadRunner, ProxyDataFlow)
    assert str(inspect.signature(MultiThreadRunner.__init__)).startswith("(self, get_df:")
    parameters = inspect.signature(MultiThreadMapData).parameters
    assert [*parameters][:5] == ["ds", "num_thread", "map_func", "buffer_size", "strict"]
    assert [parameters[name].default for name in ("num_thread", "map_func", "buffer_size", "strict")] == [
        None, None, 200, False,
    ]  # fmt: skip
    assert parameters["buffer_size"].kind is inspect.Parameter.KEYWORD_ONLY


def test_repr_is_short():
    assert repr(MultiThreadMapData(numbers(3), 2, same)) == (
        "MultiThreadMapData(ds=DataFromList, num_thread=2, map_func=same)"
    )
    assert repr(MultiThreadRunner(Counted(), 6, 2)) == (
        "MultiThreadRunner(get_df=Counted, num_prefetch=6, num_thread=2)"
    )


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: MultiThreadMapData(numbers(3)), TypeError, "num_thread must be an integer of at least 1, got None"),
        (lambda: MultiThreadMapData(numbers(3), 0, same), ValueError, "num_thread must be an integer of at least 1"),
        (lambda: MultiThreadMapData(numbers(3), 2), TypeError, "map_func must be callable, got None"),
        (lambda: MultiThreadRunner(5, 1, 1), TypeError, "get_df must be callable, got 5"),
        (lambda: MultiThreadRunner(numbers, 0, 1), ValueError, "num_prefetch must be an integer of at least 1, got 0"),
        (lambda: MultiThreadRunner(numbers, 1, None), TypeError, "num_thread must be an integer.*got None"),
        (lambda: MultiThreadRunner(numbers, 1, 1, timeout="no"), TypeError, "timeout must be a number of seconds"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_old_arguments_are_understood():
    with pytest.warns(DeprecationWarning, match="use 'num_thread'"):
        assert MultiThreadMapData(numbers(3), nr_thread=2, map_func=same).num_thread == 2
    with pytest.warns(DeprecationWarning, match="is an old name"):
        df = MultiThreadRunner(Counted(), nr_prefetch=5, nr_thread=2)
    assert (df.num_prefetch, df.num_thread) == (5, 2)


def leave(dp):
    raise SystemExit(3)


def test_a_thread_that_leaves_is_an_error():
    with (
        MultiThreadMapData(numbers(3), 2, leave, strict=True) as df,
        pytest.raises(WorkerDied, match=r"exited with 3 before finishing with .*datapoint.* in flight"),
    ):
        list(df)


def test_a_thread_that_hangs_is_an_error_after_the_timeout():
    gate = threading.Event()

    def hang(dp):
        gate.wait(30)
        return dp

    df = MultiThreadMapData(numbers(3), 1, hang, strict=True, timeout=0.1)
    with pytest.raises(WorkerTimeout, match=r"sent nothing for 0\.1 s with datapoint"):
        list(df)
    gate.set()


def interrupt(dp):
    raise KeyboardInterrupt


def test_an_interrupt_in_a_thread_comes_through_and_the_flow_is_usable_again():
    with MultiThreadMapData(numbers(3), 2, interrupt, strict=True) as df:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                list(df)


def test_a_forked_child_starts_threads_of_its_own():
    with (
        MultiThreadMapData(numbers(9), 2, same, strict=True, ordered=True) as df,
        MultiThreadRunner(lambda: numbers(9), 5, 1) as runner,
    ):
        it, its = iter(df), iter(runner)
        assert (next(it), next(its)) == ([0], [0])
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if values(df) == values(runner) == [*range(9)] else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert values(it) == values(its) == [*range(1, 9)]


def test_threads_keep_the_contract():
    check_dataflow(
        lambda: MultiThreadMapData(DataFromList([[i] for i in range(9)]), 2, same, strict=True, ordered=True)
    )
