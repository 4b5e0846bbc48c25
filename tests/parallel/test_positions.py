"""Positions of parallel maps at every moment: nothing is lost and nothing comes twice, however a pass ends."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import dataflow
import dataflow as D  # noqa: N812  # as the field writes it
from dataflow import (
    BatchData,
    FixedSizeData,
    JoinData,
    MapData,
    MultiProcessMapAndBatchData,
    MultiThreadMapData,
    MultiThreadRunner,
)
from dataflow.errors import UsageError
from dataflow.parallel.dispatch import Dispatch
from dataflow.testing import FailsOnce, numbers

PACKAGE = Path(dataflow.__file__).parent
FILES = (f"{PACKAGE}/passes", f"{PACKAGE}/parallel", f"{PACKAGE}/proxies", f"{PACKAGE}/utils/parts")
DUE = Dispatch._due
# Lines between two that are interrupted; 1 takes a minute.
STEP = 23


def slow_start(dp):
    """Let the first datapoints come behind many others, if they may."""
    time.sleep(0.01 if dp[0] < 4 else 0)
    return dp


def values(dps):
    """List the numbers in datapoints or batches."""
    return [number for dp in dps for number in ([dp[0]] if isinstance(dp[0], int) else dp[0].tolist())]


def until_it_fails(df, error=LookupError):
    """Return what comes before the error, and the state after it."""
    got = []
    with pytest.raises(error):
        got.extend(df)
    return got, json.loads(json.dumps(df.state_dict()))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda make_map, func: MapData(numbers(60), func), id="inline"),
        pytest.param(lambda make_map, func: make_map("thread", numbers(60), 2, func, ordered=True), id="ordered"),
        pytest.param(lambda make_map, func: make_map("thread", numbers(60), 1, func), id="one worker"),
    ],
)
def test_a_count_behind_a_place_is_counted_in_order_by_workers_without_order(make, make_map):
    with make(make_map, FailsOnce(17)) as df:
        got, state = until_it_fails(df)
    assert state["skip"] == 17
    with make_map("thread", numbers(60), 3, slow_start) as df:
        df.load_state_dict(state)
        assert sorted(values([*got, *df])) == list(range(60))
        assert sorted(values(df)) == list(range(60))


def test_an_endless_count_is_counted_in_order_too(make_map):
    with make_map("thread", numbers(60), 2, FailsOnce(17), strict=False, ordered=True) as df:
        got, state = until_it_fails(df)
    with make_map("thread", numbers(60), 3, slow_start, buffer_size=5, strict=False) as df:
        df.load_state_dict(state)
        assert len({*values([*got, *islice(df, 55 - 17)])}) == 55  # the last 5 may be on their way


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_below_are_counted_in_order_too(workers, make_batches):
    with make_batches("thread", numbers(60), workers, FailsOnce(50), 4, ordered=workers > 1) as df:
        got, state = until_it_fails(df)
    with make_batches("thread", numbers(60), 3, slow_start, 4, remainder=True) as df:
        df.load_state_dict(state)
        assert sorted(values([*got, *df])) == list(range(60))


def test_copies_of_a_flow_cannot_count_in_the_order_of_one():
    with MultiThreadRunner(lambda: MapData(numbers(60), FailsOnce(17)), 20, 1) as df:
        _, state = until_it_fails(df)
    with MultiThreadRunner(lambda: MapData(numbers(60), list), 20, 2) as df:
        df.load_state_dict(state)
        with pytest.raises(UsageError, match=r"counts datapoints in a fixed order.*with as many workers as it had"):
            next(iter(df))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda once: MultiThreadMapData(MapData(numbers(400), once), 3, list, strict=True), id="source"),
        pytest.param(
            lambda once: BatchData(MultiThreadMapData(numbers(400), 3, once, strict=True), 10, remainder=True),
            id="below a batch",
        ),
        pytest.param(
            lambda once: JoinData(
                [MultiThreadMapData(numbers(400), 3, list, strict=True), MapData(numbers(400), once)]
            ),
            id="beside a map",
        ),
    ],
)
def test_an_error_loses_nothing_where_the_order_is_not_fixed(make):
    with make(FailsOnce(217)) as df:
        got, state = until_it_fails(df)
        df.load_state_dict(state)
        got += df
    assert sorted(values(got)) == list(range(400))
    assert len(got[0]) == 1 or sorted(dp[1] for dp in got) == list(range(400))


@pytest.mark.parametrize("kind", ["thread", "fork", "zmq"])
def test_an_error_in_a_pass_that_was_continued_loses_nothing(kind, make_runner):
    got, state = [], None
    for error in (None, 60, None):
        with make_runner(kind, lambda at=error: MapData(numbers(100), FailsOnce(at))) as df:
            if state is not None:
                df.load_state_dict(state)
            if error is None:
                got += islice(df, None if got else 10)
                state = df.state_dict()
            else:
                more, state = until_it_fails(df)
                got += more
    assert values(got) == [*range(100)]


@pytest.mark.parametrize("options", [{}, {"ordered": True}, {"restarts": 1}], ids=str)
def test_an_error_loses_nothing_of_a_batch_that_was_begun(options):
    with MultiProcessMapAndBatchData(numbers(64), 2, FailsOnce(22), 4, start_method="fork", **options) as df:
        got, state = until_it_fails(df)
    with MultiProcessMapAndBatchData(numbers(64), 2, list, 4, start_method="fork", **options) as df:
        df.load_state_dict(state)
        got += df
    assert sorted(values(got)) == list(range(64))


@pytest.mark.parametrize("ordered", [True, False])
def test_an_endless_map_goes_on_behind_the_datapoint_before_an_error(ordered, make_map):
    with make_map("thread", numbers(10), 1, FailsOnce(7), strict=False, ordered=ordered) as df:
        got, _ = until_it_fails(df)
        assert values(got) == [0, 1, 2, 3, 4, 5, 6]
        assert values(islice(df, 5)) == [7, 8, 9, 0, 1]


def test_a_cut_of_workers_without_order_goes_on_after_an_error_without_a_loss(make_map):
    with FixedSizeData(make_map("thread", numbers(400), 3, FailsOnce(217)), 400) as df:
        got, _ = until_it_fails(df)
        assert sorted(values([*got, *islice(df, 400 - len(got))])) == list(range(400))


def interrupted(df, line):
    """Return what comes before Ctrl-C at the n-th line of the package that runs; None if there are fewer."""
    got, left = [], line

    def count(frame, event, arg):
        nonlocal left
        left -= event == "line"
        if left == 0 and event == "line":
            raise KeyboardInterrupt  # which ends the trace, too
        return count

    def trace(frame, event, arg):
        return count if frame.f_code.co_filename.startswith(FILES) else None

    it, before = iter(df), sys.gettrace()
    sys.settrace(trace)
    try:
        got.extend(it)
    except KeyboardInterrupt:
        return got
    finally:
        sys.settrace(before)
    return None


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda made, _: made("inline", numbers(14), 2, list, buffer_size=6), id="map"),
        pytest.param(lambda made, _: made("inline", numbers(14), 2, list, ordered=True), id="ordered"),
        pytest.param(lambda made, _: BatchData(made("inline", numbers(14), 2, list), 4, remainder=True), id="below"),
        pytest.param(
            lambda _, made: made("inline", numbers(14), 3, list, 3, buffer_size=9, remainder=True), id="batches"
        ),
    ],
)
def test_ctrl_c_at_any_line_leaves_a_position_that_is_exact(make, make_map, make_batches, monkeypatch):
    newest = lambda stream: stream._answered[-1] if stream._answered else None  # noqa: E731
    monkeypatch.setattr(Dispatch, "_due", lambda stream: DUE(stream) if stream._ordered else newest(stream))
    line, step = 1, STEP
    while True:
        with make(make_map, make_batches) as df:
            got = interrupted(df, line)
            if got is None:
                break
            state = json.loads(json.dumps(df.state_dict()))
            df.load_state_dict(state)
            rest = [] if state["done"] else [*df]
            assert sorted(values([*got, *rest])) == list(range(14)), f"Ctrl-C at line {line}"
            assert sorted(values(df)) == list(range(14)), f"the pass after Ctrl-C at line {line}"
        line += step
    assert line > 10 * step


def not_a_fifth(dp):
    if dp[0] % 11 == 5:
        time.sleep(0.001)
    return dp if dp[0] % 5 else None


def break_and_fail_at_random(seed, make_map, make_batches):
    """Go through one pass in pieces, each in a flow of its own kind; return what has come in all."""
    draw = random.Random(seed)
    once, where = FailsOnce(draw.randrange(150)), draw.choice(["source", "func", "nowhere"])
    above = draw.choice(["nothing", "a batch", "batches in workers"])
    source, func = once if where == "source" else list, not_a_fifth
    got, state, done = [], None, False
    while not done:
        ds = MapData(numbers(150), source)
        call = (lambda dp: func(once(dp))) if where == "func" else func
        workers, ordered = draw.choice([1, 2, 3]), draw.random() < 0.4
        size = draw.choice([3, 20, 200])
        if above == "batches in workers":
            df = make_batches("thread", ds, workers, call, 4, buffer_size=size, ordered=ordered, remainder=True)
        else:
            df = make_map("thread", ds, workers, call, buffer_size=size, ordered=ordered)
            if draw.random() < 0.3:
                df = MapData(ds, call)
            if above == "a batch":
                df = BatchData(df, 4, remainder=True)
        with df:
            if state is not None:
                df.load_state_dict(json.loads(state))
            try:
                got.extend(islice(df, draw.choice([0, 1, 3, 20, 60])))
            except LookupError:
                assert where != "nowhere"
            state = json.dumps(df.state_dict())
            done = df.state_dict()["done"]
    return values(got)


@pytest.mark.parametrize("seed", range(12))
def test_nothing_is_lost_and_nothing_comes_twice(seed, make_map, make_batches):
    got = break_and_fail_at_random(seed, make_map, make_batches)
    assert sorted(got) == [i for i in range(150) if i % 5]


class Handed(D.ProxyDataFlow):
    """A class of a user, which goes back by counting."""

    def __iter__(self):
        yield from self.ds


ABOVE = {
    "map": lambda ds: D.MultiThreadMapData(ds, 3, uneven, strict=True),
    "shuffle": lambda ds: D.ShuffleData(ds, 20),
    "repeated": lambda ds: D.RepeatedDataPoint(ds, 1),
    "cache": D.CacheData,
    "user": Handed,
    "runner": lambda ds: D.MultiProcessRunner(ds, 10, 1, start_method="fork"),
    "batch": lambda ds: D.BatchData(ds, 7, remainder=True),
}


def uneven(dp):
    time.sleep(0.001 * (hash(dp[0]) % 3))
    return dp


@pytest.mark.parametrize("above", ABOVE.values(), ids=ABOVE.keys())
def test_what_stands_above_workers_without_order_goes_back_exactly(above):
    def make():
        return above(D.MultiThreadMapData(D.DataFromList([[i] for i in range(60)]), 3, uneven, strict=True))

    D.set_seed(3)
    for count in (1, 4, 8):
        with make() as df:
            received = [*islice(df, count)]
            state = json.loads(json.dumps(df.state_dict()))
        with make() as df:
            df.load_state_dict(state)
            received += df
        assert sorted(int(i) for dp in received for i in np.ravel(dp[0])) == [*range(60)]


PROGRAM = """
import json, sys, time
from itertools import islice
import dataflow as D

