"""Arrays that travel through shared memory: as the consumer's own, for as long as anything of them is there."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dataflow.engine import Pool, Task
from dataflow.engine import arena as module
from dataflow.engine.arena import Arena, Leases
from dataflow.engine.blocks import HOT, Blocks, rounded
from dataflow.engine.frames import Frame, encode
from dataflow.utils import stack

kinds = pytest.mark.parametrize(("kind", "method"), [("process", "fork"), ("zmq", "fork"), ("process", "spawn")])


class Echo(Task):
    def run(self, inbox, context):
        yield from inbox


class Fill(Task):
    """Answer a number with arrays that are full of it."""

    def run(self, inbox, context):
        for number in inbox:
            yield [np.full((300, 400), number, np.uint8), np.full(5000, number, np.float64), "small", number]


class Batches(Task):
    """Answer a number with a batch that was stacked in the worker, and keep what ``keep`` says of it."""

    def __init__(self, keep: str = "") -> None:
        self.keep = keep

    def run(self, inbox, context):
        kept: list[Any] = []
        for number in inbox:
            yield self.made(number, kept)
            arrays = [one[0] if self.keep == "datapoint" else one for one in kept]
            assert [int(array[0, 0]) for array in arrays] == [*range(len(kept))]
            assert all((array == array[0, 0]).all() for array in arrays)

    def made(self, number: int, kept: list[Any]) -> Any:
        batch = stack.stack([[np.full(20_000, number, np.uint8), number]] * 8)
        if self.keep:
            kept.append({"array": batch[0], "view": batch[0][1:], "datapoint": batch}[self.keep])
        return batch


def running(task: Task, kind: str = "process", method: str = "fork", workers: int = 1) -> Pool:
    return Pool(task, workers, kind=kind, stage="Stage", start_method=method, timeout=20)


def ask(pool: Pool, message: Any, worker: int = 0) -> Any:
    pool.send(worker, message)
    return pool.receive()[1]


def in_arena(array: Any) -> bool:
    """Say whether an array lies in shared memory."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, _, stop = line.split()[0].partition("-")
            if int(start, 16) <= address < int(stop, 16):
                return "dataflow-arena" in line
    return False


@pytest.fixture
def part() -> Iterator[tuple[Blocks, Leases]]:
    """A worker and its consumer in one process."""
    arena = Arena.make(1)
    leases = Leases(arena)
    yield Blocks(arena, leases.part(0), lambda: None), leases
    leases.close()


def sent(message: Any) -> Frame:
    return encode(Echo(), message)


@kinds
def test_large_arrays_come_through_shared_memory_and_small_ones_do_not(kind, method):
    with running(Fill(), kind, method) as pool:
        image, floats, small, number = ask(pool, 7)
        assert (image == 7).all()
        assert (floats == 7.0).all()
        assert (image.shape, image.dtype, floats.dtype, small, number) == ((300, 400), "u1", "f8", "small", 7)
        assert in_arena(image)
        assert in_arena(floats)
        assert not in_arena(ask(running_echo := pool, 1)[0][:0].copy())
        assert running_echo is pool


@kinds
def test_what_is_kept_never_changes_and_never_stalls_the_stream(kind, method):
    with running(Fill(), kind, method) as pool:
        kept = [ask(pool, i % 251) for i in range(300)]
        for i, (image, floats, _, number) in enumerate(kept):
            assert number == i % 251
            assert (image == number).all()
            assert (floats == number).all()
    assert all((image == number).all() for image, _, _, number in kept)  # also behind the end of the pool


def test_what_is_received_may_be_written_to_and_belongs_to_the_consumer():
    with running(Fill()) as pool:
        first = ask(pool, 1)
        first[0][:] = 99
        second = ask(pool, 2)
        assert (first[0] == 99).all()
        assert (second[0] == 2).all()


