"""Batch datapoints of equal shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from ..base import ProxyDataFlow
from ..passes import Exclusive, Place, Run, Walk, below, locate
from ..utils import check
from .batch import BatchData
from .component import look_up

# The place of the flow below is noted every so many datapoints, so that to find one again at most so many are read.
STRETCH = 256
# Its number, which gives the order, and where it starts.
Stretch = tuple[int, Place]


class _Groups:
    """The datapoints that wait for more of their shape, each with where it can be read again.

    The flow below is read in stretches. A datapoint, of whatever pass, is found by the place where its stretch starts
    and by its offset from there.
    """

    def __init__(self) -> None:
        self.by_shape: defaultdict[Any, list[tuple[Any, Stretch, int]]] = defaultdict(list)
        self._numbers = count()

    def stretch(self, start: Place) -> Stretch:
        """Begin a stretch at a place of the flow below."""
        return next(self._numbers), start

    def place(self) -> list[Any]:
        """Return ``[start, offsets]`` of each stretch that has datapoints waiting, oldest first."""
        starts: dict[int, Place] = {}
        offsets: defaultdict[int, list[int]] = defaultdict(list)
        for group in self.by_shape.values():
            for _, (number, start), offset in group:
                starts[number] = start
                offsets[number].append(offset)
        return [[starts[number], sorted(offsets[number])] for number in sorted(starts)]


class BatchDataByShape(BatchData):
    """Stack each ``batch_size`` datapoints that have the same shape, whatever comes between them.

    A batch comes as soon as its last datapoint does. Datapoints whose batch is not full at the end of a pass wait for
    the next one, so that none is lost; those of a rare shape may wait for ever.

    >>> ds = DataFromList([[np.zeros(2)], [np.zeros(3)], [np.zeros(2)]], shuffle=False)
    >>> ds = BatchDataByShape(ds, 2, idx=0)
    >>> [dp[0].shape for dp in ds], [dp[0].shape for dp in ds]
    ([(2, 2)], [(2, 3), (2, 2)])

    Its length is ``len(ds) // batch_size``, roughly the size of a pass. Its passes cannot overlap.

    Args:
        ds: flow of lists or dicts; ``dp[idx]`` is an array.
        batch_size: datapoints per batch, at least 1.
        idx: index or key of the component whose shape counts. The others must be fit to be stacked; see ``BatchData``.

    Raises:
        ValueError: at construction, if ``batch_size`` is below 1.
        TypeError: while iterating, if a component ``idx`` has no shape.
        IndexError: while iterating, if a datapoint has no such component (KeyError for a dict).
        BatchError: while iterating, if other components differ within a batch.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
    """

    _transient = (*BatchData._transient, "_kept")
    _kept: _Groups | None = None
    _carries = True
    _replays = True

    def __init__(self, ds: Any, batch_size: int, idx: Any) -> None:
        # Not BatchData's, which refuses a batch that is larger than a pass: here it fills up over several.
        ProxyDataFlow.__init__(self, ds)
        check.integer(1, batch_size=batch_size)
        self.batch_size = int(batch_size)
        self.remainder = self.use_list = False
        self.idx = idx

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._kept = None

    def _walk(self, at: Place, run: Run) -> Walk:
        path, n = at["pass"], at.get("n", 0)
        if self._kept is None or "waiting" in at:
            self._kept = self._read_again(at.get("waiting", []), run)
        groups = self._kept
        it, up = self.ds._walk(below(at), run)

        def batches() -> Iterator[Any]:
            nonlocal n
            first = n - STRETCH
            while n - first == STRETCH:
                first, stretch = n, groups.stretch(up())
                for n, dp in enumerate(islice(it, STRETCH), n + 1):
                    try:
                        shape = dp[self.idx].shape
                        group = groups.by_shape[shape]
                    except Exception as error:
                        raise self._explained(error, dp, n - 1) from None
                    group.append((dp, stretch, n - 1 - first))
                    if len(group) == self.batch_size:
                        yield self._stacked([dp for dp, _, _ in groups.by_shape.pop(shape)], n - 1)

        return Exclusive(self, batches(), run), lambda: {"pass": path, "n": n, "ds": up(), "waiting": groups.place()}

    def _read_again(self, waiting: list[Any], run: Run) -> _Groups:
        """Return the groups that ``_Groups.place`` told of."""
        groups = _Groups()
        for start, offsets in waiting:
            stretch, wanted = groups.stretch(start), {*offsets}
            it = self.ds._walk(start, run)[0]
            for offset, dp in enumerate(islice(it, max(offsets) + 1)):
                if offset in wanted:
                    groups.by_shape[dp[self.idx].shape].append((dp, stretch, offset))
        return groups

    def _explained(self, error: Exception, dp: Any, number: int) -> Exception:
        """Say of an error where it happened, and of a missing shape what to do."""
        if isinstance(error, AttributeError):
            error = TypeError(
                f"component {self.idx!r} must be an array to be grouped by its shape, got {check.seen(dp[self.idx])}. "
                f"Name another with idx, or make it one, e.g. MapDataComponent(ds, np.asarray, index={self.idx!r})"
            )
        else:
            try:
                look_up(dp, self.idx, "idx")
            except Exception as missing:
                error = missing
        locate(error, self, number)
        return error
