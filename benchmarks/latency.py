"""When a worker is killed, or a function in it raises: how long until the consumer knows?

Two workers take 3 ms for a datapoint, asleep, and the consumer does nothing but iterate. It is told by an exception;
the clock starts just before the signal is sent, or the exception raised. A contender that says nothing for 3 s is
silent, and is cut off.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from itertools import islice
from multiprocessing.connection import wait
from statistics import median
from typing import Any, Self

from harness import Result, Table, failure, main

from dataflow import DataFromList, MapData, MultiProcessMapData, MultiProcessRunner, MultiProcessRunnerZMQ
from dataflow.errors import WorkerDied

WORKERS, AHEAD = 2, 20
# Seconds that a datapoint takes, and N of them: more than anybody waits for.
WORK, N = 0.003, 10_000
# After the first datapoints all workers are at work. One is killed up to so many seconds later.
LATEST, FIRST = 0.05, 10
# Errors in a round: of us, of a peer, and of one that starts two new interpreters for each. A silence ends the round.
TRIALS, PEER_TRIALS, SLOW_TRIALS = 40, 10, 4
SILENCE = 3.0
NEVER = math.inf

Work = Callable[[list[int]], list[int]]
Flow = Callable[[Work], AbstractContextManager[Iterable[Any]]]
# Iterators, so that those of peers are never cleaned up: it takes for ever where a dead worker has left a lock.
kept: list[object] = []


class Latencies(Table):
    """A table of all that was measured in all rounds, since the worst is what matters.

    Args:
        name: what the JSON and the block in docs/performance.md call it.
        limit: the contender that every row is divided by.
    """

    def __init__(self, name: str, limit: str) -> None:
        super().__init__(name, unit="ms", versus={limit: "x the limit"})

    def markdown(self, results: Mapping[str, list[Result]]) -> str:
        heads = ["contender", "told", "median, ms", "99 %", "worst", *self.versus.values()]
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
        for key, (label, _) in self.rows.items():
            if all("seconds" in one for one in results[key]):
                limits = next(results.get(limit, []) for limit in self.versus)
                lines.append([label, *_figures(results[key]), _ratio(results[key], limits)])
            else:
                lines.append([label, failure(results[key]), *[""] * (len(heads) - 2)])
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _figures(runs: list[Result]) -> Iterator[str]:
    seconds = sorted(one for run in runs for one in run["seconds"])
    yield f"{sum(one < NEVER for one in seconds)} of {len(seconds)}"
    for figure in (median(seconds), seconds[math.ceil(0.99 * len(seconds)) - 1], seconds[-1]):
        yield f"{1e3 * figure:,.1f}" if figure < NEVER else "never"


def _ratio(runs: list[Result], limits: list[Result]) -> str:
    pairs = [(median(run["seconds"]), median(limit["seconds"])) for run, limit in zip(runs, limits, strict=False)]
    ratios = [value / limit for value, limit in pairs if value < NEVER]
    return f"{median(ratios):,.1f}" if ratios else ""


deaths = Latencies("death", limit="limit")
exceptions = Latencies("exception", limit="limit")


def contender(
    label: str, died: type[Exception] = Exception, count: int = PEER_TRIALS
) -> Callable[[Callable[[Work], Iterator[Any]]], None]:
    """Add the decorated generator, which yields a flow that does some work, to both tables.

    Args:
        label: what the rows are called.
        died: the error of a worker that was killed.
        count: errors in a round.
    """

    def add(generator: Callable[[Work], Iterator[Any]]) -> None:
        @contextmanager
        def flow(work: Work) -> Iterator[Any]:
            with contextmanager(generator)(work) as rows:
                try:
                    yield rows
                finally:
                    kill_children()

        deaths.row(label)(wraps(generator)(lambda: {"seconds": kill_many(flow, died, count)}))
        exceptions.row(label)(wraps(generator)(lambda: {"seconds": trials(count, partial(raise_one, flow))}))

    return add


def trials(count: int, measure: Callable[[], float]) -> list[float]:
    """Return what a round measures."""
    seconds: list[float] = []
    try:
        while len(seconds) < count:
            seconds.append(measure())
    except Silence:
        seconds.append(NEVER)
    return seconds


def kill_children() -> None:
    """End what a peer has started."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises
    for process in multiprocessing.active_children():
        process.kill()
        process.join()
    signal.signal(signal.SIGCHLD, handler)


def work(bad: int, dp: list[int]) -> list[int]:
    """Return who did it, as the datapoint; raise at datapoint ``bad``."""
    time.sleep(WORK)
    if dp[0] == bad:
        raise ValueError(f"raised at {time.monotonic()!r}")
    return [os.getpid()]


def kill_many(flow: Flow, died: type[Exception], count: int) -> list[float]:
    with Killer() as killer:
        return trials(count, partial(kill_one, flow, died, killer))


def kill_one(flow: Flow, died: type[Exception], killer: Killer) -> float:
    with flow(partial(work, -1)) as rows:
        kept.append(it := iter(rows))
        *_, victim = islice(it, FIRST)
        killer.kill(victim[0], random.uniform(0, LATEST))
        heard, _ = first_error(it, died)
        return heard - killer.moment()


def raise_one(flow: Flow) -> float:
    with flow(partial(work, 2 * FIRST + random.randrange(AHEAD))) as rows:
        kept.append(it := iter(rows))
        deque(islice(it, FIRST), maxlen=0)
        heard, error = first_error(it, Exception)
        # Those who raise another exception show the text of this one in it, or as its cause.
        moment = re.search(r"raised at ([\d.]+)", f"{error} {error.__cause__}")
        if moment is None:
            raise RuntimeError(f"the error does not tell what was raised: {error!r}") from error
        return heard - float(moment[1])


