"""What the processes of a line use, and whether that grows."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Usage(NamedTuple):
    """What a process and all that it has started use together."""

    megabytes: float
    processes: int
    descriptors: int
    threads: int


def usage(pid: int) -> Usage:
    """Measure a process and its children, which stand still.

    The memory is what no file is behind, each page that several share counted once, and files in memory without a name.
    Programs and libraries are left out: how much of them counts for a process depends on who else runs them.
    """
    processes = family(pid)
    memory, descriptors, threads = 0, 0, 0
    files: dict[tuple[int, int], int] = {}
    for folder in (pathlib.Path("/proc", str(process)) for process in processes):
        lines = (line.split() for line in (folder / "smaps_rollup").read_text().splitlines()[1:])
        memory += sum(int(words[1]) << 10 for words in lines if words[0] in ("Pss_Anon:", "SwapPss:"))
        threads += len(os.listdir(folder / "task"))
        for name in os.listdir(folder / "fd"):
            descriptors += 1
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(folder / "fd" / name).startswith("/memfd:"):
                    found = os.stat(folder / "fd" / name)
                    files[found.st_dev, found.st_ino] = found.st_blocks * 512
    return Usage((memory + sum(files.values())) / 1e6, len(processes), descriptors, threads)


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, as Linux lists them."""
    found = [pid]
    for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


class Estimate(NamedTuple):
    """What a value is, and between what it lies with a probability of 95 %."""

    value: float
    low: float
    high: float


def trend(times: Sequence[float], values: Sequence[float]) -> Estimate:
    """Return the median of the slopes between any two points (Theil and Sen): a few outliers do not matter.

    The interval is that of Sen (1968), from the distribution of Kendall's tau.
    """
    points = [*zip(times, values, strict=True)]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(points)
        for later in points[i + 1 :]
    ]
    count = len(points)
    return _median(slopes, 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18) / 2)


def typical(values: Sequence[float]) -> Estimate:
    """Return the median, with the interval of the sign test."""
    return _median(values, 1.96 * math.sqrt(len(values)) / 2)


def _median(values: Sequence[float], around: float) -> Estimate:
    """Return the median, and the values that stand so many ranks from it."""
    if not values:
        return Estimate(math.nan, math.nan, math.nan)
    ordered = sorted(values)
    low, high = int(len(ordered) / 2 - around), math.ceil(len(ordered) / 2 + around)
    return Estimate(statistics.median(ordered), ordered[max(low, 0)], ordered[min(high, len(ordered) - 1)])
