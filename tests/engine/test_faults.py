"""Whatever goes wrong in a worker, the one who waits is told what, where and what was lost; and nothing is left."""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dataflow.engine import Pool, Task, processes
from dataflow.errors import UsageError, WorkerDied, WorkerError, WorkerTimeout

KINDS = ["inline", "thread", "process", "zmq"]
every_kind = pytest.mark.parametrize("kind", KINDS)
with_workers = pytest.mark.parametrize("kind", KINDS[1:])
with_processes = pytest.mark.parametrize("kind", KINDS[2:])


class Calls(Task):
    def run(self, inbox, context):
        for call in inbox:
            yield call()


def pool(kind: str, workers: int = 2, task: Task | None = None, **options: Any) -> Pool:
    started = Pool(
        task or Calls(), workers, kind=kind, stage="Stage", start_method="fork", **{"timeout": 20, **options}
    )
    started.start()
    return started


def fails(kind: str, call: Callable[[], Any], **options: Any) -> BaseException:
    """Return what ``receive`` raises when worker 1 calls ``call`` for datapoints 3 to 8."""
    running = pool(kind, **options)
    running.send(1, os.getpid, range(1, 2))
    running.receive()
    running.send(1, call, range(3, 9))
    with pytest.raises(BaseException) as caught:  # which one is what the tests are about
        running.receive()
    with pytest.raises(UsageError, match="closed"):
        running.receive()
    return caught.value


class TwoArguments(Exception):
    def __init__(self, key, row):
        super().__init__(f"no {key} in row {row}")
        self.row = row


class HoldsALock(Exception):
    def __init__(self):
        super().__init__("busy")
        self.lock = threading.Lock()


ERRORS = [
    ValueError("v"), KeyError("k"), FileNotFoundError(2, "gone", "/p"), TwoArguments("label", 7), StopAsyncIteration(),
    ExceptionGroup("two", [TwoArguments("label", 7), KeyError(1)]), KeyboardInterrupt("mine"), GeneratorExit(),
    MemoryError(), RecursionError("deep"), BaseException("base"), WorkerDied("of a pool below"),
]  # fmt: skip


def throw(number: int) -> None:
    raise ERRORS[number]


def throw_a_lock() -> None:
    raise HoldsALock


RELEASE = threading.Event()


def wait_for_ever() -> None:
    RELEASE.wait(1000)


ALL = [(kind, number) for kind in ("thread", "process") for number in range(len(ERRORS))]


@pytest.mark.parametrize(
    ("kind", "number"), [*ALL, ("inline", 0), ("zmq", 0)], ids=lambda x: x if x in KINDS else type(ERRORS[x]).__name__
)
def test_an_exception_keeps_its_type_and_says_where_it_was_raised(kind, number):
    error = fails(kind, functools.partial(throw, number))
    assert (type(error), str(error)) == (type(ERRORS[number]), str(ERRORS[number]))
    (note,) = error.__notes__
    assert note.startswith("in Stage, worker 1 (")
    assert note.endswith("), datapoints 3 to 8")
    if kind in ("process", "zmq"):
        assert "in throw" in str(error.__cause__)
    ERRORS[number].__notes__ = []


@with_processes
def test_an_exception_that_does_not_pickle_is_quoted(kind):
    error = fails(kind, throw_a_lock)
    assert type(error) is WorkerError
    assert str(error).endswith("HoldsALock: busy")
    assert "in throw_a_lock" in str(error.__cause__)


@every_kind
def test_stop_iteration_in_a_generator_is_a_runtime_error(kind):
    assert type(fails(kind, lambda: next(iter(())))) is RuntimeError


@every_kind
def test_stop_iteration_that_ends_a_c_level_task_early_is_no_silent_loss(kind):
    class Map(Task):
        def run(self, inbox, context):
            return map(operator.call, inbox)

    error = fails(kind, lambda: next(iter(())), task=Map())
    assert isinstance(error, WorkerError)
    assert "ended without an answer to datapoints 3 to 8" in str(error)


