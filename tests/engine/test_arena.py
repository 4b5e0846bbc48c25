"""Arrays that travel through shared memory: as the consumer's own, for as long as anything of them is there."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dataflow.engine import Pool, Task
from dataflow.engine import arena as module
from dataflow.engine.arena import Arena, Leases
from dataflow.engine.blocks import HOT_BYTES, Blocks
from dataflow.engine.frames import Frame, encode
from dataflow.utils import stack

kinds = pytest.mark.parametrize(("kind", "method"), [("process", "fork"), ("zmq", "fork"), ("process", "spawn")])


class Echo(Task):
    def run(self, inbox, context):
        yield from inbox


def forked(check: Callable[[], bool]) -> tuple[int, int]:
    """Fork a child that says whether ``check`` holds when it is asked, by ``answer`` with what is returned."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)  # or the end of the parent would not be seen
        os.read(read, 1)
        os._exit(0 if check() else 1)
    os.close(read)
    return pid, write


def answer(pid: int, write: int) -> bool:
    os.write(write, b"x")
    os.close(write)
    return os.waitpid(pid, 0)[1] == 0


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
            addresses, flags = line.split()[:2]
            start, _, stop = addresses.partition("-")
            if int(start, 16) <= address < int(stop, 16):
                return "dataflow-arena" in line and flags.endswith("s")
    return False


def file_bytes(pool: Pool) -> int:
    """Return the bytes of memory that the file of a pool takes."""
    return os.stat(f"/proc/self/fd/{pool._crew._leases.arena.descriptor.fileno()}").st_blocks * 512


