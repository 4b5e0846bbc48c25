"""Maps and runners of every kind of worker, and the check that no test leaves a worker behind."""

from __future__ import annotations

import os
import threading

import pytest

from dataflow.parallel import MultiThreadRunner
from dataflow.parallel.batching import ParallelMapAndBatch
from dataflow.parallel.mapping import ParallelMap
from dataflow.parallel.processes import ProcessRunner
from dataflow.testing import _collect

# name: kind of the pool, start method
KINDS = {
    "inline": ("inline", None),
    "thread": ("thread", None),
    "fork": ("process", "fork"),
    "spawn": ("process", "spawn"),
    "forkserver": ("process", "forkserver"),
    "zmq": ("zmq", "fork"),
    "zmq-spawn": ("zmq", "spawn"),
}


@pytest.fixture(autouse=True)
def _nothing_is_left():
    threads, files = {*threading.enumerate()}, len(os.listdir("/proc/self/fd"))
    yield
    _collect()
    for thread in {*threading.enumerate()} - threads:
        thread.join(2)
        assert not thread.is_alive()
    with pytest.raises(ChildProcessError):  # not even a zombie
        os.waitpid(-1, os.WNOHANG)
    assert len(os.listdir("/proc/self/fd")) <= files


@pytest.fixture
def make_map():
    def make(kind, ds, workers, func, *, buffer_size=200, strict=True, ordered=False, timeout=None, on_error=None):
        pool, start_method = KINDS[kind]

        class Map(ParallelMap):
            _kind = pool

        return Map(ds, workers, func, buffer_size, strict, ordered, start_method, timeout, 0, on_error)

    return make


@pytest.fixture
def make_batches():
    def make(kind, ds, workers, func, batch_size, *, buffer_size=None, remainder=False, ordered=False, on_error=None):
        pool, start_method = KINDS[kind]

        class Batches(ParallelMapAndBatch):
            _kind = pool

        return Batches(ds, workers, func, batch_size, buffer_size, remainder, ordered, start_method, None, 0, on_error)

    return make


@pytest.fixture
def make_runner():
    def make(kind, get_df, workers=1, credit=10, *, timeout=None):
        pool, start_method = KINDS[kind]
        if pool == "thread":
            return MultiThreadRunner(get_df, credit * workers, workers, timeout=timeout)

        class Run(ProcessRunner):
            _kind = pool

        return Run(get_df(), workers, credit, start_method, timeout)

    return make
