"""A million small datapoints through four stages: what is the price of a datapoint, and what is it paid for?

List of ``[int, int]`` -> map -> shuffle in a buffer of 1,000 -> batches of 32. Every contender makes two passes and the
second is timed, with Python's garbage collector on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count, islice, repeat
from time import perf_counter
from typing import Any

import numpy as np
from harness import Table, main

from dataflow import BatchData, DataFromList, LocallyShuffleData, MapData, ShuffleData
from dataflow.utils.rng import KeyedGenerator

N, BUFFER, BATCH = 1_000_000, 1000, 32
# Enough to see their speed; all of the million would take them up to four minutes.
GRAIN_MAP_N, GRAIN_ITER_N = 100_000, 10_000

peers = Table(
    "chain",
    unit="million datapoints/s",
    form=",.3f",
    versus={"fused": "of the limit", "tensorpack_chain": "x tensorpack"},
)
prices = Table("chain price", unit="ns/datapoint", versus={"limit": "x the limit"}, steps=True, form=",.0f")


def numbers(size: int = N) -> list[list[int]]:
    return [[i, i + 1] for i in range(size)]


def increment(dp: list[int]) -> list[int]:
    return [dp[0], dp[1] + 1]


def second_pass(batches: Callable[[], Iterable[Any]], size: int = N) -> float:
    """Return the seconds that the second pass of two takes."""
    for _ in range(2):
        start = perf_counter()
        given = sum(len(batch[0]) for batch in batches())
        seconds = perf_counter() - start
        if not size - BATCH < given <= size:
            raise ValueError(f"a pass of {size} datapoints gave {given}")
    return seconds


def speed(batches: Callable[[], Iterable[Any]], size: int = N) -> float:
    return size / second_pass(batches, size) / 1e6


def fused_pass(data: list[list[int]]) -> Iterator[list[np.ndarray]]:
    """Do the work of all four stages in one loop, with nothing around it."""
    draw, array, int32 = random.random, np.array, np.int32
    it = iter(data)
    buffer = [increment(dp) for dp in islice(it, BUFFER)]
    rows = []
    for dp in it:
        place = int(draw() * BUFFER)
        rows.append(buffer[place])
        buffer[place] = increment(dp)
        if len(rows) == BATCH:
            a, b = zip(*rows)  # noqa: B905  # a promise that this loop does not make
            yield [array(a, dtype=int32), array(b, dtype=int32)]
            rows = []
    random.shuffle(buffer)
    rows += buffer
    for start in range(0, len(rows) - BATCH + 1, BATCH):
        a, b = zip(*rows[start : start + BATCH])  # noqa: B905
        yield [array(a, dtype=int32), array(b, dtype=int32)]


@peers.row("limit: one loop, written by hand for this task")
def fused() -> float:
    data = numbers()
    return speed(lambda: fused_pass(data))


def dataflow_batches(data: list[list[int]]) -> BatchData:
    return BatchData(ShuffleData(MapData(DataFromList(data, shuffle=False), increment), BUFFER), BATCH)


@peers.row("dataflow: DataFromList, MapData, ShuffleData, BatchData")
def dataflow_chain() -> float:
    df = dataflow_batches(numbers())
    return speed(lambda: df)


@peers.row("dataflow: the same with LocallyShuffleData")
def dataflow_locally() -> float:
    df = BatchData(LocallyShuffleData(MapData(DataFromList(numbers(), shuffle=False), increment), BUFFER), BATCH)
    return speed(lambda: islice(df, N // BATCH))  # endless


@peers.row("tensorpack: the same with its LocallyShuffleData")
def tensorpack_chain() -> float:
    from tensorpack.dataflow import BatchData, DataFromList, LocallyShuffleData, MapData

    df = BatchData(LocallyShuffleData(MapData(DataFromList(numbers(), shuffle=False), increment), BUFFER), BATCH)
    df.reset_state()
    return speed(lambda: islice(df, N // BATCH))  # endless


def collate(rows: Sequence[list[int]]) -> list[np.ndarray]:
    """Stack a batch for those who are slower with their own; they check nothing."""
    return [np.array(column, dtype=np.int32) for column in zip(*rows)]  # noqa: B905


@peers.row("torchdata.nodes: IterableWrapper, Mapper, Batcher, Mapper (it has no shuffle)")
def torchdata_nodes() -> float:
    from torchdata.nodes import Batcher, IterableWrapper, Loader, Mapper

    nodes = Loader(Mapper(Batcher(Mapper(IterableWrapper(numbers()), increment), BATCH), collate))
    return speed(lambda: nodes)


@peers.row("webdataset: DataPipeline of map, shuffle, batched")
def webdataset_pipeline() -> float:
    import webdataset as wds

    data = numbers()
    stages = wds.map(increment), wds.shuffle(BUFFER, initial=BUFFER), wds.batched(BATCH, collation_fn=collate)
    pipeline = wds.DataPipeline(lambda: iter(data), *stages)
    return speed(lambda: pipeline)


@peers.row("torch: DataLoader without workers, global shuffle")
def torch_loader() -> float:
    from torch.utils.data import DataLoader, Dataset

    class Incremented(Dataset):  # type: ignore[misc]
        data = numbers()

        def __len__(self) -> int:
            return N

        def __getitem__(self, index: int) -> list[int]:
            return increment(self.data[index])

    loader = DataLoader(Incremented(), batch_size=BATCH, shuffle=True, num_workers=0, collate_fn=collate)
    return speed(lambda: loader)


@peers.row(f"grain: MapDataset, global shuffle ({GRAIN_MAP_N:,} datapoints)")
def grain_map() -> float:
    import grain

    dataset = grain.MapDataset.source(numbers(GRAIN_MAP_N)).shuffle(seed=0).map(increment).batch(BATCH)
    return speed(lambda: dataset, GRAIN_MAP_N)


@peers.row(f"grain: IterDataset, global shuffle ({GRAIN_ITER_N:,} datapoints)")
def grain_iter() -> float:
    import grain

    dataset = grain.MapDataset.source(numbers(GRAIN_ITER_N)).shuffle(seed=0).to_iter_dataset()
    dataset = dataset.map(increment).batch(BATCH)
    return speed(lambda: dataset, GRAIN_ITER_N)


# The second table starts from a chain of C-level iterators with nothing around it; each row adds one promise.


def cost(batches: Callable[[list[list[int]]], Iterable[Any]]) -> float:
    """Return the ns that a datapoint takes."""
    data = numbers()
    return second_pass(lambda: batches(data)) / N * 1e9


def dropping(it: Iterator[Any]) -> Iterator[Any]:
    for number, dp in enumerate(it):  # noqa: B007
        result = increment(dp)
        if result is not None:
            yield result


def locating(it: Iterator[Any]) -> Iterator[Any]:
    number = -1
    for number, dp in enumerate(it):
        try:
            result = increment(dp)
        except Exception as error:
            error.add_note(f"datapoint {number}")
            raise
        if result is not None:
            yield result


def swapped(it: Iterator[Any], rounds: Callable[[int], list[int]]) -> Iterator[Any]:
    """Shuffle: each place gives up its datapoint and takes the next."""
    buffer = list(islice(it, BUFFER))
    for place, dp in zip(chain.from_iterable(map(rounds, count())), it, strict=False):
        yield buffer[place]
        buffer[place] = dp
    yield from buffer


def any_places() -> Callable[[int], list[int]]:
    draw = np.random.Generator(np.random.Philox(0))
    return lambda _: draw.integers(BUFFER, size=BUFFER).tolist()


def keyed_places() -> Callable[[int], list[int]]:
    """Draw each round from a key of its own, and note where it began and what it filled, so that it can be replayed."""
    draw = KeyedGenerator(np.random.SeedSequence(0))
    filled = np.zeros(BUFFER, int)
    journal: dict[int, dict[str, int]] = {}

    def places(number: int) -> list[int]:
        drawn = draw(number).integers(BUFFER, size=BUFFER)
        journal[number] = {"index": number * BUFFER}
        journal.pop(int(filled.min()) - 1, None)
        filled[drawn] = number
        return drawn.tolist()  # type: ignore[no-any-return]

    return places


def unchecked(it: Iterator[Any]) -> Iterator[Any]:
    for rows in zip(*repeat(it, BATCH), strict=False):
        yield collate(rows)


def of_one_width(it: Iterator[Any]) -> Iterator[Any]:
    for rows in zip(*repeat(it, BATCH), strict=False):
        if [*map(type, rows)].count(list) != BATCH:
            raise TypeError("a datapoint is not a list")
        yield [np.array(column, dtype=np.int32) for column in zip(*rows, strict=True)]


def of_one_type(it: Iterator[Any]) -> Iterator[Any]:
    for rows in zip(*repeat(it, BATCH), strict=False):
        if [*map(type, rows)].count(list) != BATCH:
            raise TypeError("a datapoint is not a list")
        columns = [*zip(*rows, strict=True)]
        if any([*map(type, column)].count(int) != BATCH for column in columns):
            raise TypeError("a component is not an int")
        yield [np.array(column, dtype=np.int32) for column in columns]


@prices.row("limit: one loop, written by hand for this task")
def limit() -> float:
    return cost(fused_pass)


@prices.row("a chain of iterators that promises nothing: map, swap, zip, np.array")
def bare() -> float:
    return cost(lambda data: unchecked(swapped(map(increment, data), any_places())))


@prices.row("+ the caller's list stays as it is: the source copies each datapoint")
def copied() -> float:
    return cost(lambda data: unchecked(swapped(map(increment, map(list.copy, data)), any_places())))


@prices.row("+ a function drops a datapoint by returning None, and datapoints are numbered")
def numbered() -> float:
    return cost(lambda data: unchecked(swapped(dropping(map(list.copy, data)), any_places())))


@prices.row("+ an exception says at which datapoint")
def located() -> float:
    return cost(lambda data: unchecked(swapped(locating(map(list.copy, data)), any_places())))


@prices.row("+ the shuffle can be continued in another process")
def resumable() -> float:
    return cost(lambda data: unchecked(swapped(locating(map(list.copy, data)), keyed_places())))


@prices.row("+ datapoints of one batch are lists of one width")
def checked_widths() -> float:
    return cost(lambda data: of_one_width(swapped(locating(map(list.copy, data)), keyed_places())))


@prices.row("+ components of one batch are of one type")
def checked_types() -> float:
    return cost(lambda data: of_one_type(swapped(locating(map(list.copy, data)), keyed_places())))


@prices.row("dataflow: all of this and the rest of its contract")
def contract() -> float:
    return cost(dataflow_batches)


if __name__ == "__main__":
    main([peers, prices], packages=("tensorpack", "torch", "torchdata", "webdataset", "grain"))