DERIVED = {
    "slice": lambda array: array[3:5],
    "row": lambda array: array[7],
    "reshape": lambda array: array.reshape(-1)[11:],
    "transpose": lambda array: array.T,
    "asarray": lambda array: np.asarray(array[1:]),
    "view": lambda array: array.view(np.int8),
    "memoryview": lambda array: np.asarray(memoryview(array)),
    "iterated": lambda array: list(array)[2],
    "frombuffer": lambda array: np.frombuffer(array, np.uint8),
    "pickled without a copy": lambda array: pickled(array),
    "dlpack": np.from_dlpack,
    "broadcast": lambda array: np.broadcast_to(array, (2, *array.shape)),
    "masked": np.ma.masked_array,
}


def pickled(array: Any) -> Any:
    buffers: list[Any] = []
    data = pickle.dumps(array, 5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=buffers)


@pytest.mark.parametrize("derive", DERIVED.values(), ids=DERIVED.keys())
def test_whatever_is_derived_from_an_array_keeps_its_memory(derive):
    with running(Fill()) as pool:
        view = derive(ask(pool, 1)[0])
        for i in range(2, 12):
            ask(pool, i)
        assert (view == 1).all()
        before = len(pool._crew._leases._alive)
        del view
        gc.collect()
        ask(pool, 12)
        assert len(pool._crew._leases._alive) < before


def test_a_torch_tensor_keeps_the_memory_of_its_array():
    torch = pytest.importorskip("torch")
    with running(Fill()) as pool:
        tensor = torch.from_numpy(ask(pool, 1)[0])
        for i in range(2, 12):
            ask(pool, i)
        assert bool((tensor == 1).all())


def test_blocks_are_used_again_so_memory_does_not_grow():
    with running(Fill()) as pool:
        seen = set()
        for i in range(200):
            image = ask(pool, i % 251)[0]
            seen.add(image.__array_interface__["data"][0])
    assert len(seen) <= 4


def test_memory_that_was_kept_goes_back_when_it_is_dropped():
    def held() -> int:
        with open("/proc/self/smaps") as maps:
            text = maps.read().partition("dataflow-arena")[2]
        return int(text.partition("Rss:")[2].split()[0]) << 10

    with running(Fill()) as pool:
        kept = [ask(pool, 1) for _ in range(100)]
        assert all((image == 1).all() for image, *_ in kept)
        assert held() > 100 * 100_000
        del kept
        for _ in range(2):
            ask(pool, 1)
        assert held() < 30 * 200_000


def test_a_child_that_is_forked_sees_what_it_inherited_whatever_the_parent_does():
    with running(Fill()) as pool:
        image = ask(pool, 1)[0]
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(read, 1)
            same = bool((image == 1).all())
            del image
            gc.collect()
            os._exit(0 if same else 1)
        del image
        for i in range(2, 12):
            ask(pool, i)
        os.write(write, b"x")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(read)
        os.close(write)


def test_parent_and_child_write_to_arrays_of_their_own_and_a_fork_costs_no_memory():
    def file_size() -> int:
        return os.stat(f"/proc/self/fd/{pool._crew._leases.arena.descriptor.fileno()}").st_blocks * 512

    with running(Fill()) as pool:
        image = ask(pool, 1)[0]
        for number in range(30):
            pid = os.fork()
            if pid == 0:
                before = bool((image == max(number, 1)).all())
                image[:] = 77
                os._exit(0 if before else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert (image == max(number, 1)).all()  # the child has written to its own
            image = ask(pool, number + 1)[0]
        assert file_size() < 10 * 200_000
        for i in range(2, 12):  # a block that was private is part of the file again
            assert (ask(pool, i)[0] == i).all()
        pid = os.fork()
        if pid == 0:
            time.sleep(0.2)
            os._exit(0 if (image == 30).all() else 1)
        del image
    gc.collect()
    assert os.waitpid(pid, 0)[1] == 0  # the end of the pool takes nothing from the child


def test_an_array_that_outlives_its_pool_has_memory_of_its_own_and_keeps_no_other():
    with running(Fill()) as pool:
        kept, others = ask(pool, 1)[0], [ask(pool, i) for i in range(2, 12)]
        file = os.dup(pool._crew._leases.arena.descriptor.fileno())
    del others
    assert os.fstat(file).st_blocks == 0
    os.close(file)
    assert not in_arena(kept)
    pid = os.fork()
    if pid == 0:
        kept[:] = 77
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert (kept == 1).all()


@kinds
def test_a_batch_is_stacked_where_it_is_sent_from(kind, method):
    with running(Batches(), kind, method) as pool:
        addresses = set()
        for i in range(50):
            images, labels = ask(pool, i)
            assert images.shape == (8, 20_000)
            assert (images == i).all()
            assert labels.tolist() == [i] * 8
            assert in_arena(images)
            addresses.add(images.__array_interface__["data"][0])
        assert len(addresses) <= 4


@pytest.mark.parametrize("keep", ["array", "view", "datapoint"])
def test_a_batch_that_the_worker_keeps_is_not_shared_with_the_consumer(keep):
    with running(Batches(keep)) as pool:
        for i in range(30):
            images, _ = ask(pool, i)
            images[:] = 200


def test_a_batch_that_is_not_sent_gives_its_block_back(part):
    blocks, _ = part
    top = set()
    for _ in range(20):
        array = blocks.array((100_000,), np.dtype(np.uint8))
        top.add(array.__array_interface__["data"][0])
        del array
    assert len(top) == 1


def test_only_the_thread_of_the_worker_takes_blocks(part):
    blocks, _ = part
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(blocks.array((100_000,), np.dtype(np.uint8))))
    thread.start()
    thread.join()
    assert found == [None]


