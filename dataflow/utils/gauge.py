"""How full the buffer runs that stands between workers and their consumer, and what the consumer waits for."""

from __future__ import annotations

from time import perf_counter
from typing import NamedTuple


class BufferReport(NamedTuple):
    """What a gauge has seen.

    >>> print(BufferReport("MultiThreadMapData(ds=FakeData, num_thread=2)", 200, 0.04, 0.01, 0.95))
    MultiThreadMapData(ds=FakeData, num_thread=2): 4 % of 200 datapoints ready on average
      time: 1 % reading ds, 95 % waiting for the workers, 4 % behind them: the workers are the bottleneck
    """

    flow: str
    size: int  # datapoints that the buffer holds
    full: float  # the part of them that was ready when the consumer came for more
    reading: float  # the part of the time that went into the flow that feeds the workers
    waiting: float  # the part of the time that was spent waiting for the workers

    def __str__(self) -> str:
        behind = 1.0 - self.reading - self.waiting
        shares = {"ds is": self.reading, "the workers are": self.waiting, "what comes behind them is": behind}
        slowest = max(shares, key=shares.__getitem__)
        return (
            f"{self.flow}: {self.full:.0%} of {self.size} datapoints ready on average\n"
            f"  time: {self.reading:.0%} reading ds, {self.waiting:.0%} waiting for the workers, {behind:.0%} behind "
            f"them: {slowest} the bottleneck"
        ).replace("%", " %")


class Gauge:
    """Count what is ready whenever the consumer comes for more, and time what it then waits for.

    The clock starts with the second visit: the first one waits for workers that are still starting.

    Args:
        size: datapoints that the buffer holds.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._visits = self._ready = 0
        self._reading = self._waiting = self._start = 0.0

    def visit(self, ready: int) -> None:
        """Note that the consumer comes for more, while so many datapoints are ready."""
        self._visits += 1
        if self._visits <= 2:
            self._start = perf_counter()
            self._ready, self._reading, self._waiting = 0, 0.0, 0.0
        self._ready += ready

    def read_since(self, start: float) -> None:
        """Note that ``ds`` was read from ``start`` until now."""
        self._reading += perf_counter() - start

    def waited_since(self, start: float) -> None:
        """Note that the workers were waited for from ``start`` until now."""
        self._waiting += perf_counter() - start

    def report(self, flow: str) -> BufferReport | None:
        """Return what was seen of the buffer of ``flow``; None before the second visit."""
        if self._visits < 2:
            return None
        seconds = max(perf_counter() - self._start, self._reading + self._waiting, 1e-9)
        full = self._ready / (self._visits - 1) / self.size
        return BufferReport(flow, self.size, min(full, 1.0), self._reading / seconds, self._waiting / seconds)
