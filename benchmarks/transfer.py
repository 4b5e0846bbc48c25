"""Large batches from worker processes: what does it cost to hand over 9.6 MB?

A datapoint is a batch of images and labels, ``[uint8 (64, 224, 224, 3), int64 (64,)]``, that lies ready in the worker,
so that only its way to the consumer is measured. The consumer reads one word of each cache line, and checks their sum.
Every contender is warmed up before it is timed, and keeps a few batches ahead.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle, repeat
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any

import numpy as np
from harness import Measured, Table, main

from dataflow import (
    BatchData,
    DataFromGenerator,
    MultiProcessMapAndBatchData,
    MultiProcessRunner,
    MultiProcessRunnerZMQ,
)

BATCH, SHAPE = 64, (224, 224, 3)
WARM_UP_SECONDS, SECONDS = 0.5, 2.0
AHEAD = 3  # batches that each worker is ahead, if its library lets us say so

# 38 MB, which is more than fits into the cache of a core.
IMAGES = np.random.default_rng(0).integers(0, 256, (4 * BATCH, *SHAPE), dtype=np.uint8)
ROWS = [[image, label] for label, image in enumerate(IMAGES)]
READY = [[IMAGES[start : start + BATCH], np.arange(start, start + BATCH)] for start in range(0, len(IMAGES), BATCH)]
WORDS_A_LINE = 8

Stream = Callable[[int], Iterator[Any]]
TABLES = {
    workers: Table(
        f"transfer {workers}",
        unit="GB/s",
        versus={
            "limit": "of the limit",
            "tensorpack_zmq": "x tensorpack",
            "tensorpack_msgpack": "x tensorpack, msgpack",
            "spdl": "x SPDL",
        },
    )
    for workers in (1, 2)
}


def cache_lines(images: np.ndarray) -> np.ndarray:
    """Return a word of each cache line, as a view."""
    return images.reshape(-1).view(np.uint64)[::WORDS_A_LINE]


SUMS = np.array([cache_lines(image).sum() for image in IMAGES])


def row(label: str) -> Callable[[Stream], Stream]:
    """Add a function, number of workers -> endless stream of batches, as a row of both tables."""

    def add(stream: Stream) -> Stream:
        for workers, table in TABLES.items():

            def contender(workers: int = workers) -> Measured:
                return speed(stream(workers))

            contender.__name__ = stream.__name__
            table.row(label)(contender)
        return stream

    return add


def speed(stream: Iterator[Any]) -> Measured:
    """Receive and read batches for a while."""
    receive(stream, WARM_UP_SECONDS)
    before, start = getrusage(RUSAGE_SELF), perf_counter()
    received, size = receive(stream, SECONDS)
    seconds, after = perf_counter() - start, getrusage(RUSAGE_SELF)
    return {
        "value": size / seconds / 1e9,
        "consumer's CPU": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / seconds,
        "page faults": (after.ru_minflt - before.ru_minflt) / received,
    }


def receive(stream: Iterator[Any], seconds: float) -> tuple[int, int]:
    """Return how many batches came, and bytes; as in a loop, a batch is dropped when the next one is there."""
    received = size = 0
    stop = perf_counter() + seconds
    for batch in stream:
        images, labels = map(np.asarray, batch)
        if images.shape != (BATCH, *SHAPE) or cache_lines(images).sum() != SUMS[labels].sum():
            raise ValueError(f"a batch of shape {images.shape} with labels {labels} is not what was sent")
        received += 1
        size += images.nbytes + labels.nbytes
        if perf_counter() > stop:
            break
    return received, size


def batches() -> Iterator[Any]:
    return map(list.copy, cycle(READY))


def rows() -> Iterator[Any]:
    return map(list.copy, cycle(ROWS))


def numbers() -> Iterator[list[int]]:
    return ([number % len(ROWS)] for number in count())


def row_of(dp: list[int]) -> list[Any]:
    return ROWS[dp[0]]


def batch_of(number: int) -> list[Any]:
    return READY[number % len(READY)]


@row("limit: no transport, the bytes are copied and read in one process")
def limit(workers: int) -> Iterator[Any]:
    del workers
    buffers = cycle([[np.empty_like(part) for part in READY[0]] for _ in range(2)])
    for source, buffer in zip(cycle(READY), buffers, strict=False):
        for part, copy in zip(source, buffer, strict=True):
            np.copyto(copy, part)
        yield buffer


@row("dataflow: MultiProcessRunner, any datapoint")
def runner(workers: int) -> Iterator[Any]:
    return iter(MultiProcessRunner(DataFromGenerator(batches), AHEAD * workers, workers))


@row("dataflow: MultiProcessRunnerZMQ, any datapoint")
def runner_zmq(workers: int) -> Iterator[Any]:
    return iter(MultiProcessRunnerZMQ(DataFromGenerator(batches), workers, hwm=AHEAD))


@row("dataflow: MultiProcessRunner, batch stacked in place by BatchData")
def runner_batch(workers: int) -> Iterator[Any]:
    return iter(MultiProcessRunner(BatchData(DataFromGenerator(rows), BATCH), AHEAD * workers, workers))


@row("dataflow: MultiProcessMapAndBatchData, batch stacked in place")
def map_and_batch(workers: int) -> Iterator[Any]:
    ahead = (AHEAD * workers + 1) * BATCH
    return iter(MultiProcessMapAndBatchData(DataFromGenerator(numbers), workers, row_of, BATCH, ahead))


def tensorpack() -> Any:
    """Return tensorpack, without the tensorflow that it would load if it is there."""
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    import tensorpack.dataflow

    return tensorpack.dataflow


def tensorpack_flow(make: Callable[[], Iterator[Any]]) -> Any:
    class Made(tensorpack().DataFlow):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return make()

    return Made()


def reset(df: Any) -> Iterator[Any]:
    df.reset_state()
    while True:
        yield from df


@row("tensorpack: MultiProcessRunnerZMQ")
def tensorpack_zmq(workers: int) -> Iterator[Any]:
    return reset(tensorpack().MultiProcessRunnerZMQ(tensorpack_flow(batches), workers, hwm=AHEAD))


@row("tensorpack: MultiProcessRunnerZMQ, msgpack")
def tensorpack_msgpack(workers: int) -> Iterator[Any]:
    os.environ["TENSORPACK_ONCE_SERIALIZE"] = "msgpack"
    return tensorpack_zmq(workers)


@row("tensorpack: MultiProcessMapDataZMQ")
def tensorpack_map(workers: int) -> Iterator[Any]:
    flow = tensorpack_flow(lambda: iter(range(len(READY))))
    return reset(tensorpack().MultiProcessMapDataZMQ(flow, workers, batch_of, buffer_size=AHEAD * workers))


@row("tensorpack: MultiProcessRunner (a queue)")
def tensorpack_queue(workers: int) -> Iterator[Any]:
    return reset(tensorpack().MultiProcessRunner(tensorpack_flow(batches), AHEAD * workers, workers))


@row("torch: DataLoader, tensors in shared memory")
def torch(workers: int) -> Iterator[Any]:
    import torch.utils.data

    class Batches(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return map(list, map(partial(map, torch.from_numpy), batches()))

    return iter(torch.utils.data.DataLoader(Batches(), batch_size=None, num_workers=workers, prefetch_factor=AHEAD))


@row("grain: mp_prefetch")
def grain(workers: int) -> Iterator[Any]:
    import grain

    dataset = grain.MapDataset.range(1 << 30).map(batch_of)
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    processes = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD)
    return iter(dataset.to_iter_dataset(reading).mp_prefetch(processes))


@row("SPDL: iterate_in_subprocess, SharedMemorySegmentPool")
def spdl(workers: int) -> Iterator[Any]:
    from spdl.pipeline import SharedMemorySegmentPool, iterate_in_subprocess

    size = sum(part.nbytes for part in READY[0]) + 4096
    streams = [
        iter(
            iterate_in_subprocess(batches, buffer_size=AHEAD, mp_context="fork", arena=SharedMemorySegmentPool(size, 6))
        )
        for _ in range(workers)
    ]
    for stream in cycle(streams):
        yield next(stream)


def fill(queue: Any) -> None:
    for batch in batches():
        queue.put(batch)


@row("multiprocessing.Queue")
def queue(workers: int) -> Iterator[Any]:
    batches_of_all: Any = multiprocessing.Queue(AHEAD * workers)
    for _ in range(workers):
        multiprocessing.Process(target=fill, args=(batches_of_all,), daemon=True).start()
    return (batches_of_all.get() for _ in repeat(None))


if __name__ == "__main__":
    main([*TABLES.values()], packages=("tensorpack", "torch", "grain", "spdl"))
