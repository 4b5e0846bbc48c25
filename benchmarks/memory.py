"""What a list of a million small dicts costs with two workers: memory, time to the first batch, and speed.

The workers yield the list in random order in batches of 64. The memory is that of all processes together at the end of
one pass, each page that several share counted once (PSS); before it, as long as the library allows, the script lets go
of its list. A list of 2,000 is run first, for its time to the first batch.
"""

from __future__ import annotations

import importlib
import os
import pickle
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from harness import Measured, Table, main

COUNT, SMALL, BATCH, WORKERS = 1_000_000, 2_000, 64, 2
AHEAD = 50  # batches that each worker is ahead, if its library lets us say so

table = Table(
    "list in workers",
    unit="MiB, PSS",
    form=",.0f",
    versus={"tensorpack_map": "x tensorpack's best", "torch": "x torch", "limit": "x one process"},
)

Records = list[dict[str, Any]]
Build = Callable[[Records], Iterable[Any]]


def records(count: int) -> Records:
    return [{"path": f"train/{i:08d}.jpg", "label": i % 1000, "weight": i / count} for i in range(count)]


def row(label: str, package: str = "numpy") -> Callable[[Build], Build]:
    """Add a function, list -> iterable of batches that starts its workers when it is iterated.

    What it imports is loaded before the clock starts, and is not in the memory of contenders that do without.
    """

    def add(build: Build) -> Build:
        def contender() -> Measured:
            sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # tensorpack would load it if it is there
            importlib.import_module(package)
            return measured(build)

        contender.__name__ = build.__name__
        table.row(label)(contender)
        return build

    return add


def measured(build: Build) -> Measured:
    """Run a small list as far as its first batch, and a large one as far as its last."""
    stream, small_seconds = begun(build, SMALL)
    del stream
    stream, seconds = begun(build, COUNT)
    start = perf_counter()
    received = sum(len(batch["path"]) for batch in islice(stream, COUNT // BATCH - 1))
    rate = received / (perf_counter() - start)
    if received != COUNT - BATCH:
        raise ValueError(f"{received} datapoints after the first batch")
    processes = family(os.getpid())
    return {
        "value": sum(map(mebibytes, processes)),
        "processes": len(processes),
        "rows/s": rate,
        f"s to the first batch of {SMALL:,}": small_seconds,
        f"of {COUNT:,}": seconds,
    }


def begun(build: Build, count: int) -> tuple[Iterator[Any], float]:
    """Return the batches behind the first one of a list, and the seconds that this took."""
    lst = records(count)
    start = perf_counter()
    flow = build(lst)
    del lst
    stream = iter(flow)
    first = next(stream)
    seconds = perf_counter() - start
    numbers = [int(path[6:14]) for path in first["path"]]
    expected = [[number % 1000 for number in numbers], [number / count for number in numbers]]
    if [[*first["label"]], [*first["weight"]]] != expected or len({*numbers}) != BATCH:
        raise ValueError(f"{first} is no batch of the list")
    return stream, seconds


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, as Linux lists them."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


def mebibytes(pid: int) -> float:
    """Return the memory of a process: its own, and its part of what it shares."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def collate(rows: Records) -> dict[str, list[Any]]:
    """Make a batch as BatchData with use_list does."""
    return {key: [row[key] for row in rows] for key in rows[0]}


def same(dp: Any) -> Any:
    return dp


@row("limit: the list itself, in one process")
def limit(lst: Records) -> Iterator[Any]:
    order = np.random.permutation(len(lst))
    for start in range(0, len(lst) - BATCH + 1, BATCH):
        yield collate([lst[index] for index in order[start : start + BATCH].tolist()])


def shared_batches(lst: Records) -> Any:
    from dataflow import BatchData, DataFromList

    return BatchData(DataFromList(lst, shared=True), BATCH, use_list=True)


@row("dataflow: one process, shared", "dataflow")
def alone(lst: Records) -> Any:
    return shared_batches(lst)


@row("dataflow: MultiProcessRunner, shared", "dataflow")
def shared(lst: Records) -> Any:
    from dataflow import MultiProcessRunner

    return MultiProcessRunner(shared_batches(lst), AHEAD * WORKERS, WORKERS)


@row("dataflow: MultiProcessRunnerZMQ, shared", "dataflow")
def shared_zmq(lst: Records) -> Any:
    from dataflow import MultiProcessRunnerZMQ

    return MultiProcessRunnerZMQ(shared_batches(lst), WORKERS, AHEAD)


@row("dataflow: MultiProcessRunner, shared, spawned workers", "dataflow")
def spawned(lst: Records) -> Any:
    from dataflow import MultiProcessRunner

    return MultiProcessRunner(shared_batches(lst), AHEAD * WORKERS, WORKERS, start_method="spawn")


@row("dataflow: MultiProcessRunner, not shared", "dataflow")
def plain(lst: Records) -> Any:
    from dataflow import BatchData, DataFromList, MultiProcessRunner

    return MultiProcessRunner(BatchData(DataFromList(lst), BATCH, use_list=True), AHEAD * WORKERS, WORKERS)


def reset(df: Any) -> Iterator[Any]:
    df.reset_state()
    yield from df


@row("tensorpack: MultiProcessMapData, batches in the consumer", "tensorpack.dataflow")
def tensorpack_map(lst: Records) -> Iterator[Any]:
    from tensorpack.dataflow import BatchData, DataFromList, MultiProcessMapData

    df = MultiProcessMapData(DataFromList(lst), WORKERS, same, buffer_size=AHEAD * BATCH, strict=True)
    return reset(BatchData(df, BATCH, use_list=True))


@row("tensorpack: MultiProcessRunnerZMQ", "tensorpack.dataflow")
def tensorpack_zmq(lst: Records) -> Iterator[Any]:
    from tensorpack.dataflow import BatchData, DataFromList, MultiProcessRunnerZMQ

    return reset(MultiProcessRunnerZMQ(BatchData(DataFromList(lst), BATCH, use_list=True), WORKERS, hwm=AHEAD))


@row("torch: DataLoader", "torch.utils.data")
def torch(lst: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        lst, BATCH, shuffle=True, num_workers=WORKERS, collate_fn=collate, drop_last=True, prefetch_factor=AHEAD
    )


@row("torch: DataLoader, the list pickled into an array by hand", "torch.utils.data")
def torch_packed(lst: Records) -> Any:
    return torch(ByHand(lst))


class ByHand:
    """What users of torch write for this."""

    def __init__(self, lst: Records) -> None:
        parts = [np.frombuffer(pickle.dumps(record, -1), np.uint8) for record in lst]
        self.ends = np.cumsum([len(part) for part in parts])
        self.bytes = np.concatenate(parts)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Any:
        return pickle.loads(self.bytes[self.ends[index - 1] if index else 0 : self.ends[index]])


@row("grain: mp_prefetch", "grain")
def grain(lst: Records) -> Any:
    import grain

    dataset = grain.MapDataset.source(lst).shuffle(random.getrandbits(30)).batch(BATCH, batch_fn=collate)
    options = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=AHEAD)
    return dataset.to_iter_dataset().mp_prefetch(options)


if __name__ == "__main__":
    main([table], packages=("tensorpack", "torch", "grain"), rounds=5)
