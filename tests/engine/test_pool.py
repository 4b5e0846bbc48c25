"""What every kind of pool promises: messages, their order, their limits, and its life."""

from __future__ import annotations

import _thread
import mmap
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dataflow.engine import Context, Pool, Task
from dataflow.engine.threads import LEAD
from dataflow.errors import UsageError

KINDS = ["inline", "thread", "process", "zmq"]
every_kind = pytest.mark.parametrize("kind", KINDS)
with_workers = pytest.mark.parametrize("kind", KINDS[1:])
with_processes = pytest.mark.parametrize("kind", KINDS[2:])


class Echo(Task):
    def run(self, inbox, context):
        yield from inbox


class Calls(Task):
    def run(self, inbox, context):
        for call in inbox:
            yield call()


class Counts(Task):
    """Yield a few messages, whatever it is sent."""

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self, inbox, context):
        for i in range(self.count):
            yield context.worker, i


def pool(task: Task, kind: str, workers: int = 2, **options: Any) -> Pool:
    return Pool(task, workers, kind=kind, stage="Stage", start_method="fork", **{"timeout": 20, **options})


@every_kind
def test_a_message_is_answered_by_the_worker_that_it_was_sent_to(kind):
    with pool(Echo(), kind) as running:
        running.send(0, "a")
        running.send(1, "b")
        assert sorted([running.receive(), running.receive()]) == [(0, "a"), (1, "b")]


@every_kind
def test_the_answers_of_one_worker_keep_their_order(kind):
    with pool(Echo(), kind, workers=1) as running:
        for i in range(300):
            running.send(0, i)
        assert [running.receive() for _ in range(300)] == [(0, i) for i in range(300)]


@every_kind
def test_a_worker_that_returns_has_ended_once_its_last_message_is_received(kind):
    with pool(Counts(2), kind, workers=1) as running:
        assert [running.receive(), running.ended(0)] == [(0, (0, 0)), False]
        assert [running.receive(), running.receive(), running.ended(0)] == [(0, (0, 1)), None, True]
        assert running.receive() is None


@every_kind
def test_tasks_that_ignore_their_inbox_are_heard_to_the_end(kind):
    with pool(Counts(40), kind, workers=3) as running:
        assert sorted(iter(running.receive, None)) == [(w, (w, i)) for w in range(3) for i in range(40)]


@every_kind
def test_a_task_may_yield_nothing(kind):
    with pool(Counts(0), kind) as running:
        assert running.receive() is None


@every_kind
def test_without_blocking_nothing_is_received_where_nothing_is_there(kind):
    with pool(Echo(), kind) as running:
        assert running.receive(block=False) is None


@every_kind
def test_a_worker_knows_who_it_is(kind):
    class Who(Task):
        def run(self, inbox, context):
            yield context[:3]

    with pool(Who(), kind) as running:
        assert sorted(iter(running.receive, None)) == [(0, (0, 2, "Stage")), (1, (1, 2, "Stage"))]


@every_kind
def test_closing_ends_the_inbox_and_the_task_cleans_up(kind):
    reader, writer = os.pipe()

    class Cleans(Task):
        def run(self, inbox, context):
            try:
                yield from inbox
            finally:
                os.write(writer, b"clean")

    with pool(Cleans(), kind, workers=1) as running:
        running.send(0, 1)
        running.receive()
    assert os.read(reader, 100) == b"clean"
    os.close(reader)
    os.close(writer)


@with_workers
def test_closing_a_pool_whose_worker_cannot_get_rid_of_its_messages_cleans_up(kind):
    reader, writer = os.pipe()

    class Floods(Task):
        def run(self, inbox, context):
            try:
                while True:
                    yield np.zeros(1 << 20)
            finally:
                os.write(writer, b"clean")

    with pool(Floods(), kind, workers=1) as running:
        running.receive()
    assert os.read(reader, 100) == b"clean"
    os.close(reader)
    os.close(writer)


@with_processes
def test_fifty_megabytes_travel_both_ways_and_belong_to_who_receives_them(kind):
    sent = [np.arange(6_250_000, dtype=np.float64), b"x" * 1_000_000, "key", np.zeros((2, 0)), np.int64(3)]
    with pool(Echo(), kind, workers=1) as running:
        running.send(0, sent)
        _, received = running.receive()
    assert received[1:3] == sent[1:3]
    assert received[3].shape == (2, 0)
    assert (received[0] == sent[0]).all()
    received[0][:] = 0
    assert sent[0][1] == 1


