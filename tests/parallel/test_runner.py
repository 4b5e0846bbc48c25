from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from itertools import islice

import pytest

import dataflow as D  # noqa: N812  # as the field writes it
from dataflow import (
    BatchData,
    CacheData,
    DataFlow,
    DataFromGenerator,
    DataFromList,
    FixedSizeData,
    JoinData,
    LocallyShuffleData,
    MapData,
    ProxyDataFlow,
    RepeatedData,
    RNGDataFlow,
)
from dataflow.errors import EmptyFlowError, UsageError, WorkerDied
from dataflow.parallel import MultiThreadMapData, MultiThreadRunner
from dataflow.passes import Run
from dataflow.testing import FailsAt, check_dataflow, numbers

ALL = ["thread", "fork", "spawn", "zmq", "zmq-spawn"]
QUICK = ["thread", "fork", "zmq"]


def jitter(dp, rng):
    return [dp[0], float(rng.normal())]


def drawing(count=12):
    return MapData(DataFromList([[i] for i in range(count)]), jitter)


def counting(count=12):
    return numbers(count)


def values(rows):
    return [dp[0] for dp in rows]


class Dice(RNGDataFlow):
    def __iter__(self):
        for _ in range(5):
            yield [int(self.rng.randint(1 << 30))]


@pytest.mark.parametrize("make", [drawing, counting, lambda: BatchData(drawing(), 5, remainder=True)])
@pytest.mark.parametrize("kind", QUICK)
def test_one_replica_is_bit_equal_to_the_flow_itself_over_all_passes(kind, make, make_runner):
    D.set_seed(3)
    inline = make()
    with make_runner(kind, make) as df:
        assert len(df) == len(inline)
        for _ in range(4):
            assert str([*df]) == str([*inline])


@pytest.mark.parametrize("kind", QUICK)
def test_one_replica_without_length_is_bit_equal_to_the_flow_repeated(kind, make_runner):
    D.set_seed(3)
    with make_runner(kind, Dice) as df:
        inline = RepeatedData(Dice(), -1)
        for _ in range(3):
            assert [*islice(df, 17)] == [*islice(inline, 17)]


@pytest.mark.parametrize("kind", ["spawn", "zmq-spawn"])
def test_a_new_interpreter_draws_the_same(kind, make_runner):
    D.set_seed(3)
    with make_runner(kind, drawing) as df:
        assert [*df] == [*drawing()]


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda df: RepeatedData(df, 3), id="repeated"),
        pytest.param(lambda df: JoinData([df, numbers(12)]), id="joined"),
        pytest.param(lambda df: MapData(df, jitter), id="mapped"),
        pytest.param(lambda df: FixedSizeData(df, 7), id="cut"),
        pytest.param(lambda df: MapData(LocallyShuffleData(MapData(df, jitter), 5), jitter), id="shuffled"),
    ],
)
def test_one_replica_is_bit_equal_wherever_it_stands(around, make_runner):
    D.set_seed(3)
    inline = around(drawing())
    with around(make_runner("fork", drawing)) as df:
        for _ in range(3):
            assert [*islice(df, 40)] == [*islice(inline, 40)]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: LocallyShuffleData(drawing(), 5), id="endless shuffle"),
        pytest.param(lambda: FixedSizeData(drawing(), 5), id="kept iterator"),
        pytest.param(lambda: CacheData(drawing(200), shuffle=True), id="cache"),
    ],
)
@pytest.mark.parametrize(
    "around", [ProxyDataFlow, lambda df: RepeatedData(df, 2), lambda df: JoinData([df, numbers(9)])]
)
def test_what_flows_carry_over_is_where_the_consumer_left_it(make, around, make_runner):
    D.set_seed(3)
    inline = around(make())
    with around(make_runner("fork", make)) as df:
        for count in (4, 1, 4, 3, 4):
            assert [*islice(df, count)] == [*islice(inline, count)]


@pytest.mark.parametrize("credit", [1, 2, 3, 7, 1000])
def test_any_credit_does(credit, make_runner):
    with make_runner("thread", counting, credit=credit) as df:
        assert values(df) == values(df) == list(range(12))


