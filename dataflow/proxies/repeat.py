"""Iterate a flow more than once, or each of its datapoints, or cut it to a size."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from ..base import DataFlow, ProxyDataFlow
from ..errors import EmptyFlowError, EndlessLength
from ..passes import ROUND, Exclusive, Mark, Place, Run, Walk, goes_back, graph
from ..utils import check
from ..utils.old_names import renamed
from ..utils.own import own


class Again:
    """Walk a flow again and again, pass i under the path ``[*path, i]``; what repeating flows are made of.

    Iterating it yields ``num`` passes, or endlessly many for -1. ``place()`` may be asked between two datapoints.
    """

    def __init__(self, owner: DataFlow, ds: DataFlow, run: Run, path: list[int], at: Place, num: int = -1) -> None:
        self.owner, self.ds, self.run, self.path, self.num = owner, ds, run, path, num
        self.i = at.get("i", 0)
        self.it, self.up = ds._walk(at.get("ds") or {"pass": [*path, self.i]}, run)
        # A pass that is continued in its middle, or at its end, may have nothing left.
        self._fresh = "ds" not in at

    def __iter__(self) -> Iterator[Any]:
        while True:
            if self.num == -1:
                yield from self._some()
            else:
                yield from self.it
            self.i += 1
            if self.i == self.num:
                return
            self.it, self.up = self.ds._walk({"pass": [*self.path, self.i]}, self.run)
            self._fresh = True

    def _some(self) -> Iterator[Any]:
        """Yield a pass of an endless repetition, which would spin for ever on an empty flow."""
        for dp in self.it:
            yield dp
            yield from self.it
            return
        if self._fresh:
            raise EmptyFlowError(f"{self.owner!r} repeats {self.ds!r} until it has enough, but one pass of it is empty")

    def place(self) -> Place:
        if self.i == self.num:  # ended: the flow below is at the end of the last pass
            return {"i": self.i - 1, "ds": self.up()}
        return {"i": self.i, "ds": self.up()}


class RepeatedData(ProxyDataFlow):
    """Yield the datapoints of a flow ``num`` times over: dp1, dp2, ... dpn, dp1, dp2, ... dpn.

    Each repetition is a new pass of ``ds``: what is shuffled is shuffled anew.

    >>> list(RepeatedData(DataFromList([[1], [2]], shuffle=False), 2))
    [[1], [2], [1], [2]]

    Its length is ``len(ds) * num``.

    Args:
        ds: any flow.
        num: how many times; 0 yields nothing, -1 never ends.

    Raises:
        ValueError: at construction, if ``num`` is below -1.
        EndlessLength: from ``len``, if ``num`` is -1.
        EmptyFlowError: while iterating, if ``num`` is -1 and ``ds`` yields nothing.
    """

    @renamed(nr="num")
    def __init__(self, ds: Any, num: int) -> None:
        super().__init__(ds)
        check.integer(-1, num=num)
        self.num = int(num)

    def __len__(self) -> int:
        if self.num == -1:
            raise EndlessLength(f"{self!r} never ends, so it has no length; cut it with FixedSizeData(ds, size)")
        return len(self.ds) * self.num

    def _walk(self, at: Place, run: Run) -> Walk:
        path = at["pass"]
        if self.num == 0:
            return iter(()), lambda: {"pass": path}
        again = Again(self, self.ds, run, path, at, self.num)
        return iter(again), lambda: {"pass": path, **again.place()}


class RepeatedDataPoint(ProxyDataFlow):
    """Yield each datapoint of a flow ``num`` times in a row: dp1, dp1, ..., dp2, dp2, ...

    >>> list(RepeatedDataPoint(DataFromList([[1], [2]], shuffle=False), 2))
    [[1], [1], [2], [2]]

    Each is a list or dict of its own; the components are the same objects. Its length is ``len(ds) * num``.

    Args:
        ds: any flow.
        num: how many times, at least 1.

    Raises:
        ValueError: at construction, if ``num`` is below 1.
    """

    _replays = True

    @renamed(nr="num")
    def __init__(self, ds: Any, num: int) -> None:
        super().__init__(ds)
        check.integer(1, num=num)
        self.num = int(num)

    def __len__(self) -> int:
        return len(self.ds) * self.num

    def _walk(self, at: Place, run: Run) -> Walk:
        path, given = at["pass"], at.get("given", 0)
        it, up = self.ds._walk(at.get("ds") or {"pass": path}, run)
        before = up()

        def rows() -> Iterator[Any]:
            nonlocal given, before
            for dp in it:
                while given < self.num:
                    given += 1
                    yield own(dp)
                before, given = up(), 0

        return rows(), lambda: {"pass": path, "given": given, "ds": before}


class FixedSizeData(ProxyDataFlow):
    """Yield exactly ``size`` datapoints of a flow in each pass, starting it again as often as needed.

    With ds = 1, 2, 3, 4, 5 and size 3, keep_state=True gives 1, 2, 3 then 4, 5, 1 then 2, 3, 4; keep_state=False
    gives 1, 2, 3 in every pass.

    >>> ds = FixedSizeData(DataFromList([[1], [2], [3]], shuffle=False), 2)
    >>> list(ds), list(ds)
    ([[1], [2]], [[3], [1]])

    With keep_state, a pass that is given up or fails in its middle continues, next time, behind the last datapoint
    received, and the passes of one flow cannot overlap. Its length is exact.

    Args:
        ds: any flow that is not empty.
        size: datapoints per pass, at least 1.
        keep_state: go on where the last pass ended; else each pass starts a new pass of ``ds``.

    Raises:
        ValueError: at construction, if ``size`` is below 1.
        EmptyFlowError: while iterating, if ``ds`` yields nothing.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps, with keep_state.
    """

    _transient = (*ProxyDataFlow._transient, "_kept", "_left_at")
    _kept: tuple[Again, Iterator[Any]] | None = None
    # Where to go on if that has failed: a place, and how many datapoints behind it.
    _left_at: tuple[Place, int] | None = None

    def __init__(self, ds: Any, size: int, keep_state: bool = True) -> None:
        super().__init__(ds)
        check.integer(1, size=size)
        check.flag(keep_state=keep_state)
        self._size = int(size)
        self.keep_state = keep_state
        self._carries = keep_state

    def __len__(self) -> int:
        return self._size

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._kept = self._left_at = None

    def _walk(self, at: Place, run: Run) -> Walk:
        path, n = at["pass"], at.get("n", 0)
        if not self.keep_state:
            again = Again(self, self.ds, run, path, at)
            it = iter(again)
        elif self._kept is None or "ds" in at:
            self._kept = None  # it holds what is below, which is about to be put elsewhere
            start, skip = (at, 0) if "ds" in at or self._left_at is None else self._left_at
            # A path of its own: passes of ds outlast the pass they began in.
            again = Again(self, self.ds, run, [], start)
            it = iter(again)
            deque(islice(it, skip), maxlen=0)
            self._kept, self._left_at = (again, it), None
        else:
            again, it = self._kept

        def rows() -> Iterator[Any]:
            nonlocal n
            below = graph(self.ds)
            mark, first = Mark(again.place, any(flow in below for flow in run.unordered)), n
            step = 1 if mark.exact else ROUND
            try:
                while n < self._size:
                    mark.note(n - first)
                    for dp in islice(it, min(step, self._size - n)):
                        n += 1
                        yield dp
            except GeneratorExit:  # the consumer has left: what is kept goes on
                raise
            except BaseException:  # Ctrl-C too: a generator that raised is finished
                left = mark.back(n - first)
                self._kept, self._left_at = None, left if goes_back(left[0]) else None
                raise

        place: Callable[[], Place] = lambda: {"pass": path, "n": n, **again.place()}  # noqa: E731
        return (Exclusive(self, rows(), run) if self.keep_state else rows()), place
