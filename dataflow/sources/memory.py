"""Datapoints that are already in memory, as a list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from typing import Any

from ..base import DataFlow, RNGDataFlow
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.own import copier, own
from ..utils.rng import checked_seed
from ..utils.tally import tally
from .order import place_in, start_of
from .packed import Packed


class DataFromList(RNGDataFlow):
    """Yield the datapoints of a list.

    >>> list(DataFromList([[1, "a"], [2, "b"]], shuffle=False))
    [[1, 'a'], [2, 'b']]

    Its length is exact. A datapoint that is a list or dict is copied, one level deep, so that whoever changes what it
    received does not change ``lst``. An empty list is an empty flow.

    Every worker process ends up with the list in its own memory: one that is forked copies each page that it reads
    from. With ``shared``, worth it from some 100,000 datapoints on, they are packed now into a few buffers that all
    forked workers have in common; spawned ones have a copy of the buffers each. A datapoint is made when it is due, and
    all of it belongs to whoever receives it. ``lst`` is not kept: drop it as well, and its memory is free.

    Args:
        lst: list (or other sequence) of datapoints.
        shuffle: yield them in a new random order in each pass.
        shared: pack the datapoints, one by one: an object that many of them hold is packed as often.
        seed: seed of the order, instead of the root seed.

    Raises:
        TypeError: at construction, if ``lst`` has no length or no index, or, with ``shared``, if something in it
            cannot be pickled; the message names its place.
    """

    _transient = (*RNGDataFlow._transient, "_copier")
    # How to copy the datapoints, and the length of the list for which that was found out.
    _copier: tuple[int, Callable[[Any], Any]] = (0, own)

    def __init__(
        self, lst: Sequence[Any], shuffle: bool = True, *, shared: bool = False, seed: int | None = None
    ) -> None:
        if not hasattr(lst, "__getitem__") or not hasattr(lst, "__len__") or isinstance(lst, str | bytes | dict):
            raise TypeError(f"lst must be a list of datapoints, got {check.seen(lst)}; for others, DataFromIterable")
        check.flag(shuffle=shuffle, shared=shared)
        self.lst = Packed(lst) if shared else lst
        self._shuffle = shuffle
        self._shared = shared
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self.lst)

    def _walk(self, at: Place, run: Run) -> Walk:
        size = len(self.lst)
        if isinstance(self.lst, Packed):
            return unpacked(self, at, run, self.lst, self._shuffle)
        if self._copier[0] != size:
            self._copier = size, copier_of(self.lst)
        if type(self.lst) in (list, tuple) and not self._shuffle:
            rows, place = in_order(self.lst, at)
        else:
            order, place = numbers(self, at, run, size, self._shuffle)
            rows = map(self.lst.__getitem__, order)
        return map(self._copier[1], rows), place


def numbers(flow: DataFlow, at: Place, run: Run, size: int, shuffle: bool) -> Walk:
    """Walk the numbers below ``size``, in order or in one that is drawn; how a flow with an index walks."""
    path, start = at["pass"], start_of(at, size, repr(flow))
    if shuffle:
        rest: Iterator[int] = iter(run.generator(flow, path)(0).permutation(size)[start:].tolist())
    else:
        rest = iter(range(start, size))
    return rest, lambda: place_in(path, size - length_hint(rest), size, shuffle)


def unpacked(flow: DataFlow, at: Place, run: Run, lst: Packed, shuffle: bool) -> Walk:
    """Walk packed datapoints, in the same order as ``numbers``."""
    path, size = at["pass"], len(lst)
    start = start_of(at, size, repr(flow))
    order = run.generator(flow, path)(0).permutation(size) if shuffle else range(size)
    rows, given = tally(lst.rows(order[start:]), start)
    return rows, lambda: place_in(path, given(), size, shuffle)


def in_order(lst: Sequence[Any], at: Place) -> Walk:
    """Walk a list, tuple or range by its own iterator, which is twice as fast as by ``numbers``, copies included."""
    path, rest = at["pass"], iter(lst)
    rest.__setstate__(start_of(at, len(lst), f"the {type(lst).__name__}"))  # type: ignore[attr-defined]  # typeshed lacks it
    return rest, lambda: {"pass": path, "index": len(lst) - length_hint(rest)}


def copier_of(rows: Sequence[Any]) -> Callable[[Any], Any]:
    """Return ``copier(rows)``, but never read a sequence that may load or make its datapoints."""
    return copier(rows) if type(rows) in (list, tuple) else own