@pytest.mark.parametrize("kind", QUICK)
def test_each_replica_runs_the_whole_flow(kind, make_runner):
    with make_runner(kind, counting, workers=3) as df:
        seen = Counter(value for _ in range(60) for value in values(df))
    assert seen.total() == 720
    assert {*seen} == {*range(12)}
    assert max(seen.values()) - min(seen.values()) <= 6


def test_replicas_draw_differently(make_runner):
    D.set_seed(3)
    with make_runner("fork", drawing, workers=3) as df:
        got = [dp[1] for _ in range(4) for dp in df]
    assert len({*got}) == 48


def test_only_replica_0_of_0_draws_what_the_flow_itself_does():
    df = drawing()
    part = Run(df, 5).part(df)
    keys = [
        Run.of_replica(df, part, replica).key(df, [4]) for replica in [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    assert keys[0] == keys[1] == keys[3] == Run(df, 5).key(df, [4])
    assert keys[2] == keys[5]  # replica 1, or its first, in runs of different depth
    assert len({*keys}) == 4


def test_no_key_of_a_replica_is_one_of_another_pass():
    df = drawing()
    part = Run(df, 5).part(df)
    paths = [[a] for a in range(4)] + [[a, b] for a in range(4) for b in range(4)]
    replicas = [(), (1,), (2,), (0, 1), (1, 1)]
    keys = [
        Run.of_replica(df, part, replica).key(df, path, use) for path in paths for replica in replicas for use in (0, 1)
    ]
    assert len({*keys}) == len(keys)


def test_a_pass_is_as_long_as_the_flow(make_runner):
    with make_runner("thread", counting, workers=5) as df:
        assert [len([*df]) for _ in range(3)] == [12, 12, 12]


def rows():
    yield from ([1], [2])


def endless():
    return DataFromGenerator(rows)


@pytest.mark.parametrize("kind", QUICK)
def test_a_flow_without_length_is_run_without_end(kind, make_runner):
    with make_runner(kind, endless) as df:
        assert values(islice(df, 5)) == [1, 2, 1, 2, 1]
        assert values(islice(df, 3)) == [1, 2, 1]


def test_an_empty_flow_has_empty_passes(make_runner):
    with make_runner("fork", lambda: numbers(0)) as df:
        assert [*df] == [*df] == []


class Liar(ProxyDataFlow):
    def __len__(self):
        return 3


def test_a_flow_that_is_empty_against_its_word_is_an_error(make_runner):
    with (
        make_runner("thread", lambda: Liar(numbers(0))) as df,
        pytest.raises(EmptyFlowError, match=r"MultiThreadRunner\(.*repeats.*one pass of it is empty"),
    ):
        list(df)


@pytest.mark.parametrize("kind", QUICK)
def test_after_a_whole_pass_the_replicas_run_on(kind, make_runner):
    # A flow that is longer than it says: passes do not start anew.
    with make_runner(kind, lambda: Liar(numbers(5))) as df:
        assert [values(df) for _ in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]


def test_who_takes_as_many_as_the_length_has_had_a_whole_pass(make_runner):
    with make_runner("fork", lambda: Liar(numbers(5))) as df:
        assert [values(islice(df, 3)) for _ in range(2)] == [[0, 1, 2], [3, 4, 0]]


@pytest.mark.parametrize("kind", QUICK)
def test_after_a_break_the_replicas_start_anew(kind, make_runner):
    D.set_seed(8)
    inline = drawing()
    with make_runner(kind, drawing) as df:
        for count in (1, 4, 11):
            assert [*islice(df, count)] == [*islice(inline, count)]
        assert [*df] == [*inline]


@pytest.mark.parametrize("kind", QUICK)
def test_a_thousand_breaks_leave_nothing(kind, make_runner):
    with make_runner(kind, counting, workers=2) as df:
        for _ in range(1000):
            it = iter(df)
            assert next(it) == [0]
        del it
        assert len([*df]) == 12


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(drawing, id="draws"),
        pytest.param(lambda: LocallyShuffleData(drawing(), 5), id="endless shuffle"),
        pytest.param(lambda: CacheData(drawing(), shuffle=True), id="cache"),
        pytest.param(lambda: FixedSizeData(drawing(), 5), id="kept"),
    ],
)
def test_runners_keep_the_contract(make, make_runner):
    check_dataflow(lambda: make_runner("thread", make), exact_length=False, new_process=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["fork", "zmq"])
