"""Check that a flow keeps the contract, ours or yours; and flows to test with."""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from .base import DataFlow, ProxyDataFlow
from .errors import UnknownLength, UsageError
from .passes import graph
from .sources import DataFromList
from .utils import check, rng
from .utils.deps import need

SEED = 20_11


def check_dataflow(
    make: Callable[[], DataFlow],
    resumable: bool = True,
    *,
    exact_length: bool = True,
    limit: int = 60,
    new_process: bool = True,
) -> None:
    """Raise AssertionError unless the flows that ``make`` returns keep what every flow promises.

    It asks for: passes with and without ``reset_state``, the same stream under a seed, a length or UnknownLength,
    passes that overlap or a UsageError, pickling, a one-line ``repr``, ``close`` and ``with``, nothing left behind by
    an iterator that was dropped, datapoints that belong to their consumer, and a position that can be saved and
    loaded behind every datapoint, at the end of a pass, after it, and in a new process.

    >>> check_dataflow(lambda: BatchData(DataFromList([[i] for i in range(10)]), 2), new_process=False)

    Args:
        make: returns a new, equal flow at each call.
        resumable: the flow has a position. If not, ``state_dict`` must raise UsageError.
        exact_length: ``len``, where it is known, is the number of datapoints in a pass.
        limit: how many datapoints of a pass are looked at; the rest of a longer or endless flow is not.
        new_process: also load a state in a new interpreter, which takes a quarter of a second.

    Raises:
        AssertionError: naming the promise and what was seen instead.
        TypeError: if ``make`` cannot be called or returns something else than a flow.
    """
    check.function(make=make)
    check.integer(1, limit=limit)
    check.instance(DataFlow, "a function that returns a DataFlow", make=make())
    before = rng.default_seed()
    rng.set_seed(SEED if before is None else before)
    try:
        checker = _Checker(make, limit)
        checker.shape(exact_length)
        checker.life()
        checker.ownership()
        checker.overlap()
        checker.pickling()
        if resumable:
            checker.position()
            checker.position_of_passes()
            if new_process:
                checker.new_process()
        else:
            checker.no_position()
    finally:
        rng.set_seed(before)