@with_processes
def test_sending_never_blocks_and_takes_the_message_as_it_is_now(kind):
    block = np.zeros(1 << 20)
    with pool(Echo(), kind, workers=1) as running:
        for i in range(10):  # 80 MB, of which a socket takes a few
            block[:] = i
            running.send(0, block)
        assert [int(running.receive()[1][0]) for _ in range(10)] == list(range(10))


@with_processes
def test_what_a_task_changes_after_it_has_yielded_it_does_not_change_what_was_yielded(kind):
    class Reuses(Task):
        def run(self, inbox, context):
            block = np.zeros(1 << 17)
            for i in range(20):
                block[:] = i
                yield block

    with pool(Reuses(), kind, workers=1) as running:
        assert [int(block[-1]) for _, block in iter(running.receive, None)] == list(range(20))


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 65_507, 65_508, 65_519, 65_520, 65_521, 131_072, 1_000_003])
@with_processes
def test_every_size_passes_the_buffer_of_the_reader(kind, size):
    with pool(Echo(), kind, workers=1) as running:
        for message in (bytes(size), np.ones(size, np.uint8), [np.ones(size // 7, np.uint8)] * 7):
            running.send(0, message)
            _, received = running.receive()
            assert np.array_equal(np.asarray(received), np.asarray(message))


@with_workers
def test_a_worker_that_is_not_listened_to_stops_producing(kind):
    made = mmap.mmap(-1, 8)
    ahead = []

    class Makes(Task):
        def run(self, inbox, context):
            for i in range(60):
                made[:8] = i.to_bytes(8)
                yield bytes(1 << 20)

    with pool(Makes(), kind, workers=1) as running:
        for received in range(60):
            assert len(running.receive()[1]) == 1 << 20
            ahead.append(int.from_bytes(made[:8]) - received)
    assert max(ahead) <= LEAD + 4


def test_a_thread_is_handed_the_object_itself():
    message = [object()]
    with pool(Echo(), "thread", workers=1) as running:
        running.send(0, message)
        assert running.receive()[1] is message


def test_inline_work_is_done_in_the_caller_when_it_waits():
    seen = []
    with pool(Calls(), "inline") as running:
        running.send(0, lambda: seen.append(threading.current_thread()))
        assert seen == []
        running.receive()
    assert seen == [threading.current_thread()]


def test_inline_waiting_for_nothing_is_an_error_and_not_for_ever():
    with pool(Echo(), "inline") as running:
        running.send(0, 1)
        running.receive()
        with pytest.raises(UsageError, match="nothing was sent that is unanswered"):
            running.receive()


def test_inline_a_task_that_does_not_answer_one_by_one_is_told_so():
    class Pairs(Task):
        def run(self, inbox, context):
            for first in inbox:
                yield first, next(inbox)

    with pool(Pairs(), "inline") as running:
        running.send(0, 1)
        with pytest.raises(UsageError, match="asks for a message before it has answered"):
            running.receive()


@with_processes
def test_bytes_on_their_way_are_counted_until_they_are_received(kind):
    with pool(Echo(), kind, workers=1, buffer_bytes=1 << 20) as running:
        assert [running.held_bytes, running.full] == [0, False]
        running.send(0, bytes(1 << 20))
        assert running.full
        running.receive()
        assert [running.held_bytes, running.full] == [0, False]


@every_kind
def test_starting_twice_is_harmless(kind):
    with pool(Counts(1), kind, workers=1) as running:
        running.start()
        assert list(iter(running.receive, None)) == [(0, (0, 0))]


@every_kind
def test_closing_twice_is_harmless_and_a_closed_pool_says_so(kind):
    running = pool(Echo(), kind)
    running.start()
    running.close()
    running.close()
    for use in (running.start, running.receive, lambda: running.send(0, 1)):
        with pytest.raises(UsageError, match="the pool of Stage is closed; make a new one"):
            use()


@every_kind
def test_a_pool_that_was_never_started_says_so_and_closes(kind):
    unstarted = pool(Echo(), kind)
    with pytest.raises(UsageError, match="has not been started"):
        unstarted.receive()
    unstarted.close()
    with pytest.raises(UsageError, match="is closed"):
        unstarted.start()


@every_kind
def test_a_pool_that_is_dropped_ends_its_workers(kind):
    running = pool(Echo(), kind)
    running.start()
    del running  # and the fixture looks


def when_it_waits(running: Pool) -> threading.Event:
    """Return an event that is set when the pool begins to wait for its workers."""
    waits = threading.Event()
    wait = running._crew.wait

    def waiting(timeout: float | None) -> Any:
        waits.set()
        return wait(timeout)

    running._crew.wait = waiting
    return waits


@with_workers
def test_a_second_thread_that_uses_a_waiting_pool_is_told_so(kind):
    refused: list[BaseException] = []
    release, hold = os.pipe()
    with pool(Calls(), kind, workers=1) as running:
        running.send(0, lambda: os.read(release, 1))
        waits = when_it_waits(running)

        def second() -> None:
            waits.wait()
            for use in (running.receive, lambda: running.send(0, 1)):
                try:
                    use()
                except BaseException as error:
                    refused.append(error)
            os.write(hold, b"x")

        thread = threading.Thread(target=second)
        thread.start()
        assert running.receive() == (0, b"x")
        thread.join()
    os.close(release)
    os.close(hold)
    assert [str(error) for error in refused] == ["Stage is waiting in another thread; a pool has one consumer"] * 2


@with_workers
def test_closing_from_another_thread_wakes_the_one_that_waits(kind):
    running = pool(Echo(), kind)
    running.start()
    waits = when_it_waits(running)

    def close() -> None:
        waits.wait()
        running.close()

    thread = threading.Thread(target=close)
    thread.start()
    with pytest.raises(UsageError, match="closed while it was waited for"):
        running.receive()
    thread.join()


@with_workers
def test_an_interrupt_that_wakes_nobody_is_seen_all_the_same(kind, monkeypatch):
    monkeypatch.setattr("dataflow.engine.pool.LONGEST_WAIT", 0.3)
    with pool(Echo(), kind, timeout=None) as running:
        waits = when_it_waits(running)

        def interrupt() -> None:
            waits.wait()
            time.sleep(0.1)
            _thread.interrupt_main()  # notes a SIGINT, as one that came just before the wait

        thread = threading.Thread(target=interrupt)
        thread.start()
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            running.receive()
        assert time.monotonic() - start < 5
        thread.join()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        pytest.param({"workers": 0}, ValueError, "workers must be an integer of at least 1, got 0", id="no-workers"),
        pytest.param({"workers": 1.5}, TypeError, "workers must be an integer", id="half-a-worker"),
        pytest.param({"kind": "greenlet"}, ValueError, "kind must be one of 'process', 'zmq', 'thread'", id="kind"),
        pytest.param({"start_method": "vfork"}, ValueError, "start_method must be one of 'fork'", id="method"),
        pytest.param({"timeout": 0}, ValueError, "timeout must be more than 0 seconds", id="timeout-zero"),
        pytest.param({"timeout": "1"}, TypeError, "timeout must be a number of seconds or None", id="timeout-text"),
        pytest.param({"task": len}, TypeError, "task must be a Task", id="task"),
    ],
)
def test_wrong_arguments_are_named_at_construction(options, error, text):
    right = {"task": Echo(), "workers": 1, "kind": "inline", "stage": "Stage"}
    with pytest.raises(error, match=text):
        Pool(**{**right, **options})


def test_a_pool_shows_what_it_is_in_one_line():
    assert repr(pool(Echo(), "inline")) == "Pool(stage='Stage', kind='inline', workers=2, not started)"


def test_a_task_without_run_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Task()


def test_a_task_notes_the_datapoint_on_its_error():
    class Notes(Task):
        def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Any]:
            for number in inbox:
                try:
                    yield 1 // number
                except ZeroDivisionError as error:
                    context.note(error, 17)
                    raise

    with pool(Notes(), "process", workers=1) as running:
        running.send(0, 0, range(10, 20))
        with pytest.raises(ZeroDivisionError) as caught:
            running.receive()
    (note,) = caught.value.__notes__
    assert note.startswith("in Stage, worker 0 (pid ")
    assert note.endswith("), datapoint 17")
