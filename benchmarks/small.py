"""Small datapoints from worker processes: how many a second, and how soon comes the first?

A datapoint is ``[float32 (10,), int]`` and lies ready in the worker, so that only its way to the consumer is measured.
The workers of each contender stand for a moment before the first datapoint is asked for.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, cycle, islice, takewhile
from time import perf_counter, sleep
from typing import Any

import numpy as np
from harness import Measured, Table, main

from dataflow import DataFromGenerator, MultiProcessRunner, MultiProcessRunnerZMQ

STANDING_SECONDS, SECONDS = 0.5, 2.0
CHECKED, CHUNK = 20_000, 1024  # datapoints that are looked at before, and received between two looks at the clock
AHEAD = 1000  # datapoints that each worker is ahead, if its library lets us say so
BATCH = 256

COUNT = 1024
ARRAYS = [np.full(10, number, np.float32) for number in range(COUNT)]
RAGGED = [np.full(9 + number % 3, number, np.float32) for number in range(COUNT)]

TABLES = {
    workers: Table(
        f"small {workers}",
        unit="datapoints/s",
        form=",.0f",
        versus={
            "limit": "of the limit",
            "tensorpack_zmq": "x tensorpack",
            "tensorpack_msgpack": "x tensorpack, msgpack",
            "torch": "x torch",
        },
    )
    for workers in (1, 2)
}


def row(label: str, size: int = 1) -> Callable[[Callable[[int], Any]], Callable[[int], Any]]:
    """Add a function, number of workers -> endless iterable whose workers stand, as a row of both tables.

    What it yields holds ``size`` datapoints.
    """

    def add(start: Callable[[int], Any]) -> Callable[[int], Any]:
        for workers, table in TABLES.items():

            def contender(workers: int = workers) -> Measured:
                return speed(start(workers), size)

            contender.__name__ = start.__name__
            table.row(label)(contender)
        return start

    return add


def speed(flow: Iterable[Any], size: int) -> Measured:
    """Ask for the first datapoint, look at some, and then receive for a while."""
    sleep(STANDING_SECONDS)
    start = perf_counter()
    stream = iter(flow)
    first = next(stream)
    first_seconds = perf_counter() - start
    check(first)
    for dp in islice(stream, CHECKED // size):
        check(dp)
    received, chunk = 0, CHUNK // size
    start = perf_counter()
    while (seconds := perf_counter() - start) < SECONDS:
        deque(islice(stream, chunk), maxlen=0)
        received += chunk
    return {"value": received * size / seconds, "ms to the first": first_seconds * 1e3}


def check(dp: Any) -> None:
    array, number = map(np.asarray, dp.values() if type(dp) is dict else dp)
    if array.dtype != np.float32 or not np.array_equal(array.T, np.broadcast_to(number % COUNT, array.T.shape)):
        raise ValueError(f"{dp} is not what was sent")


def datapoint(number: int) -> list[Any]:
    return [ARRAYS[number % COUNT], number]


def datapoints() -> Iterator[list[Any]]:
    return map(datapoint, count())


def uneven() -> Iterator[list[Any]]:
    """Yield arrays of three lengths, and numbers of two types, in turn."""
    return ([RAGGED[number % COUNT], (number, float(number))[number % 2]] for number in count())


def mixed() -> Iterator[Any]:
    """Yield dicts, lists and tuples in turn, of which no columns can be made."""
    for number in count(0, 3):
        yield {"array": ARRAYS[number % COUNT], "number": number}
        yield [ARRAYS[(number + 1) % COUNT], number + 1]
        yield ARRAYS[(number + 2) % COUNT], number + 2


@row("limit: the producer's loop, in one process")
def limit(workers: int) -> Iterator[Any]:
    del workers
    return datapoints()


def reset(df: Any) -> Any:
    df.reset_state()
    return df


@row("dataflow: MultiProcessRunner")
def runner(workers: int) -> Any:
    return reset(MultiProcessRunner(DataFromGenerator(datapoints), AHEAD * workers, workers))


@row("dataflow: MultiProcessRunnerZMQ")
def runner_zmq(workers: int) -> Any:
    return reset(MultiProcessRunnerZMQ(DataFromGenerator(datapoints), workers, hwm=AHEAD))


@row("dataflow: MultiProcessRunner, arrays of several lengths")
def runner_uneven(workers: int) -> Any:
    return reset(MultiProcessRunner(DataFromGenerator(uneven), AHEAD * workers, workers))


@row("dataflow: MultiProcessRunner, any Python object (lists, tuples, dicts in turn)")
def runner_mixed(workers: int) -> Any:
    return reset(MultiProcessRunner(DataFromGenerator(mixed), AHEAD * workers, workers))


@row("dataflow: MultiProcessRunnerZMQ, any Python object (lists, tuples, dicts in turn)")
def runner_zmq_mixed(workers: int) -> Any:
    return reset(MultiProcessRunnerZMQ(DataFromGenerator(mixed), workers, hwm=AHEAD))


@row("tensorpack: MultiProcessRunnerZMQ")
def tensorpack_zmq(workers: int) -> Any:
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # which it would load if it is there
    from tensorpack.dataflow import DataFlow, MultiProcessRunnerZMQ

    class Datapoints(DataFlow):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return datapoints()

    return reset(MultiProcessRunnerZMQ(Datapoints(), workers, hwm=AHEAD))


@row("tensorpack: MultiProcessRunnerZMQ, msgpack")
def tensorpack_msgpack(workers: int) -> Any:
    os.environ["TENSORPACK_ONCE_SERIALIZE"] = "msgpack"
    return tensorpack_zmq(workers)


@row(f"torch: DataLoader, batches of {BATCH}", size=BATCH)
def torch(workers: int) -> Any:
    from torch.utils.data import DataLoader, IterableDataset

    class Datapoints(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return datapoints()

    loader = DataLoader(
        Datapoints(), BATCH, num_workers=workers, collate_fn=collate, persistent_workers=True, prefetch_factor=4
    )
    next(iter(loader))  # starts the workers
    return loader


def collate(rows: list[list[Any]]) -> list[np.ndarray]:
    """Stack a batch, which is faster than torch's own way."""
    return [np.array(column) for column in zip(*rows)]  # noqa: B905


@row(f"multiprocessing: Pool.imap, chunksize={BATCH}")
def pool(workers: int) -> Any:
    return mapped(multiprocessing.Pool(workers))


def mapped(pool: Any) -> Iterator[Any]:
    """Map numbers without end; at the end let the pool finish, as one that is terminated at work may hang."""
    stopped: list[bool] = []
    blocks = (range(start, start + BATCH) for start in takewhile(lambda _: not stopped, count(0, BATCH)))
    try:
        yield from pool.imap(datapoint, chain.from_iterable(blocks), chunksize=BATCH)
    finally:
        stopped.append(True)
        pool.close()
        pool.join()


@row("SPDL: iterate_in_subprocess")
def spdl(workers: int) -> Any:
    from spdl.pipeline import iterate_in_subprocess

    return in_turn([iterate_in_subprocess(datapoints, buffer_size=AHEAD, mp_context="fork") for _ in range(workers)])


def in_turn(flows: list[Any]) -> Iterator[Any]:
    for stream in cycle([*map(iter, flows)]):
        yield next(stream)


if __name__ == "__main__":
    main([*TABLES.values()], packages=("tensorpack", "torch", "spdl"))