class Silence(BaseException):
    """Nothing was heard for too long."""


def stop_waiting(*_: object) -> None:
    raise Silence


def first_error(it: Iterator[Any], kind: type[Exception]) -> tuple[float, Exception]:
    """Iterate until an error of this kind comes; return when, and the error."""
    signal.signal(signal.SIGALRM, stop_waiting)
    signal.setitimer(signal.ITIMER_REAL, LATEST + SILENCE)
    try:
        deque(it, maxlen=0)
    except kind as error:
        heard = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return heard, error.with_traceback(None)  # its frames would keep the flow
    raise RuntimeError("the flow ended, and there was no error")


class Killer:
    """A process that kills others, so that the consumer has nothing to do but to iterate."""

    PROGRAM = """
import os, signal, sys, time
for line in sys.stdin:
    pid, delay = line.split()
    time.sleep(float(delay))
    moment = time.monotonic()
    os.kill(int(pid), signal.SIGKILL)
    print(repr(moment), flush=True)
"""

    def __enter__(self) -> Self:
        command, pipe = [sys.executable, "-c", self.PROGRAM], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        return self

    def kill(self, pid: int, delay: float) -> None:
        """Have a process killed ``delay`` seconds from now."""
        print(pid, delay, file=self._process.stdin, flush=True)

    def moment(self) -> float:
        """Return when it was killed: on all of POSIX's systems, this clock is the same in all processes."""
        return float(self._process.stdout.readline())  # type: ignore[union-attr]

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()


def numbers() -> DataFromList:
    return DataFromList([[n] for n in range(N)], shuffle=False)


def by_hand(work: Work, pipe: Any) -> None:
    for n in range(N):
        try:
            pipe.send(work([n]))
        except ValueError as error:
            pipe.send(error)


@contender("limit: a pipe a worker, and a poll", died=EOFError, count=TRIALS)
def limit(work: Work) -> Iterator[Any]:
    pipes = []
    for _ in range(WORKERS):
        near, far = multiprocessing.Pipe(duplex=False)
        multiprocessing.get_context("fork").Process(target=by_hand, args=(work, far), daemon=True).start()
        far.close()
        pipes.append(near)

    def rows() -> Iterator[Any]:
        while True:
            for pipe in wait(pipes):
                dp = pipe.recv()  # type: ignore[union-attr]
                if isinstance(dp, Exception):
                    raise dp
                yield dp

    yield rows()


@contender("dataflow: MultiProcessRunner", died=WorkerDied, count=TRIALS)
def process_runner(work: Work) -> Iterator[Any]:
    with MultiProcessRunner(MapData(numbers(), work), AHEAD, WORKERS) as df:
        yield df


@contender("dataflow: MultiProcessRunnerZMQ", died=WorkerDied, count=TRIALS)
def zmq_runner(work: Work) -> Iterator[Any]:
    with MultiProcessRunnerZMQ(MapData(numbers(), work), WORKERS, AHEAD) as df:
        yield df


@contender("dataflow: MultiProcessMapData", died=WorkerDied, count=TRIALS)
def zmq_map(work: Work) -> Iterator[Any]:
    with MultiProcessMapData(numbers(), WORKERS, work, buffer_size=AHEAD) as df:
        yield df


@contender("tensorpack: MultiProcessRunnerZMQ")
def tensorpack_runner(work: Work) -> Iterator[Any]:
    from tensorpack.dataflow import DataFromList, MapData, MultiProcessRunnerZMQ

    df = MapData(DataFromList([[n] for n in range(N)], shuffle=False), work)
    df = MultiProcessRunnerZMQ(df, WORKERS, AHEAD)
    df.reset_state()
    yield df


@contender("tensorpack: MultiProcessMapDataZMQ")
def tensorpack_map(work: Work) -> Iterator[Any]:
    from tensorpack.dataflow import DataFromList, MultiProcessMapDataZMQ

    ds = DataFromList([[n] for n in range(N)], shuffle=False)
    df = MultiProcessMapDataZMQ(ds, WORKERS, work, buffer_size=AHEAD)
    df.reset_state()
    yield df


@contender("torch: DataLoader of a map-style dataset")
def torch_map(work: Work) -> Iterator[Any]:
    from torch.utils.data import DataLoader, Dataset

    class Worked(Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return N

        def __getitem__(self, index: int) -> list[int]:
            return work([index])

    yield DataLoader(Worked(), batch_size=None, num_workers=WORKERS)


@contender("torch: DataLoader of an IterableDataset")
def torch_iterable(work: Work) -> Iterator[Any]:
    from torch.utils.data import DataLoader, IterableDataset

    class Worked(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[list[int]]:
            return (work([n]) for n in range(N))

    yield DataLoader(Worked(), batch_size=None, num_workers=WORKERS)


@contender("grain: mp_prefetch", count=SLOW_TRIALS)
def grain_prefetch(work: Work) -> Iterator[Any]:
    import grain

    dataset = grain.MapDataset.source([[n] for n in range(N)]).map(work)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0))
    yield dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS))


@contender("concurrent.futures: ProcessPoolExecutor")
def executor(work: Work) -> Iterator[Any]:
    pool = ProcessPoolExecutor(WORKERS)
    futures = deque(pool.submit(work, [n]) for n in range(AHEAD))

    def rows() -> Iterator[Any]:
        for n in range(AHEAD, N):
            yield futures.popleft().result()
            futures.append(pool.submit(work, [n]))

    yield rows()


if __name__ == "__main__":
    main([deaths, exceptions], packages=("tensorpack", "torch", "grain"))
    sys.stdout.flush()
    os._exit(0)  # at exit all that is kept would be cleaned up
