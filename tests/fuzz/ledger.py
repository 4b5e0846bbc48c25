"""What a child has done so far, in a file that both sides map: it is there also when the child dies in the middle."""

from __future__ import annotations

import mmap
import pathlib

from .payloads import KINDS

OUTCOMES = ("value", "CorruptDataError", "UsageError")
CELLS = [(kind, outcome) for kind in KINDS for outcome in OUTCOMES]
_SIZE = 8 * (len(CELLS) + 3)


class Ledger:
    """Counts of outcomes, the payload that is at work, and what the most expensive ones took."""

    def __init__(self, path: pathlib.Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._cells = memoryview(self._map).cast("q")

    def begin(self, number: int) -> None:
        self._cells[0] = number

    def end(self, kind: str, outcome: str, nanoseconds: int) -> None:
        self._cells[3 + _PLACES[kind, outcome]] += 1
        self._cells[1] = max(self._cells[1], nanoseconds)

    @property
    def number(self) -> int:
        """The payload begun last."""
        return self._cells[0]

    @property
    def slowest(self) -> float:
        """Seconds that the slowest payload took."""
        return self._cells[1] / 1e9

    @property
    def longest(self) -> int:
        """Bytes of the longest payload."""
        return self._cells[2]

    @longest.setter
    def longest(self, size: int) -> None:
        self._cells[2] = max(size, self._cells[2])

    def counts(self) -> dict[tuple[str, str], int]:
        """How many payloads of a kind ended in which way."""
        return {cell: self._cells[3 + place] for cell, place in _PLACES.items()}


_PLACES = {cell: place for place, cell in enumerate(CELLS)}