def test_runners_of_processes_keep_the_contract(kind, make_runner):
    check_dataflow(lambda: make_runner(kind, lambda: drawing(4)), new_process=False)


class Doubled(ProxyDataFlow):
    def __iter__(self):
        for dp in self.ds:
            yield [dp[0] * 2]


@pytest.mark.parametrize(
    "around",
    [
        pytest.param(lambda df: RepeatedData(df, 2), id="repeated"),
        pytest.param(lambda df: BatchData(df, 5, use_list=True), id="batched"),
        pytest.param(Doubled, id="in a class of the user"),
        pytest.param(
            lambda df: JoinData([df, df.ds]) if hasattr(df, "ds") else JoinData([df, numbers(5)]), id="joined"
        ),
    ],
)
def test_flows_over_runners_keep_the_contract(around, make_runner):
    check_dataflow(lambda: around(make_runner("thread", lambda: drawing(8))), new_process=False)


def test_a_position_of_many_replicas_goes_on_with_each(make_runner):
    with make_runner("thread", lambda: numbers(30), workers=3, credit=4) as df:
        it = iter(df)
        got = values(islice(it, 17))
        state = json.dumps(it.state_dict())
    places = json.loads(state)["at"]["replicas"]
    assert len(places) == 3
    with make_runner("thread", lambda: numbers(30), workers=3) as df:
        df.load_state_dict(json.loads(state))
        assert len([*df]) == 13
        seen = Counter(got)
    assert seen.total() == 17


def test_many_replicas_neither_lose_nor_repeat_over_a_save(make_runner):
    # Each replica yields 0, 1, 2, ...: how often a number comes tells how far the replicas are.
    with make_runner("thread", lambda: Liar(numbers(1000)), workers=2) as df:
        got = [*values(df), *values(df)]
        state = json.dumps(df.state_dict())
    with make_runner("thread", lambda: Liar(numbers(1000)), workers=2) as df:
        df.load_state_dict(json.loads(state))
        got += [value for _ in range(6) for value in values(df)]
    seen = Counter(got)
    assert {*seen} == {*range(max(seen) + 1)}
    assert {*seen.values()} <= {1, 2}


def test_a_position_needs_as_many_replicas(make_runner):
    with make_runner("thread", counting, workers=2) as df:
        next(iter(df))
        state = df.state_dict()
    with make_runner("thread", counting, workers=3) as df:
        df.load_state_dict(state)
        with pytest.raises(UsageError, match=r"state is of 2 replicas, and .* runs 3"):
            iter(df)


def test_two_passes_at_once_are_a_usage_error(make_runner):
    with make_runner("thread", counting) as df:
        first, second = iter(df), iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"df\.close\(\)"):
            next(second)


def test_a_pass_ends_when_the_runner_is_reset(make_runner):
    with make_runner("thread", counting, credit=2) as df:
        it = iter(df)
        next(it)
        df.reset_state()
        with pytest.raises(UsageError, match=r"was reset while it was iterated; call iter\(\)"):
            list(it)
        assert values(df) == list(range(12))


class Watched(DataFlow):
    """A flow that tells where it was reset and how often."""

    def __init__(self):
        self.resets = 0

    def __len__(self):
        return 2

    def reset_state(self):
        self.resets += 1

    def __iter__(self):
        for _ in range(2):
            yield [os.getpid(), self.resets]


@pytest.mark.parametrize("kind", ["fork", "spawn", "zmq"])
def test_a_replica_is_reset_once_in_its_process_and_never_here(kind, make_runner):
    made = []

    def make():
        made.append(Watched())
        return made[-1]

    with make_runner(kind, make, workers=2) as df:
        got = [tuple(dp) for _ in range(5) for dp in df]
        df.close()
        got += [tuple(dp) for _ in range(2) for dp in df]
    assert {resets for _, resets in got} == {1}
    assert os.getpid() not in {pid for pid, _ in got}
    assert made[0].resets == 0