def test_where_there_is_no_room_the_bytes_are_sent(part, monkeypatch):
    blocks, leases = part
    blocks._stop = blocks._top + rounded(100_000)
    array = np.ones(100_000, np.uint8)
    first = blocks.share(sent(array))
    assert not first.arrays
    second = blocks.share(sent(array))
    assert len(second.arrays[0]) == 100_000
    kept = leases.open(first.data)
    del kept
    ((_, offsets),) = leases.returned().items()
    blocks.free(offsets)
    assert not blocks.share(sent(array)).arrays


def test_the_pages_of_all_but_a_few_free_blocks_go_back(part, monkeypatch):
    blocks, leases = part
    gone: list[int] = []
    monkeypatch.setattr("dataflow.engine.blocks.discard", lambda memory, start, size: gone.append(start))
    kept = [leases.open(blocks.share(sent(np.ones(100_000, np.uint8))).data) for _ in range(10)]
    kept.clear()
    for offsets in leases.returned().values():
        blocks.free(offsets)
    assert len(gone) == 10 - HOT


def test_a_machine_without_such_files_sends_bytes(monkeypatch):
    monkeypatch.setattr(Arena, "make", lambda workers: None)
    with running(Fill()) as pool:
        image = ask(pool, 3)[0]
        assert (image == 3).all()
        image[:] = 1
        assert not in_arena(image)


def test_a_limit_of_the_address_space_is_no_error(monkeypatch):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
    try:
        with running(Fill()) as pool:
            assert (ask(pool, 3)[0] == 3).all()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_a_datapoint_larger_than_the_arena_is_sent_as_bytes(monkeypatch):
    monkeypatch.setattr(module, "BYTES", 1 << 20)
    with running(Echo(), workers=2) as pool:
        large = np.arange(1_000_000)
        assert (ask(pool, large, 1) == large).all()


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


def test_the_file_is_not_seen_by_name():
    assert "dataflow" not in " ".join(os.listdir("/dev/shm"))
    with running(Fill()) as pool:
        ask(pool, 1)
        assert "dataflow" not in " ".join(os.listdir("/dev/shm"))


def test_references_are_counted_as_they_are_where_a_message_is_alone():
    from dataflow.engine import blocks

    assert blocks.SOLE == (3, 3), sys.version


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_dev_shm_of_one_megabyte_is_no_limit(run, method):
    out = run(
        """
        libc = ctypes.CDLL(None, use_errno=True)
        CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
        if libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            print("not allowed")
        elif libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m"):
            print("not allowed")
        else:
            import numpy as np
            running = pool(workers=2)
            kept = []
            for i in range(20):
                running.send(i % 2, (np.full, 3_000_000, i, "u1"))
                kept.append(running.receive()[1])
            print(all((array == i).all() for i, array in enumerate(kept)))
            running.close()
        """,
        "process",
        method,
    )
    if out == "not allowed\n":
        pytest.skip("only root may mount")
    assert out == "True\n"