@every_kind
def test_stop_iteration_before_the_first_message_is_a_runtime_error(kind):
    class Empty(Task):
        def run(self, inbox, context):
            return next(iter(()))

    with pytest.raises(RuntimeError, match="raised StopIteration"):
        pool(kind, task=Empty()).receive()


@with_workers
def test_what_came_before_the_error_is_received_before_it(kind):
    class Fails(Task):
        def run(self, inbox, context):
            yield from range(3)
            raise ValueError("then")

    running = pool(kind, workers=1, task=Fails())
    assert [running.receive() for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
    with pytest.raises(ValueError, match="then"):
        running.receive()


DEATHS = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, r"was killed by SIGKILL.*memory runs out"),
    "terminated": (lambda: os.kill(os.getpid(), signal.SIGTERM), -15, "was killed by SIGTERM"),
    "crashed": (lambda: ctypes.string_at(0), -11, r"(?s)was killed by SIGSEGV.*Its last words:.*string_at"),
    "os-exit": (lambda: os._exit(0), 0, r"exited with 0 before finishing.*os\._exit"),
    "sys-exit": (lambda: sys.exit(), 0, r"exited with 0 before finishing.*sys\.exit"),
    "sys-exit-3": (lambda: sys.exit(3), 3, "exited with 3 before finishing"),
    "sys-exit-text": (lambda: sys.exit("text"), 1, "exited with 1 before finishing"),
}


@with_processes
@pytest.mark.parametrize("way", DEATHS)
def test_a_death_names_the_worker_the_way_and_what_was_in_flight(kind, way, capfd):
    call, code, text = DEATHS[way]
    error = fails(kind, call)
    assert isinstance(error, WorkerDied)
    assert (error.stage, error.worker, error.exitcode, error.samples) == ("Stage", 1, code, (3, 4, 5, 6, 7, 8))
    assert error.pid > 0
    assert str(error).startswith(f"worker 1 (pid {error.pid}) of Stage ")
    assert "with datapoints 3 to 8 in flight" in str(error)
    with pytest.raises(WorkerDied, match=text):
        raise error
    assert capfd.readouterr().err == ("text\n" if way == "sys-exit-text" else "")


def test_sys_exit_in_a_thread_is_a_death_too():
    error = fails("thread", lambda: sys.exit(3))
    assert isinstance(error, WorkerDied)
    assert "worker 1 (a thread) of Stage exited with 3 before finishing with datapoints 3 to 8" in str(error)


@with_processes
def test_what_a_worker_had_sent_before_it_died_is_received_first(kind):
    reader, writer = os.pipe()

    class Dies(Task):
        def run(self, inbox, context):
            yield from range(3)
            os.read(reader, 1)  # until ZeroMQ's thread has written, too
            os.kill(os.getpid(), signal.SIGKILL)

    running = pool(kind, workers=1, task=Dies())
    assert [running.receive() for _ in range(3)] == [(0, 0), (0, 1), (0, 2)]
    os.write(writer, b"x")
    with pytest.raises(WorkerDied, match="SIGKILL"):
        running.receive()
    os.close(reader)
    os.close(writer)


@with_processes
def test_an_idle_worker_that_is_killed_is_noticed(kind):
    running = pool(kind, workers=2)
    running.send(0, os.getpid)
    _, pid = running.receive()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=rf"worker 0 \(pid {pid}\) of Stage was killed by SIGKILL\. The kernel"):
        running.receive()


@with_processes
def test_all_workers_killed_at_once_are_one_error(kind):
    running = pool(kind, workers=3)
    for worker in range(3):
        running.send(worker, os.getpid)
    for _, pid in [running.receive() for _ in range(3)]:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="SIGKILL"):
        running.receive()