def func(dp, rng):
    time.sleep(0.002 * (dp[0] % 3))
    return [dp[0], float(rng.normal())]

kind, count, state = sys.argv[1], int(sys.argv[2]), sys.stdin.read()
D.set_seed(7)
ds = D.DataFromList([[i] for i in range(90)])
if kind == "thread":
    df = D.MultiThreadMapData(ds, 3, func, strict=True)
elif kind == "process":
    df = D.MultiProcessMapData(ds, 2, func, strict=True)
else:
    df = D.MultiProcessRunner(D.MapData(ds, func), 20, 2)
if state:
    df.load_state_dict(json.loads(state))
print(json.dumps([[*islice(df, count)], df.state_dict()]))
df.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("process", "process"), ("process", "thread"), ("runner", "runner")])
def test_a_position_among_several_workers_continues_in_a_new_process(first, second, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)

    def run(kind, count, state):
        done = subprocess.run(
            [sys.executable, "program.py", kind, str(count)], input=state, capture_output=True, text=True, check=True,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        )  # fmt: skip
        received, after = json.loads(done.stdout)
        return received, json.dumps(after)

    before, state = run(first, 25, "")
    more, state = run(second, 25, state)
    rest, _ = run(first, 90, state)
    received = [tuple(dp) for dp in before + more + rest]
    if first == "runner":  # two copies: a pass is 90 of their datapoints, from where each of them was
        assert len(received) == 90
        assert max(Counter(received).values()) == 1  # they draw different numbers
    else:
        assert len(set(received)) == 90
        assert sorted(i for i, _ in received) == [*range(90)]