def private_bytes() -> int:
    """Return the bytes of memory that only this process has, and that are of no file."""
    with open("/proc/self/status") as status:
        return int(status.read().partition("RssAnon:")[2].split()[0]) << 10


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
    with running(Fill()) as pool:
        kept = [ask(pool, 1) for _ in range(300)]
        assert all((image == 1).all() for image, *_ in kept)
        assert file_bytes(pool) > 300 * 160_000
        del kept
        for _ in range(2):
            ask(pool, 1)
        assert file_bytes(pool) < HOT_BYTES + 300_000


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
        assert file_bytes(pool) < 10 * 200_000
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
        blocks = set()
        for i in range(50):
            images, labels = ask(pool, i)
            assert images.shape == (8, 20_000)
            assert (images == i).all()
            assert labels.tolist() == [i] * 8
            assert in_arena(images)
            blocks.add(images.__array_interface__["data"][0] // 4096)  # it begins as far behind a line as its rows do
        assert len(blocks) <= 4


@pytest.mark.parametrize("keep", ["array", "view", "datapoint"])
def test_a_batch_that_the_worker_keeps_is_not_shared_with_the_consumer(keep):
    with running(Batches(keep)) as pool:
        for i in range(30):
            images, _ = ask(pool, i)
            images[:] = 200


def test_after_the_pool_is_closed_each_array_takes_its_memory_with_it():
    with running(Fill()) as pool:
        kept = [ask(pool, i % 251)[0] for i in range(200)]
    closed = private_bytes()
    del kept[1:]
    assert private_bytes() < closed - 199 * 100_000
    assert (kept[0] == 0).all()


def test_in_a_forked_child_each_array_takes_its_memory_with_it():
    with running(Fill()) as pool:
        kept = [ask(pool, i % 251)[0] for i in range(200)]
        pid = os.fork()
        if pid == 0:
            for image in kept:
                image += 1  # from now on it is not the parent's, too
            before = private_bytes()
            del image, kept[1:]
            os._exit(0 if private_bytes() < before - 199 * 100_000 and (kept[0] == 1).all() else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert all((image == i % 251).all() for i, image in enumerate(kept))


def test_what_a_thread_writes_to_an_array_while_another_forks_is_not_lost():
    with running(Echo()) as pool:
        array = ask(pool, np.zeros(32 << 20, np.uint8))
        begun, written, end = threading.Event(), [0], threading.Event()

        def write() -> None:
            while not end.is_set():
                np.add(array, 1, out=array)
                written[0] += 1
                begun.set()

        thread = threading.Thread(target=write)
        thread.start()
        begun.wait()
        pool._crew._leases.make_private()  # as it is before a fork
        end.set()
        thread.join()
        assert (array == written[0] % 256).all()


def test_a_block_that_cannot_be_made_private_is_not_used_again(monkeypatch):
    monkeypatch.setattr(module, "MADV_POPULATE_WRITE", 12345)  # as on Linux before 5.14
    with running(Fill()) as pool:
        images = [ask(pool, 1)[0], ask(pool, 2)[0]]
        pid, write = forked(lambda: all((image == i).all() for i, image in enumerate(images, 1)))
        kept = images.pop()
        images.clear()
        for i in range(3, 12):
            assert (ask(pool, i)[0] == i).all()
    assert (kept == 2).all()
    assert answer(pid, write)


class Mortal(Task):
    """Answer a number with an array that is full of it, and die of None."""

    def run(self, inbox, context):
        for number in inbox:
            if number is None:
                os._exit(1)
            yield np.full(1_000_000, number, np.uint8)


def mortal(restarts: int, method: str = "fork") -> Pool:
    return Pool(Mortal(), 1, kind="process", stage="Stage", start_method=method, restarts=restarts, again=no_death)


def no_death(worker: int, messages: list[Any]) -> list[Any]:
    return [0 if number is None else number for number in messages]


def test_what_a_dead_worker_had_goes_back_at_once_or_with_the_last_array_of_it():
    with mortal(1) as pool:
        kept = [ask(pool, i) for i in range(1, 21)]
        del kept[10:]
        assert (ask(pool, None) == 0).all()  # of the new worker
        assert file_bytes(pool) < 12 * 1_100_000
        assert all((array == i).all() for i, array in enumerate(kept, 1))
        del kept[1:]
        ask(pool, 21)
        assert file_bytes(pool) < 4 * 1_100_000
        assert (kept[0] == 1).all()


def test_a_worker_uses_what_its_predecessors_had(monkeypatch):
    monkeypatch.setattr(module, "BYTES", 8 << 20)
    with mortal(4) as pool:
        kept = [ask(pool, 1) for _ in range(6)]
        top = kept[5]
        del kept
        for i in range(2, 6):  # each begins with what is left
            assert in_arena(ask(pool, None))
            few = [ask(pool, i) for _ in range(4)]
            assert all(in_arena(array) and (array == i).all() for array in few)
            del few
        assert (top == 1).all()


@pytest.mark.parametrize(("method", "blocks"), [("fork", 3), ("spawn", 8)])
def test_what_comes_back_of_a_dead_worker_is_used_where_its_successor_sees_the_file(method, blocks, monkeypatch):
    monkeypatch.setattr(module, "BYTES", 8 << 20)
    with mortal(1, method) as pool:
        kept = [ask(pool, 1) for _ in range(5)]
        ask(pool, None)
        assert all((array == 1).all() for array in kept)
        kept.clear()
        kept = [ask(pool, i) for i in range(2, 10)]
        assert all((array == i).all() for i, array in enumerate(kept, 2))
        assert [*map(in_arena, kept)].count(True) == blocks


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


def test_the_file_is_not_seen_by_name():
    assert "dataflow" not in " ".join(os.listdir("/dev/shm"))
    with running(Fill()) as pool:
        ask(pool, 1)
        assert "dataflow" not in " ".join(os.listdir("/dev/shm"))


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


@kinds
def test_what_a_worker_may_not_write_to_arrives_as_an_array_of_the_consumer(kind, method):
    with running(ReadOnly(), kind, method) as pool:
        for size in (10, 5000, 100_000):
            array = ask(pool, size)[0]
            array += 1
            assert array.tolist() == [1] * size


class ReadOnly(Task):
    """Answer a number with an array of so many bytes that may not be written to."""

    def run(self, inbox, context):
        for number in inbox:
            yield [np.frombuffer(bytes(number), np.uint8)]
