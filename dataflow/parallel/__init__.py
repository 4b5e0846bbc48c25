"""Flows that run or map other flows in threads and processes."""

from .processes import MultiProcessRunner
from .threads import MultiThreadMapData, MultiThreadRunner
from .zmq_processes import MultiProcessMapAndBatchDataZMQ, MultiProcessMapDataZMQ, MultiProcessRunnerZMQ

# Documented as two names of one class.
MultiProcessMapData = MultiProcessMapDataZMQ
MultiProcessMapAndBatchData = MultiProcessMapAndBatchDataZMQ

__all__ = [
    "MultiProcessMapAndBatchData",
    "MultiProcessMapAndBatchDataZMQ",
    "MultiProcessMapData",
    "MultiProcessMapDataZMQ",
    "MultiProcessRunner",
    "MultiProcessRunnerZMQ",
    "MultiThreadMapData",
    "MultiThreadRunner",
]
