"""A file is synced while it is written, and a sync that fails is not forgotten."""

from __future__ import annotations

import errno
import gc
import os
import threading

import pytest

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


def save(path):
    with published_stream(path) as file:
        file.write(bytes(5000))
        file.flush()


def syncers():
    return [thread for thread in threading.enumerate() if thread.name == "dataflow-sync"]


def test_what_is_written_is_in_the_file(tmp_path):
    data = os.urandom(100_000)
    with WriteBehind(str(tmp_path / "x")) as file:
        for start in range(0, len(data), 700):
            assert file.write(data[start : start + 700]) == min(700, len(data) - start)
    assert (tmp_path / "x").read_bytes() == data
    assert not syncers()


def test_each_part_is_synced_once_it_is_there(tmp_path, syncs):
    with WriteBehind(str(tmp_path / "x")) as file:
        for _ in range(30):
            file.write(bytes(100))
    seen, _ = syncs
    assert len(seen) == 3
    assert seen[0] >= 1000


def test_a_short_file_needs_no_thread(tmp_path, syncs):
    with WriteBehind(str(tmp_path / "x")) as file:
        file.write(bytes(999))
        assert not syncers()
    assert syncs[0] == []


def test_the_writer_does_not_wait_for_the_disk_before_the_end(tmp_path, syncs):
    seen, allowed = syncs
    allowed.clear()
    with WriteBehind(str(tmp_path / "x")) as file:
        for _ in range(50):
            file.write(bytes(1000))
        assert seen == []
        allowed.set()
    assert seen[-1] == 50_000


def test_a_failed_sync_is_an_error_of_close_and_leaves_nothing(tmp_path, monkeypatch):
    def fails(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fails, raising=False)
    before = descriptors()
    with pytest.raises(OSError, match="Input/output error"):
        save(str(tmp_path / "x"))
    assert os.listdir(tmp_path) == []
    assert descriptors() == before
    assert not syncers()


def test_an_abandoned_file_ends_its_thread(tmp_path):
    before = descriptors()
    file = WriteBehind(str(tmp_path / "x"))
    file.write(bytes(5000))
    assert syncers()
    with pytest.warns(ResourceWarning):
        del file
    gc.collect()
    assert not syncers()
    assert descriptors() == before
