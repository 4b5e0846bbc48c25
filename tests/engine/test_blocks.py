"""The blocks of a worker: few of them, used again, and never more memory of free ones than is said."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dataflow import DataFromList, MultiProcessMapData
from dataflow.engine import arena as arena_module
from dataflow.engine import blocks as module
from dataflow.engine.arena import GRAIN, Arena, Leases
from dataflow.engine.blocks import AT_LEAST, HOT_BYTES, Blocks, rounded
from dataflow.engine.frames import Frame, encode
from dataflow.engine.task import Task

MB = 1 << 20
SOURCE = np.zeros(1, np.uint8)


class Part:
    """A worker and its consumer in one process."""

    def __init__(self) -> None:
        self.leases = Leases(Arena.make(1))
        self.heard = 0
        self.blocks = Blocks(self.leases.arena, self.leases.part(0), self.hear)

    def hear(self) -> None:
        self.heard += 1
        for spans in self.leases.returned().values():
            self.blocks.free(spans)

    def receive(self, size: int, value: int = 1) -> Any:
        """Return an array as the consumer gets it from the worker."""
        frame = self.share(np.full(size, value, np.uint8))
        assert not frame.arrays
        return self.leases.open(frame.data)

    def share(self, array: Any) -> Frame:
        return self.blocks.share(encode(Echo(), array))

    def resident(self) -> int:
        return os.fstat(self.leases.arena.descriptor.fileno()).st_blocks * 512


class Echo(Task):
    def run(self, inbox, context):
        yield from inbox


@pytest.fixture
def part() -> Iterator[Part]:
    part = Part()
    yield part
    part.leases.close()


def place(array: Any) -> int:
    return int(array.__array_interface__["data"][0]) // GRAIN


def test_a_stream_of_one_size_uses_few_blocks_and_makes_no_system_call(part, monkeypatch):
    calls: list[Any] = []
    for name in ("release", "map_again", "make_private"):
        monkeypatch.setattr(Arena, name, lambda *arguments: calls.append(arguments))
    array, places = None, set()
    for i in range(100):
        array = part.receive(5 * MB, i)
        part.hear()
        places.add(place(array))
    assert len(places) == 2
    assert not calls


def test_large_blocks_that_are_used_again_and_again_keep_their_pages(part, monkeypatch):
    monkeypatch.setattr(module, "HOT_BYTES", MB)
    released: list[Any] = []
    monkeypatch.setattr(Arena, "release", lambda *arguments: released.append(arguments))
    kept: list[Any] = []
    for i in range(20):
        kept = [*kept, part.receive(5 * MB, i)][-AT_LEAST + 1 :]
        part.hear()
    kept.clear()
    part.hear()
    assert not released


def test_free_blocks_keep_pages_up_to_the_budget_and_no_more(part):
    kept = [part.receive(MB) for _ in range(60)]
    assert part.resident() == 60 * MB
    kept.clear()
    part.hear()
    assert part.resident() == HOT_BYTES


def test_the_pages_of_a_burst_of_large_ones_go_back_when_small_ones_follow(part):
    kept = [part.receive(20 * MB) for _ in range(4)]
    kept.clear()
    part.hear()
    assert part.resident() == AT_LEAST * 20 * MB
    small = part.receive(100_000)
    del small
    part.hear()
    assert part.resident() <= HOT_BYTES


def test_neighbours_that_are_free_are_joined_for_a_larger_one(part):
    kept = [part.receive(MB) for _ in range(8)]
    first = min(map(place, kept))
    kept.clear()
    part.hear()
    large = part.receive(8 * MB, 7)
    assert place(large) == first
    assert part.resident() == 8 * MB
    assert (large == 7).all()


def test_memory_and_file_stay_small_whatever_the_sizes(part):
    draw = np.random.default_rng(1)
    kept: list[Any] = []
    highest = 0
    for i in range(1500):
        size = int(np.exp(draw.uniform(np.log(1 << 15), np.log(4 * MB))))
        kept.append(part.receive(size, i % 251))
        highest = max(highest, place(kept[-1]) + size - part.leases.arena.address)
        if len(kept) > 8:
            gone = kept.pop(int(draw.integers(len(kept))))
            assert (gone == gone[0]).all()
            del gone
            part.hear()
    assert part.resident() < HOT_BYTES + 10 * 4 * MB
    assert highest < 2 * (HOT_BYTES + 10 * 4 * MB)
    kept.clear()
    part.hear()
    assert part.resident() <= HOT_BYTES


def test_where_there_is_no_room_the_bytes_are_sent(monkeypatch):
    monkeypatch.setattr(arena_module, "BYTES", 2 * MB)
    part = Part()
    kept = [part.receive(MB), part.receive(MB)]
    assert len(part.share(np.ones(MB, np.uint8)).arrays[0]) == MB
    kept.pop()
    assert not part.share(np.ones(MB, np.uint8)).arrays
    part.leases.close()


def test_free_blocks_of_other_sizes_make_room(monkeypatch):
    monkeypatch.setattr(arena_module, "BYTES", 2 * MB)
    part = Part()
    kept = [part.receive(MB // 4) for _ in range(8)]
    del kept[:4]
    assert (part.receive(MB, 3) == 3).all()
    del kept
    assert (part.receive(2 * MB, 4) == 4).all()
    part.leases.close()


def test_a_batch_that_is_not_sent_gives_its_block_back(part):
    blocks = part.blocks
    top = set()
    for _ in range(20):
        array = blocks.array((100_000,), np.dtype(np.uint8), SOURCE)
        top.add(array.__array_interface__["data"][0])
        del array
    assert len(top) == 1


def test_only_the_thread_of_the_worker_takes_blocks(part):
    blocks = part.blocks
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(blocks.array((100_000,), np.dtype(np.uint8), SOURCE)))
    thread.start()
    thread.join()
    assert found == [None]


@pytest.mark.parametrize(
    ("size", "block"), [(0, 1 << 16), (1 << 16, 1 << 16), ((1 << 16) + 1, 1 << 17), (9_633_792, 9_437_184 + 1_048_576)]
)
def test_blocks_are_of_few_sizes(size, block):
    assert rounded(size) == block
    assert size <= block <= max(1.25 * size, size + (1 << 16))


def test_every_size_up_to_a_gigabyte_fits_with_little_waste():
    for size in np.unique(np.geomspace(1, 1 << 30, 500).astype(int)).tolist():
        assert size <= rounded(size) <= max(1.25 * size, size + (1 << 16))
    assert len({rounded(size) for size in range(1 << 20, 1 << 21, 997)}) <= 9


def test_references_are_counted_as_they_are_where_a_message_is_alone():
    assert module.SOLE == (3, 3), sys.version


def test_a_child_of_the_worker_keeps_what_it_sees_and_the_block_is_used_again(part):
    def batch(value: int) -> Any:
        array = part.blocks.array((MB - 64,), np.dtype(np.uint8), SOURCE)
        array[:] = value
        return array

    array = batch(1)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0 if (array == 1).all() else 1)
    array[:] = 2
    assert (part.leases.open(part.share(array).data) == 2).all()  # it is sent as a copy
    first = place(array)
    del array
    again = [batch(3) for _ in range(3)]
    assert first in map(place, again)
    os.write(write, b"x")
    assert os.waitpid(pid, 0)[1] == 0
    os.close(read)
    os.close(write)


def test_a_block_is_not_taken_from_the_worker_while_another_of_its_threads_forks(part):
    array = part.blocks.array((MB - 64,), np.dtype(np.uint8), SOURCE)
    first = place(array)
    thread = threading.Thread(target=part.blocks.make_private)
    thread.start()
    thread.join()
    array[:] = 5
    assert (part.leases.open(part.share(array).data) == 5).all()
    del array
    assert first not in [place(part.receive(MB)) for _ in range(3)]


@pytest.mark.slow
def test_a_stream_of_very_mixed_sizes_stays_within_the_budget():
    workers, buffer = 2, 8
    sizes = np.exp(np.random.default_rng(1).uniform(np.log(10), np.log(8 * MB), 2000)).astype(int)
    with MultiProcessMapData(sized(sizes), workers, full, buffer_size=buffer, strict=True) as df:
        highest = 0
        for i, (array, size) in enumerate(df):
            assert array[0] == array[-1] == size % 251
            assert len(array) == size
            if i % 50 == 0:
                highest = max(highest, shared_bytes())
    assert MB < highest < workers * HOT_BYTES + 2 * buffer * 8 * MB
    assert shared_bytes() < MB


def sized(sizes: Any) -> DataFromList:
    return DataFromList([[int(size)] for size in sizes], shuffle=False)


def full(dp: Any) -> Any:
    return [np.full(dp[0], dp[0] % 251, np.uint8), dp[0]]


def shared_bytes() -> int:
    """Return the bytes of shared memory that this process has touched."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("RssShmem:")[2].split()[0]) << 10


@pytest.mark.parametrize("distance", [0, 16, 32, 48])
def test_a_batch_begins_where_its_source_does_in_a_line_of_the_cache(part, distance):
    memory = np.zeros(128, np.uint8)
    start = -memory.ctypes.data % 64 + distance
    array = part.blocks.array((MB,), np.dtype(np.uint8), memory[start : start + 1])
    assert array.ctypes.data % 64 == distance
    array[:] = np.arange(MB, dtype=np.uint8)
    frame = part.share([array])
    del array
    assert np.array_equal(part.leases.open(frame.data)[0], np.arange(MB, dtype=np.uint8))
