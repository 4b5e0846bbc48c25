"""Datapoints that are already in memory, or come out of a Python object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import length_hint
from typing import Any

from ..base import RNGDataFlow
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.own import copier
from ..utils.rng import checked_seed


class DataFromList(RNGDataFlow):
    """Yield the datapoints of a list.

    >>> list(DataFromList([[1, "a"], [2, "b"]], shuffle=False))
    [[1, 'a'], [2, 'b']]

    Its length is exact. A datapoint that is a list or dict is copied, one level deep, so that whoever changes what it
    received does not change ``lst``. An empty list is an empty flow.

    Args:
        lst: list (or other sequence) of datapoints.
        shuffle: yield them in a new random order in each pass.
        seed: seed of the order, instead of the root seed.

    Raises:
        TypeError: at construction, if ``lst`` has no length or no index.
    """

    _transient = (*RNGDataFlow._transient, "_copy")
    _copy: Callable[[Any], Any] | None = None

    def __init__(self, lst: Sequence[Any], shuffle: bool = True, *, seed: int | None = None) -> None:
        if not hasattr(lst, "__getitem__") or not hasattr(lst, "__len__") or isinstance(lst, str | bytes | dict):
            raise TypeError(f"lst must be a list of datapoints, got {check.seen(lst)}; for others, DataFromIterable")
        check.flag(shuffle=shuffle)
        self.lst = lst
        self._shuffle = shuffle
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self.lst)

    def _walk(self, at: Place, run: Run) -> Walk:
        path, start, size = at["pass"], at.get("index", 0), len(self.lst)
        if self._copy is None:
            self._copy = copier(self.lst)
        if self._shuffle:
            rest = iter(run.generator(self, path)(0).permutation(size)[start:].tolist())
            rows: Iterator[Any] = map(self.lst.__getitem__, rest)
        else:
            rows = rest = _from(self.lst, start)
        return map(self._copy, rows), lambda: {"pass": path, "index": size - length_hint(rest)}


def _from(lst: Sequence[Any], start: int) -> Iterator[Any]:
    """Iterate ``lst`` from an index on, by an iterator that knows how many are left."""
    if type(lst) is list:
        it = iter(lst)
        it.__setstate__(start)  # type: ignore[attr-defined]  # typeshed lacks it
        return it
    return map(lst.__getitem__, range(start, len(lst)))
