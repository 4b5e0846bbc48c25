"""Measure an iterator: how many datapoints and bytes a second, and how evenly they come."""

from __future__ import annotations

import dataclasses
import json
import math
import resource
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np

from .gauge import BufferReport

# Datapoints whose bytes are counted, evenly spread.
SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class SpeedReport:
    """What was measured.

    >>> print(SpeedReport(100, 0.5, 200.0, 3.2e6, 0.004, 0.02, 64_000_000, complete=False))
    100 datapoints in 500 ms, and then the flow ended: fewer than warmup + size
    200 datapoints/s, 3.2 MB/s
    5 ms a datapoint: median 4 ms, 99 % within 20 ms
    64 MB peak memory
    """

    datapoints: int
    seconds: float  # spent in the flow
    datapoints_per_second: float
    bytes_per_second: float
    median_seconds: float  # of the times between asking for a datapoint and receiving it
    p99_seconds: float
    peak_memory_bytes: int  # of this process, plus the largest child that has ended, since they were started
    complete: bool  # False: the flow ended before warmup + size datapoints
    buffers: list[BufferReport] = dataclasses.field(default_factory=list)  # of maps and runners

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {**dataclasses.asdict(self), "buffers": [buffer._asdict() for buffer in self.buffers]}

    def to_json(self) -> str:
        """Return the fields as a JSON object."""
        return json.dumps(self.as_dict())

    def __str__(self) -> str:
        if not self.datapoints:
            return "no datapoint to measure: the flow is empty, or has no more than the warmup takes"
        ended = "" if self.complete else ", and then the flow ended: fewer than warmup + size"
        mean = self.seconds / self.datapoints
        return (
            f"{self.datapoints} datapoints in {_metric(self.seconds, 's')}{ended}\n"
            f"{_digits(self.datapoints_per_second)} datapoints/s, {_metric(self.bytes_per_second, 'B')}/s\n"
            f"{_metric(mean, 's')} a datapoint: median {_metric(self.median_seconds, 's')}, "
            f"99 % within {_metric(self.p99_seconds, 's')}\n"
            f"{_metric(self.peak_memory_bytes, 'B')} peak memory" + "".join(f"\n{buffer}" for buffer in self.buffers)
        )


def measure(it: Iterator[Any], size: int, warmup: int, received: Callable[[Any], Any]) -> SpeedReport:
    """Take ``warmup`` datapoints from ``it``, then time up to ``size`` more, and hand each to ``received``.

    Only the time inside of ``it`` counts, and about 50 ns of the clock.
    """
    warmed = 0
    for dp in islice(it, warmup):
        warmed += 1
        received(dp)
    seconds: list[float] = []
    sizes: list[int] = []
    every = max(1, size // SAMPLES)
    start = perf_counter()
    for dp in islice(it, size):
        seconds.append(perf_counter() - start)
        if len(seconds) % every == 0 or not sizes:
            sizes.append(count_bytes(dp))
        received(dp)
        del dp  # freed before the clock runs again
        start = perf_counter()
    total = math.fsum(seconds)
    rate = len(seconds) / total if total else 0.0
    median, p99 = np.quantile(seconds or [0.0], [0.5, 0.99]).tolist()
    return SpeedReport(
        datapoints=len(seconds), seconds=total, datapoints_per_second=rate,
        bytes_per_second=rate * sum(sizes) / max(1, len(sizes)), median_seconds=median, p99_seconds=p99,
        peak_memory_bytes=peak_memory(), complete=warmed + len(seconds) == warmup + size,
    )  # fmt: skip


def count_bytes(value: Any) -> int:
    """Count the bytes of the data in a datapoint, as if numbers took 8; what is unknown counts as nothing.

    >>> count_bytes([np.zeros((2, 3), "float32"), "abc", {"label": 7}])
    35
    """
    if isinstance(value, dict):
        return sum(map(count_bytes, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return sum(map(count_bytes, value))
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, int | float):
        return 8
    nbytes = getattr(value, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


def peak_memory() -> int:
    """Return the most memory in bytes that this process has held, plus that of the largest child that has ended."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _metric(value: float, unit: str) -> str:
    """Show a quantity with three digits and the prefix that fits."""
    prefixes = [(1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")] if unit == "B" else [(1, ""), (1e-3, "m"), (1e-6, "u")]
    scale, prefix = next((pair for pair in prefixes if value >= pair[0]), prefixes[-1])
    return f"{_digits(value / scale)} {prefix}{unit}"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
