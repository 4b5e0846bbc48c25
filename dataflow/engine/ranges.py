"""Free ranges of addresses; those that touch are joined, so that what was cut up can be used for something larger."""

from __future__ import annotations

from bisect import bisect_left, insort


class Ranges:
    """Hand out ranges from the smallest free one that is large enough, and take them back.

    >>> ranges = Ranges()
    >>> ranges.add(0, 100)
    >>> ranges.take(30), ranges.take(30), ranges.take(60)
    (0, 30, None)
    >>> ranges.add(30, 30)
    >>> ranges.add(0, 30)
    >>> ranges.take(100)
    0
    """

    def __init__(self) -> None:
        self._by_size: list[tuple[int, int]] = []  # sizes and starts, sorted
        self._ends: dict[int, int] = {}  # by start
        self._starts: dict[int, int] = {}  # by end

    def take(self, size: int) -> int | None:
        """Return the start of a range that is free no longer; None if none is large enough."""
        at = bisect_left(self._by_size, (size, 0))
        if at == len(self._by_size):
            return None
        start = self._by_size[at][1]
        end = self._cut(start)
        self._keep(start + size, end)
        return start

    def take_last(self, size: int) -> tuple[int, int]:
        """Take up to so many bytes from the end of the last range; there is one. Return where they start, and end."""
        start = max(self._ends)
        end = self._cut(start)
        middle = max(start, end - size)
        self._keep(start, middle)
        return middle, end

    def add(self, start: int, size: int) -> None:
        """Free a range."""
        end = start + size
        if start in self._starts:
            start = self._starts[start]
            self._cut(start)
        if end in self._ends:
            end = self._cut(end)
        self._keep(start, end)

    def _keep(self, start: int, end: int) -> None:
        if start < end:
            insort(self._by_size, (end - start, start))
            self._ends[start], self._starts[end] = end, start

    def _cut(self, start: int) -> int:
        """Take a range out whole, and return its end."""
        end = self._ends.pop(start)
        del self._starts[end]
        del self._by_size[bisect_left(self._by_size, (end - start, start))]
        return end
