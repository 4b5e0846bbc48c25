"""A file is synced while it is written, and a sync that fails is not forgotten."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from dataflow import DataFromList, MapData, MultiProcessMapData, TFRecordSerializer
from dataflow.utils import write_behind as module
from dataflow.utils.open_file import published_stream
from dataflow.utils.write_behind import WriteBehind


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "_PART_BYTES", 1000)


@pytest.fixture
def syncs(monkeypatch):
    """The sizes of the file when it was synced, and an event that each sync waits for."""
    seen, allowed = [], threading.Event()
    allowed.set()

    def fdatasync(descriptor):
        assert allowed.wait(10)
        seen.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fdatasync", fdatasync, raising=False)
    return seen, allowed


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def threads():
    return _thread._count()


def soon(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def save(path):
    with published_stream(path) as file:
        file.write(bytes(5000))
        file.flush()


def test_what_is_written_is_in_the_file(tmp_path):
    data, before = os.urandom(100_000), threads()
    with WriteBehind(str(tmp_path / "x")) as file:
        for start in range(0, len(data), 700):
            assert file.write(data[start : start + 700]) == min(700, len(data) - start)
    assert (tmp_path / "x").read_bytes() == data
    soon(lambda: threads() == before)


def test_each_part_is_synced_once_it_is_there(tmp_path, syncs):
    with WriteBehind(str(tmp_path / "x")) as file:
        for _ in range(30):
            file.write(bytes(100))
        soon(lambda: len(syncs[0]) == 3)
    assert syncs[0][0] >= 1000


def test_a_short_file_needs_no_thread(tmp_path, syncs):
    before = threads()
    with WriteBehind(str(tmp_path / "x")) as file:
        file.write(bytes(999))
        assert threads() == before
    assert syncs[0] == []


def test_the_writer_does_not_wait_for_the_disk(tmp_path, syncs):
    seen, allowed = syncs
    allowed.clear()
    with WriteBehind(str(tmp_path / "x")) as file:
        for _ in range(50):
            file.write(bytes(1000))
    assert seen == []
    allowed.set()
    soon(lambda: seen)


def test_a_failed_sync_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails, raising=False)
    before = descriptors(), threads()

    def save(path):
        with published_stream(path) as file:
            while True:
                file.write(bytes(5000))
                file.flush()

    with pytest.raises(OSError, match="Input/output error"):
        save(str(tmp_path / "x"))
    assert os.listdir(tmp_path) == []
    soon(lambda: (descriptors(), threads()) == before)


def test_an_abandoned_file_ends_its_thread(tmp_path):
    before = descriptors(), threads()
    file = WriteBehind(str(tmp_path / "x"))
    file.write(bytes(5000))
    soon(lambda: threads() == before[1] + 1)
    with pytest.warns(ResourceWarning):
        del file
    soon(lambda: (descriptors(), threads()) == before)


@pytest.mark.parametrize("name", ["_thread.start_new_thread", "os.open"])
def test_a_file_is_written_where_no_thread_or_descriptor_is_to_be_had(tmp_path, monkeypatch, name):
    failed = threading.Event()

    def fails(*args):
        failed.set()
        raise RuntimeError("can't start new thread") if "thread" in name else OSError(errno.EMFILE, "too many")

    path = str(tmp_path / "x")
    with WriteBehind(path) as file, monkeypatch.context() as patch:
        patch.setattr(name, fails)
        for _ in range(5):
            file.write(bytes(1000))
        soon(failed.is_set)
    assert os.path.getsize(path) == 5000


def test_workers_that_start_while_a_file_is_saved_are_forked_all_the_same(tmp_path):
    lock, before = threading.Lock(), threads()  # the lock does not travel to a spawned one

    def later(dp):
        if dp[1] == 30:
            soon(lambda: threads() > before)
            dp[1] = sum(x for (x,) in MultiProcessMapData(numbers, 1, with_lock, strict=True))
        return dp

    def with_lock(dp):
        with lock:
            return dp

    numbers = DataFromList([[1], [2]], shuffle=False)
    rows = DataFromList([[bytes(50_000), i] for i in range(40)], shuffle=False)
    TFRecordSerializer.save(MapData(rows, later), str(tmp_path / "x.tfrecord"))
    assert [i for _, i in TFRecordSerializer.load(str(tmp_path / "x.tfrecord"))][30] == 3


EXIT = """
import sys
from dataflow.utils import write_behind
write_behind._PART_BYTES = 1000
file = write_behind.WriteBehind(sys.argv[1])
for _ in range(20):
    file.write(bytes(1000))
"""


def test_an_interpreter_exits_with_a_file_that_is_open(tmp_path):
    done = subprocess.run([sys.executable, "-c", EXIT, str(tmp_path / "x")], timeout=20, capture_output=True)
    assert done.returncode == 0


def test_a_forked_process_does_not_wait_for_the_thread(tmp_path):
    with WriteBehind(str(tmp_path / "x")) as file:
        for _ in range(5):
            file.write(bytes(1000))
        if (pid := os.fork()) == 0:
            signal.alarm(10)
            file.close()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