@with_processes
@pytest.mark.parametrize("moment", [0.0, 0.002, 0.01], ids=["at-once", "soon", "later"])
def test_a_worker_killed_while_it_sends_or_takes_a_large_message_is_noticed(kind, moment):
    running = pool(kind, workers=1)
    killer = threading.Timer(moment, os.kill, (running._crew.pid(0), signal.SIGKILL))
    killer.start()
    block = np.zeros(1 << 20)

    def talk() -> None:
        while True:
            running.send(0, lambda: np.zeros(1 << 21))
            running.send(0, lambda block=block: block)
            running.receive()

    with pytest.raises(WorkerDied, match="SIGKILL"):
        talk()
    killer.join()


@with_processes
def test_sending_to_a_dead_worker_is_no_error_until_one_waits(kind):
    running = pool(kind, workers=1)
    os.kill(running._crew.pid(0), signal.SIGKILL)
    for _ in range(100):
        running.send(0, os.getpid, [5])
    with pytest.raises(WorkerDied, match="100 datapoints between 5 and 5"):
        running.receive()


@with_processes
@pytest.mark.parametrize(
    ("make", "place"),
    [
        pytest.param(lambda: [1, {"lock": threading.Lock()}], r"dp\[1\]\['lock'\] is a lock", id="lock"),
        pytest.param(lambda: threading.Lock(), r"dp is a lock", id="bare"),
        pytest.param(lambda: {"a": (0, HoldsALock())}, r"dp\['a'\]\[1\]\.lock is a lock", id="attribute"),
        pytest.param(lambda: [(j for j in ())], r"dp\[0\] is a generator", id="generator"),
        pytest.param(lambda: np.array([1, threading.Lock()]), r"dp\.flat\[1\] is a lock", id="object-array"),
    ],
)
def test_a_result_that_cannot_be_pickled_is_an_error_that_names_the_place(kind, make, place):
    error = fails(kind, make)
    with pytest.raises(TypeError, match=place + " and cannot be sent to another process: cannot pickle"):
        raise error


@with_processes
def test_a_message_that_cannot_be_pickled_is_refused_and_the_pool_goes_on(kind):
    running = pool(kind)
    with pytest.raises(TypeError, match=r"dp\[0\] is a lock and cannot be sent"):
        running.send(0, [threading.Lock()])
    running.send(0, os.getpid)
    running.receive()
    running.close()


@with_processes
def test_a_task_names_the_datapoints_of_its_messages(kind):
    class Frames(Calls):
        def parts(self, message):
            return [(f"datapoint {number}", dp) for number, dp in message]

    running = pool(kind, task=Frames())
    with pytest.raises(TypeError, match=r"datapoint 8\['lock'\] is a lock"):
        running.send(0, [(7, {}), (8, {"lock": threading.Lock()})])
    running.close()


class Breaks:
    """Pickles, and does not unpickle where it is not at home."""

    def __init__(self, home: int) -> None:
        self.home = home

    def __setstate__(self, state: dict[str, int]) -> None:
        if state["home"] != os.getpid():
            raise ValueError("I am not at home")


@with_processes
def test_a_result_that_does_not_unpickle_is_an_error_that_names_the_worker(kind):
    error = fails(kind, lambda: Breaks(os.getpid()))
    with pytest.raises(
        WorkerError, match=r"a message of worker 1 .* of Stage cannot be unpickled: ValueError: I am not at home"
    ):
        raise error
    assert isinstance(error.__cause__, ValueError)


@with_processes
def test_a_message_that_does_not_unpickle_is_an_error_of_the_worker(kind):
    running = pool(kind)
    running.send(1, Breaks(os.getpid()), [4])
    with pytest.raises(WorkerError, match="a message to worker 1 of Stage cannot be unpickled there: ValueError: I am"):
        running.receive()


