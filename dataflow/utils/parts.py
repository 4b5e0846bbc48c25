"""Iterate lists one after another at C speed, and know how far one is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from operator import length_hint
from typing import Any


class Parts:
    """The datapoints of ``lists``, as the iterator ``rows``; the next list is asked for when one is used up.

    >>> parts = Parts(iter([[1, 2, 3], [4]]))
    >>> next(parts.rows), parts.left, parts.given
    (1, 2, 1)
    """

    def __init__(self, lists: Iterator[list[Any]]) -> None:
        self._total = 0
        self._current: Iterator[Any] = iter(())
        self.rows = chain.from_iterable(map(self._open, lists))

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
