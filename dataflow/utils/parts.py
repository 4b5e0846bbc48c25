"""Iterate lists one after another at C speed, and know how far one is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import length_hint
from typing import Any


class Parts:
    """Count what an iterator over the datapoints of lists has handed on.

    The iterator refers to its count and not the other way round: without a cycle, what it draws from is freed as
    soon as it is dropped.

    >>> parts = Parts()
    >>> rows = parts.rows(iter([[1, 2, 3], [4]]))
    >>> next(rows), parts.left, parts.given
    (1, 2, 1)
    """

    def __init__(self) -> None:
        self._total = 0
        self._current: Iterator[Any] = iter(())

    def rows(self, lists: Iterator[list[Any]]) -> Iterator[Any]:
        """Return the iterator; it asks for the next list when one is used up."""
        return chain.from_iterable(map(self._open, lists))

    def _open(self, part: list[Any]) -> Iterator[Any]:
        self._total += len(part)
        self._current = iter(part)
        return self._current

    @property
    def left(self) -> int:
        """Datapoints of the current list that are still to come."""
        return length_hint(self._current)

    @property
    def given(self) -> int:
        """Datapoints handed on so far."""
        return self._total - self.left