@with_workers
def test_a_stuck_worker_is_stopped_and_tells_its_stack(kind):
    RELEASE.clear()
    error = fails(kind, wait_for_ever, timeout=0.15)
    RELEASE.set()
    assert isinstance(error, WorkerTimeout)
    assert isinstance(error, TimeoutError)
    assert "sent nothing for 0.15 s with datapoints 3 to 8 in flight" in str(error)
    assert "wait_for_ever" in error.stack
    assert "test_a_stuck_worker" not in error.stack


@with_processes
def test_a_worker_stuck_in_c_with_the_gil_tells_its_stack_too(kind):
    def hold_the_gil() -> int:
        return sum(range(10**11))

    error = fails(kind, hold_the_gil, timeout=0.15)
    assert isinstance(error, WorkerTimeout)
    assert "hold_the_gil" in error.stack


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_a_worker_without_work_is_not_stuck(kind):
    running = pool(kind, workers=2, timeout=0.4)
    for _ in range(3):
        running.send(0, lambda: time.sleep(0.15))
        running.receive()
    running.close()


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_time_that_the_consumer_takes_is_not_the_workers(kind):
    reader, writer = os.pipe()
    running = pool(kind, workers=1, timeout=0.2)
    running.send(0, lambda: os.read(reader, 1))
    time.sleep(0.25)
    os.write(writer, b"x")
    assert running.receive() == (0, b"x")
    running.close()
    os.close(reader)
    os.close(writer)


def test_a_fork_that_fails_leaves_no_half_of_a_pool(monkeypatch):
    real, calls = os.fork, []

    def fork() -> int:
        calls.append(1)
        if len(calls) == 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return real()

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(WorkerError, match=r"cannot start worker 3 of 4 of Stage: .* The limit of processes is"):
        pool("process", workers=4)


@with_processes
def test_without_pidfd_deaths_and_ends_are_known_all_the_same(kind, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    error = fails(kind, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert isinstance(error, WorkerDied)
    assert error.exitcode == -9


@with_processes
def test_a_pool_started_by_a_thread_outlives_it(kind):
    started: list[Pool] = []
    thread = threading.Thread(target=lambda: started.append(pool(kind)))
    thread.start()
    thread.join()
    started[0].send(0, os.getpid)
    started[0].receive()
    started[0].close()


def test_an_exit_code_that_somebody_else_has_collected_is_not_made_up():
    running = pool("process", workers=1)
    pid = running._crew.pid(0)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with pytest.raises(WorkerDied, match="its exit code was collected by somebody else") as caught:
        running.receive()
    assert caught.value.exitcode is None


@pytest.mark.parametrize("kind", ["thread", "process", "zmq"])
def test_a_worker_that_shows_that_it_works_on_is_not_stuck(kind):
    class Works(Task):
        def run(self, inbox, context):
            for count in inbox:
                for _ in context.each(range(count)):
                    time.sleep(0.02)
                yield count

    with pool(kind, workers=1, task=Works(), timeout=0.3) as running:
        running.send(0, 1)
        assert running.receive() == (0, 1)
        running.send(0, 40)
        assert running.receive() == (0, 40)


@pytest.mark.parametrize("kind", ["process", "zmq"])
def test_what_is_known_to_be_slow_is_given_its_time(kind):
    class Waits(Task):
        def run(self, inbox, context):
            for seconds in inbox:
                time.sleep(seconds)
                yield seconds

    with pool(kind, workers=1, task=Waits(), timeout=0.2) as running:
        running.send(0, 0.6, slow=True)
        assert running.receive() == (0, 0.6)
        running.send(0, 0.6)
        with pytest.raises(WorkerTimeout):
            running.receive()


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["process", "zmq"])
def test_a_dead_worker_is_replaced_and_what_it_had_is_done_again(kind, method, caplog, tmp_path):
    mark = tmp_path / "died"

    class Dies(Task):
        def run(self, inbox, context):
            for number in inbox:
                if number == 5 and not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                yield np.full(50_000, number, np.uint8), os.getpid()

    running = Pool(Dies(), 2, kind=kind, stage="Stage", start_method=method, timeout=20, restarts=1)
    with running, caplog.at_level("WARNING"):
        for number in range(20):
            running.send(number % 2, number, [number])
        kept = [running.receive() for _ in range(20)]
        assert sorted(int(array[0]) for _, (array, _) in kept) == [*range(20)]
        assert all((array == array[0]).all() for _, (array, _) in kept)
        for worker in range(2):
            mine = [(int(array[0]), pid) for who, (array, pid) in kept if who == worker]
            assert [number for number, _ in mine] == [*range(worker, 20, 2)]
            assert len({pid for _, pid in mine}) in (1, 1 + worker)
    assert "worker 1 (pid " in caplog.text
    assert "was killed by SIGKILL" in caplog.text
    assert "It is replaced; 0 more may be." in caplog.text


def test_one_that_can_neither_be_forked_nor_sent_is_not_replaced(monkeypatch):
    methods = ["fork", "spawn"]  # by the time it dies threads run
    monkeypatch.setattr(processes, "start_method", lambda _: methods.pop(0))
    lock = threading.Lock()

    class Dies(Task):
        def run(self, inbox, context):
            for _ in inbox:
                with lock:
                    os._exit(3)
                yield

    with Pool(Dies(), 1, kind="process", stage="Stage", restarts=3) as running:
        running.send(0, 1, [17])
        with pytest.raises(WorkerDied, match="exited with 3") as caught:
            running.receive()
    assert "cannot be sent to another process" in str(caught.value.__cause__)


@pytest.mark.parametrize("kind", ["process", "zmq"])
def test_after_an_error_the_other_workers_leave_by_themselves(kind, tmp_path):
    class Cleans(Task):
        def run(self, inbox, context):
            try:
                for number in inbox:
                    if number < 0:
                        raise ValueError(number)
                    yield number
            finally:
                (tmp_path / str(context.worker)).touch()

    with Pool(Cleans(), 3, kind=kind, stage="Stage", start_method="fork") as running:
        for worker in range(3):
            running.send(worker, worker)
            assert running.receive() == (worker, worker)
        running.send(1, -1)
        with pytest.raises(ValueError, match="-1"):
            running.receive()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["process", "zmq"])