def test_what_is_below_a_runner_can_be_used_here_too(make_runner):
    ds = Watched()
    with make_runner("fork", lambda: ds) as df:
        assert len([*df]) == 2
        assert [*ds] == [[os.getpid(), 1]] * 2


def test_a_reset_resets_the_replicas(make_runner):
    with make_runner("fork", Watched) as df:
        assert [dp[1] for dp in df] == [1, 1]
        df.reset_state()
        df.reset_state()
        assert [dp[1] for dp in df] == [2, 2]


def test_it_starts_again_after_close(make_runner):
    df = make_runner("fork", counting)
    assert values(islice(df, 3)) == [0, 1, 2]
    df.close()
    df.close()
    assert values(df) == list(range(12))
    df.close()
    assert values(df) == list(range(12))
    df.close()


def test_a_runner_that_is_dropped_ends_its_workers(make_runner):
    before = threading.active_count()
    df = make_runner("thread", counting, workers=3)
    next(iter(df))
    assert threading.active_count() == before + 3
    del df
    assert threading.active_count() == before


def failing():
    return FailsAt(numbers(9), 5, OSError(5, "disk"))


@pytest.mark.parametrize("kind", ALL)
def test_an_error_of_the_flow_comes_where_its_datapoint_would(kind, make_runner):
    with make_runner(kind, failing) as df:
        for _ in range(2):
            it = iter(df)
            assert values(islice(it, 5)) == [0, 1, 2, 3, 4]
            with pytest.raises(OSError, match="disk") as caught:
                next(it)
            assert caught.value.errno == 5
            assert any("in FailsAt(" in note and "datapoint 5" in note for note in caught.value.__notes__)
            assert any("worker 0" in note for note in caught.value.__notes__)


class Broken(DataFlow):
    def __len__(self):
        return 3

    def reset_state(self):
        raise LookupError("no such thing")

    def __iter__(self):
        yield [1]


@pytest.mark.parametrize("kind", QUICK)
def test_an_error_in_reset_state_is_raised(kind, make_runner):
    with make_runner(kind, Broken) as df, pytest.raises(LookupError, match="no such thing"):
        list(df)


@pytest.mark.parametrize(("outer", "inner"), [("fork", "fork"), ("zmq", "fork"), ("zmq", "zmq"), ("fork", "thread")])
def test_a_runner_in_a_runner(outer, inner, make_runner):
    D.set_seed(3)
    with make_runner(outer, lambda: make_runner(inner, drawing)) as df:
        inline = drawing()
        for _ in range(3):
            assert [*df] == [*inline]


def test_replicas_of_replicas_all_draw_differently(make_runner):
    D.set_seed(3)
    with make_runner("fork", lambda: make_runner("fork", drawing, workers=2), workers=2) as df:
        got = [dp[1] for _ in range(4) for dp in df]
    assert len({*got}) == 48


def test_a_map_in_a_runner(make_runner):
    D.set_seed(3)

    def mapped():
        return MultiThreadMapData(DataFromList([[i] for i in range(12)]), 2, jitter, strict=True, ordered=True)

    with make_runner("zmq", mapped) as df:
        inline = drawing()
        for _ in range(3):
            assert [*df] == [*inline]


def test_a_runner_as_the_source_of_a_map(make_runner, make_map):
    D.set_seed(3)
    with make_map("fork", make_runner("fork", drawing), 2, jitter, ordered=True) as df:
        inline = MapData(drawing(), jitter)
        for _ in range(3):
            assert [*df] == [*inline]


