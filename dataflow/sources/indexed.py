"""Flows over a file whose datapoints are found by their number: in order or shuffled, from any place.

A format writes four small methods; ``IndexedData`` adds the rest.

::

    _identity  what tells that the file at the path is another one now
    _open      the file, once a process; a forked child opens its own
    _size      how many datapoints it holds
    _rows      a datapoint for each number it is given: consecutive ones without shuffle, else all in a drawn order

``_rows`` may take more numbers than it has answered: chunks are read at once, and the position is counted behind it.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from ..base import RNGDataFlow
from ..errors import CorruptDataError
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.open_file import identity_of
from ..utils.parts import Parts
from ..utils.rng import checked_seed
from ..utils.tally import tally
from .order import place_in, start_of

# How many numbers of an order are Python ints at a time.
_PART = 4096


class IndexedData(RNGDataFlow):
    """Walk a file by the numbers of its datapoints; base class of sources with random access.

    A subclass calls ``super().__init__`` first, with the path as ``checked_path`` returns it.

    Args:
        path: path or URL.
        shuffle: read the datapoints in a new random order in each pass.
        seed: seed of the order, instead of the root seed.
    """

    _transient = (*RNGDataFlow._transient, "_held")
    # The process that opened the file, what told it from others, and the file.
    _held: tuple[int, Any, Any] | None = None
    # What a library raises where the bytes are damaged; CorruptDataError always is.
    _damage: ClassVar[tuple[type[Exception], ...]] = ()

    def __init__(self, path: str, shuffle: bool, seed: int | None) -> None:
        check.flag(shuffle=shuffle)
        self._path = path
        self._shuffle = shuffle
        self._seed = checked_seed(seed)

    @abstractmethod
    def _open(self) -> Any:
        """Open the file, and check what can be checked at little cost.

        What is returned is held by the flow and by its running passes, and closes itself when it is dropped.
        """

    @abstractmethod
    def _size(self) -> int:
        """Return how many datapoints the file holds."""

    @abstractmethod
    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        """Make an iterator over the datapoints with these numbers, of ``self._opened()``.

        A plain function that returns a C-level iterator is fastest. One that reads ahead and finds a damaged datapoint
        raises ``self._damaged(number, why)``; for one that does not, the base knows the number.
        """

    def _identity(self) -> Any:
        """Return what is another value when the path leads to another file than before, or to a changed one.

        None if that is not known, as at a URL: then each pass opens the file anew.
        """
        return identity_of(self._path)

    def __len__(self) -> int:
        self._refresh()
        return self._size()

    def close(self) -> None:
        """End the running pass and close the file, unless another pass reads it; see ``DataFlow.close``."""
        super().close()
        self._held = None

    def _refresh(self) -> Any:
        """Let go of a file that this process has not opened, or that is not the one at the path any more; return it."""
        held, identity = self._held, self._identity()  # once: another thread may begin a pass, too
        if held is None or held[:2] != (os.getpid(), identity):
            self._held = None
            held = self._held = os.getpid(), identity, self._open()
        return held[2]

    def _opened(self) -> Any:
        """Return the file."""
        held = self._held
        return self._refresh() if held is None or held[0] != os.getpid() else held[2]

    def _walk(self, at: Place, run: Run) -> Walk:
        if self._identity() is None:  # nobody can tell whether it is the file that was opened before
            self._held = None
        path, size = at["pass"], len(self)
        start = start_of(at, size, repr(self._path))
        if self._shuffle:
            drawn = run.generator(self, path)(0).permutation(size)[start:]
            numbers = Parts().rows(drawn[i : i + _PART].tolist() for i in range(0, size - start, _PART))
        else:
            drawn = np.arange(0)
            numbers = iter(range(start, size))
        rows, given = tally(self._rows(numbers), start)

        def number() -> int:
            return int(drawn[given() - start]) if given() - start < len(drawn) else given()

        def complete() -> Iterator[Any]:
            if given() < size:
                raise CorruptDataError(f"{self._path!r} ended after {given():,} of {size:,} records. Copy it again")
            yield from ()

        return self._located(chain(rows, complete()), number), lambda: place_in(path, given(), size, self._shuffle)

    def _located(self, rows: Iterator[Any], number: Callable[[], int]) -> Iterator[Any]:
        """Hand on ``rows``; an error says which record of which file it is about."""
        try:
            yield from rows
        except Exception as error:
            if any(repr(self._path) in said for said in (str(error), *getattr(error, "__notes__", ()))):
                raise
            if isinstance(error, (CorruptDataError, *self._damage)):
                raise self._damaged(number(), error) from error
            error.add_note(f"in {self._where(number())}")
            raise

    def _damaged(self, number: int, why: object) -> CorruptDataError:
        """Return the error for a datapoint that cannot be read."""
        return CorruptDataError(f"{self._where(number)}: {why}")

    def _where(self, number: int) -> str:
        """Say where a datapoint is: in which file, and where in it."""
        return f"{self._path!r}, record {number}"
