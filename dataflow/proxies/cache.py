"""Keep a flow in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from operator import length_hint
from typing import Any, NamedTuple

from ..base import ProxyDataFlow, length
from ..errors import EmptyFlowError
from ..passes import Exclusive, Place, Run, Walk, below
from ..utils import check
from ..utils.own import copier, own
from ..utils.rng import checked_seed


class _Filled(NamedTuple):
    """A complete cache, and the place of the flow below from which it can be filled again."""

    rows: list[Any]
    copy: Callable[[Any], Any]
    start: Place


class CacheData(ProxyDataFlow):
    """Keep the first pass of a flow in memory, and yield later passes from there.

    The first pass streams in the order of ``ds``, shuffled or not. Given up before its last datapoint it leaves
    nothing, and the next one starts anew. ``reset_state`` empties the cache.

    >>> ds = CacheData(DataFromList([[1], [2], [3]]))
    >>> list(ds) == list(ds)
    True

    Each datapoint that it yields is a list or dict of its own, while arrays are those in the cache: do not change
    them in place. Passes cannot overlap while the cache fills. Its length is ``len(ds)``, exact once the cache is full.

    A position does not hold the cached data: to continue from it, ``ds`` is read again.

    Args:
        ds: a flow that ends, is not empty, and fits in memory.
        shuffle: yield each pass from the cache in a new random order.
        seed: seed of the order, instead of the root seed.

    Raises:
        TypeError: at construction, if ``shuffle`` is not True or False.
        EmptyFlowError: while iterating, if ``ds`` yields nothing.
        UsageError: while iterating, at the first ``next`` of a second pass while another one fills the cache.
    """

    _transient = (*ProxyDataFlow._transient, "_kept")
    _kept: _Filled | None = None
    _carries = True
    _replays = True

    def __init__(self, ds: Any, shuffle: bool = False, *, seed: int | None = None) -> None:
        super().__init__(ds)
        check.flag(shuffle=shuffle)
        self._shuffle = self._random = shuffle
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self.ds) if self._kept is None else len(self._kept.rows)

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._kept = None

    def _walk(self, at: Place, run: Run) -> Walk:
        if at.get("full") and self._kept is None:
            self._keep([*self.ds._walk(at["ds"], run)[0]], at["ds"])
        if self._kept is None or ("ds" in at and not at.get("full")):
            return self._filling(at, run)
        return self._serving(self._kept, at, run)

    def _filling(self, at: Place, run: Run) -> Walk:
        path, (it, up) = at["pass"], self.ds._walk(below(at), run)
        start, full = up(), False
        rows = [*map(own, islice(it, at.get("k", 0)))]

        def fill() -> Iterator[Any]:
            nonlocal full
            size = length(self.ds)
            for dp in islice(it, size if size is None else max(size - 1 - len(rows), 0)):
                rows.append(own(dp))
                yield dp
            # The end is looked for before the last datapoint is handed on: many take len(ds) of them and no more.
            last = [*islice(it, 2)]
            if len(last) == 2:  # it was not the last
                for dp in chain(last, it):
                    rows.append(own(dp))
                    yield dp
                last = []
            rows.extend(map(own, last))
            if not rows:
                raise EmptyFlowError(f"{self!r} has nothing to cache: a pass of {self.ds!r} is empty")
            self._keep(rows, start)
            full = True
            yield from last

        return Exclusive(self, fill(), run), lambda: {"pass": path, "k": len(rows), "ds": start, "full": full}

    def _keep(self, rows: list[Any], start: Place) -> None:
        self._kept = _Filled(rows, copier(rows), start)

    def _serving(self, kept: _Filled, at: Place, run: Run) -> Walk:
        path, size, k = at["pass"], len(kept.rows), at.get("k", 0)
        if self._shuffle:
            rest = iter(run.generator(self, path)(0).permutation(size)[k:].tolist())
            rows: Iterator[Any] = map(kept.rows.__getitem__, rest)
        else:
            rows = rest = iter(kept.rows)
            rest.__setstate__(k)  # type: ignore[attr-defined]  # typeshed lacks it

        def place() -> Place:
            return {"pass": path, "k": size - length_hint(rest), "ds": kept.start, "full": True}

        return map(kept.copy, rows), place