class _Checker:
    def __init__(self, make: Callable[[], DataFlow], limit: int) -> None:
        self.make, self.limit = make, limit
        df = make()
        # Four passes: three to compare with, and one for what follows the third.
        self.passes = [self.take(df) for _ in range(4)]
        df.close()

    def take(self, df: DataFlow, count: int | None = None) -> list[Any]:
        """Return one pass, up to the limit."""
        return list(islice(iter(df), self.limit if count is None else count))

    def after(self, passes: int) -> DataFlow:
        """Return a new flow that has run some passes."""
        df = self.make()
        for _ in range(passes):
            self.take(df)
        return df

    def shape(self, exact_length: bool) -> None:
        df = self.make()
        expect("\n" not in repr(df), "repr is one line", repr(df))
        expect(bool(df), "a flow is true", bool(df))
        try:
            length = len(df)
        except UnknownLength:
            return
        full = len(self.passes[0]) < self.limit
        expect(not exact_length or not full or length == len(self.passes[0]), "len(df) is the size of a pass", length)

    def life(self) -> None:
        df = self.make()
        for _ in range(2):
            df.reset_state()
            for number in range(2):
                expect_same(self.take(df), self.passes[number], f"after reset_state, pass {number} is as always")
        _collect()
        threads, files = _left_behind()
        with self.make() as df:
            self.take(df, 2)
        df.close()
        self.expect_nothing_left(threads, files, "close() frees everything")
        self.take(df, 1)
        df.close()
        df = self.make()
        for _ in range(3):
            next(iter(df), None)
        df.close()
        _collect()
        self.expect_nothing_left(threads, files, "a dropped iterator leaves nothing")

    def expect_nothing_left(self, threads: int, files: int, promise: str) -> None:
        threads_now, files_now = _left_behind()
        more = f"{threads_now - threads} more threads, {files_now - files} more open files"
        expect(threads_now <= threads and files_now <= files, promise, more)

    def ownership(self) -> None:
        df = self.make()
        for expected in self.passes[:2]:
            it, received, shown = iter(df), [], []
            for dp in islice(it, self.limit):
                received.append(dp)
                shown.append(pickle.dumps(dp))
            for dp, bytes_then in zip(received, shown, strict=True):
                expect_same(dp, pickle.loads(bytes_then), "a received datapoint never changes")
                _scribble(dp)
            del it
            expect_same([pickle.loads(dp) for dp in shown], expected, "what a consumer changes, it changes for itself")

    def overlap(self) -> None:
        df = self.make()
        first, second = iter(df), iter(df)
        got = next(first, None)
        try:
            next(second, None)
        except UsageError as error:
            expect("close()" in str(error), "the error of a second pass names df.close()", str(error))
            del second
            if got is not None:
                del first
                next(iter(df), None)
                df.close()
                next(iter(df), None)
        else:
            if got is not None:
                rest = [got, *islice(first, self.limit - 1)]
                expect_same(rest, self.passes[0], "a pass does not notice one that runs beside it")

    def pickling(self) -> None:
        for used in (False, True):
            df = self.after(1) if used else self.make()
            clone = pickle.loads(_cloudpickle(self.make).dumps(df))
            expect_same(self.take(clone), self.passes[0], "a pickled flow starts from its beginning")

    def position(self) -> None:
        for number in range(3):
            whole, following = self.passes[number], self.passes[number + 1]
            cut = len(whole) == self.limit
            for count in _spread(len(whole)):
                df = self.after(number)
                it = iter(df)
                got = list(islice(it, count))
                state = json.dumps(df.state_dict())
                place = f"the state behind datapoint {count} of pass {number}"
                expect(state == json.dumps(it.state_dict()), f"{place} is that of its iterator", state)  # type: ignore[attr-defined]
                if not cut or count < len(whole):
                    resumed = self.load(state)
                    expect_same(got + self.take(resumed, len(whole) - count), whole, f"{place} continues with the rest")
                    if not cut:
                        expect_same(
                            self.take(self.load(state, resets=1)), whole[count:], f"{place} outlives a reset_state"
                        )
                        resumed = self.load(state)
                        self.take(resumed)
                        expect_same(self.take(resumed), following, f"{place} is followed by the next pass")
                del it
                expect(json.dumps(df.state_dict()) == state, f"{place} is the same after a break", df.state_dict())

    def position_of_passes(self) -> None:
        for number in range(3):
            if len(self.passes[number]) == self.limit:
                continue
            df = self.after(number + 1)
            resumed = self.load(json.dumps(df.state_dict()))
            expect_same(self.take(resumed), self.passes[number + 1], f"the state after pass {number} starts the next")
        fresh = self.load(json.dumps(self.make().state_dict()))
        expect_same(self.take(fresh), self.passes[0], "the state before the first pass starts it")

    def load(self, state: str, resets: int = 0) -> DataFlow:
        df = self.make()
        df.load_state_dict(json.loads(state))
        for _ in range(resets):
            df.reset_state()
        return df

    def new_process(self) -> None:
        count = len(self.passes[1]) // 2
        df = self.after(1)
        it = iter(df)
        list(islice(it, count))
        take = len(self.passes[1]) - count
        job = _cloudpickle(self.make).dumps((self.make, df.state_dict(), take))
        program = (
            "import pickle, sys; from itertools import islice\n"
            "make, state, take = pickle.load(sys.stdin.buffer)\n"
            "df = make(); df.load_state_dict(state)\n"
            "pickle.dump(list(islice(iter(df), take)), sys.stdout.buffer)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, input=job, env=environment, capture_output=True, check=False)
        expect(done.returncode == 0, "a state loads in a new process", done.stderr.decode(errors="replace"))
        rest = pickle.loads(done.stdout)
        expect_same(rest, self.passes[1][count:], "a state continues with the rest in a new process")

    def no_position(self) -> None:
        df = self.make()
        it = iter(df)
        next(it, None)
        try:
            state = df.state_dict()
        except UsageError:
            return
        raise AssertionError(f"a flow that cannot go back raises UsageError from state_dict: {state!r}")


def expect(kept: bool, promise: str, seen: Any) -> None:
    """Raise AssertionError with the promise and what was seen, unless it is kept."""
    if not kept:
        raise AssertionError(f"{promise}: {seen}")


def expect_same(seen: Any, wanted: Any, promise: str) -> None:
    """Raise AssertionError unless two values, or lists of datapoints, are equal bit by bit."""
    if not same(seen, wanted):
        raise AssertionError(f"{promise}: expected {_brief(wanted)}, got {_brief(seen)}")


def same(a: Any, b: Any) -> bool:
    """Say whether two datapoints are equal in type, structure, dtype, shape and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray | np.generic):
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        return bool(a.tolist() == b.tolist()) if a.dtype.hasobject else a.tobytes() == b.tobytes()
    if isinstance(a, float):
        return np.float64(a).tobytes() == np.float64(b).tobytes()
    return bool(a == b)


def numbers(count: int) -> DataFromList:
    """Return a flow of ``[0]``, ``[1]``, ... in order."""
    return DataFromList([[i] for i in range(count)], shuffle=False)


class FailsAt(ProxyDataFlow):
    """Hand on a flow, and raise ``error`` in place of its datapoint ``number``.

    >>> it = iter(FailsAt(DataFromList([[0], [1]], shuffle=False), 1, ValueError("no")))
    >>> next(it)
    [0]
    >>> next(it)
    Traceback (most recent call last):
    ValueError: no
    in FailsAt(ds=DataFromList, number=1, error=ValueError('no')), datapoint 1
    """

    def __init__(self, ds: Any, number: int, error: BaseException) -> None:
        super().__init__(ds)
        self.number = number
        self.error = error

    def __iter__(self) -> Iterator[Any]:
        for number, dp in enumerate(self.ds):
            if number == self.number:
                raise self.error
            yield dp


class FailsOnce:
    """Return each datapoint as it is, but raise LookupError at the first whose first component is ``at``.

    >>> list(MapData(DataFromList([[0], [1]], shuffle=False), FailsOnce(7)))
    [[0], [1]]
    """

    def __init__(self, at: Any) -> None:
        self.at: Any = at

    def __call__(self, dp: Any) -> Any:
        if self.at is not None and dp[0] == self.at:
            self.at = None
            raise LookupError(dp[0])
        return dp


def _cloudpickle(make: Callable[[], DataFlow]) -> Any:
    """Return cloudpickle, told to carry what is defined beside ``make`` by value: a new process may not find it."""
    cloudpickle = need("cloudpickle", by="check_dataflow")
    modules = {kind.__module__ for flow in graph(make()) for kind in type(flow).__mro__} | {make.__module__}
    for name in modules:
        if name.partition(".")[0] not in ("dataflow", "builtins", "abc", "__main__") and name in sys.modules:
            cloudpickle.register_pickle_by_value(sys.modules[name])
    return cloudpickle


def _spread(size: int) -> list[int]:
    """Return counts from 0 to ``size``: all of a short pass, a dozen and the ends of a long one."""
    if size <= 24:
        return list(range(size + 1))
    return sorted({0, 1, 2, size - 1, size, *range(3, size, size // 12)})


def _collect() -> None:
    """Collect garbage. ``gc.collect`` alone does nothing while another thread collects, such as a worker."""
    collected = []

    def note(_: str, info: dict[str, int]) -> None:
        if info["generation"] == 2:
            collected.append(threading.get_ident())

    gc.callbacks.append(note)
    try:
        while threading.get_ident() not in collected:
            gc.collect()
            time.sleep(0)  # let the other one go on
    finally:
        gc.callbacks.remove(note)


def _left_behind() -> tuple[int, int]:
    """Count what a process could leave running: its threads and open files."""
    descriptors = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return threading.active_count(), len(os.listdir(descriptors))


def _scribble(dp: Any) -> None:
    """Change everything in a datapoint that its consumer may change."""
    if isinstance(dp, list | dict):
        dp.clear()


def _brief(value: Any) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= 300 else f"{text[:297]}..."