def test_a_worker_that_has_much_to_do_leaves_after_what_it_does(kind, tmp_path):
    class Slow(Task):
        def run(self, inbox, context):
            done = 0
            try:
                for number in inbox:
                    time.sleep(0.05)
                    done += 1
                    yield number
            finally:
                (tmp_path / "done").write_text(f"{done}")

    with Pool(Slow(), 1, kind=kind, stage="Stage", start_method="fork") as running:
        for number in range(20):
            running.send(0, number)
        assert running.receive() == (0, 0)
    assert int((tmp_path / "done").read_text()) <= 3


def test_one_that_dies_again_and_again_is_an_error_in_the_end():
    class Dies(Task):
        def run(self, inbox, context):
            for _ in inbox:
                os._exit(3)
                yield

    running = Pool(Dies(), 1, kind="process", stage="Stage", start_method="fork", timeout=20, restarts=3)
    with running:
        running.send(0, 1, [17])
        with pytest.raises(WorkerDied, match="exited with 3 before finishing with datapoint 17 in flight"):
            running.receive()
    assert running.restarts == 0


def test_a_new_worker_may_be_sent_something_else(tmp_path):
    mark = tmp_path / "died"

    class Dies(Task):
        def run(self, inbox, context):
            for message in inbox:
                if not mark.exists():
                    mark.touch()
                    os._exit(0)
                yield message

    def again(worker: int, messages: list[str]) -> list[str]:
        return [f"{message} again" for message in messages]

    running = Pool(Dies(), 1, kind="process", stage="Stage", start_method="fork", restarts=1, again=again)
    with running:
        running.send(0, "a")
        running.send(0, "b")
        assert [running.receive(), running.receive()] == [(0, "a again"), (0, "b again")]