class Mortal(D.RNGDataFlow):
    """Numbers with draws; the first process that comes to ``at`` in its pass dies there."""

    def __init__(self, mark, at):
        self.mark, self.at = mark, at

    def __len__(self):
        return 60

    def __iter__(self):
        for i in range(60):
            if i == self.at and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield [i, int(self.rng.randint(1000))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("at", [0, 1, 37, 59])
@pytest.mark.parametrize("runner", [D.MultiProcessRunner, D.MultiProcessRunnerZMQ])
def test_a_dead_worker_is_replaced_and_nothing_is_lost_or_repeated(runner, at, method, tmp_path):
    D.set_seed(5)
    wanted = [*Mortal(tmp_path, at), *Mortal(tmp_path, at)]
    options = {"num_prefetch": 8} if runner is D.MultiProcessRunner else {"hwm": 8}
    df = runner(Mortal(tmp_path / "died", at), num_proc=1, start_method=method, restarts=1, **options)
    with df:
        first = list(df)
        assert first == wanted[:60]
        assert sorted(dp[0] for dp in df) == [*range(60)]
    assert (tmp_path / "died").exists()


def test_each_of_several_workers_is_replaced_and_its_copy_goes_on(tmp_path):
    D.set_seed(5)
    ds = D.FixedSizeData(Mortal(tmp_path / "died", 20), 60)
    with D.MultiProcessRunnerZMQ(ds, 2, hwm=5, start_method="fork", restarts=2) as df:
        received = [dp[0] for dp in islice(df, 60)]
        received += [dp[0] for dp in islice(df, 60)]
    # Two copies, of which one may be ahead: what is lost or repeated would be a step up.
    counts = [received.count(i) for i in range(60)]
    assert counts == sorted(counts, reverse=True)
    assert (sum(counts), counts[-1] > 0, counts[0] <= 3) == (120, True, True)


class LateAndMortal(D.ProxyDataFlow):
    """Takes its time to be reset, and for each datapoint; the first process that comes to 30 dies there."""

    def __init__(self, mark):
        super().__init__(numbers(60))
        self.mark = mark

    def reset_state(self):
        time.sleep(0.3)
        super().reset_state()

    def __iter__(self):
        for dp in self.ds:
            time.sleep(0.01)
            if dp[0] == 30 and not self.mark.exists():
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield dp


def test_what_starts_and_goes_back_is_not_taken_for_stuck(tmp_path):
    with D.MultiProcessRunner(
        LateAndMortal(tmp_path / "died"), 8, 1, start_method="fork", timeout=0.15, restarts=1
    ) as df:
        assert values(df) == [*range(60)]
    assert (tmp_path / "died").exists()
    with MultiThreadRunner(lambda: LateAndMortal(tmp_path / "died"), 8, 1, timeout=0.15) as df:
        assert values(df) == [*range(60)]


def test_a_runner_of_copies_that_merge_has_no_position(make_runner):
    with make_runner("fork", lambda: make_runner("fork", counting, workers=2)) as df:
        it = iter(df)
        next(it)
        with pytest.raises(UsageError, match=r"no position.*Run\(.*\) in a runner has no fixed order"):
            df.state_dict()


def test_a_runner_of_copies_that_merge_cannot_restart_a_worker(make_runner):
    ds = make_runner("fork", counting, workers=2)
    with (
        D.MultiProcessRunner(ds, 8, 1, start_method="fork", restarts=1) as df,
        pytest.raises(UsageError, match=r"cannot restart a worker.*Use one worker in that, or restarts=0"),
    ):
        next(iter(df))


def test_without_restarts_a_death_is_an_error(tmp_path):
    with (
        D.MultiProcessRunner(Mortal(tmp_path / "died", 20), 8, 1, start_method="fork") as df,
        pytest.raises(WorkerDied),
    ):
        list(df)


@pytest.mark.parametrize("count", [1, 7])
def test_a_worker_that_dies_idle_while_its_datapoints_wait_is_replaced(count):
    ds = numbers(60)
    with D.MultiProcessRunner(ds, 8, 1, start_method="fork", restarts=1) as df:
        it = iter(df)
        received = [*islice(it, count)]
        time.sleep(0.1)  # it has answered all that it was asked for
        os.kill(df._lines.pool._crew.pid(0), signal.SIGKILL)
        time.sleep(0.1)
        received += it
    assert received == [[i] for i in range(60)]


@pytest.mark.parametrize("make", [
    lambda: D.MultiProcessRunner(numbers(60), 8, 1, start_method="fork"),
    lambda: D.MultiProcessMapData(numbers(60), 1, list, strict=True, start_method="fork"),
], ids=["runner", "map"])  # fmt: skip
def test_a_pool_that_was_closed_under_a_flow_is_replaced_in_the_next_pass(make):
    with make() as df:
        next(iter(df))
        df._ready().pool.close()
        assert list(df) == [[i] for i in range(60)]
