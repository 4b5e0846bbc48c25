"""Flows that tell what passes through them: what it looks like, and how fast it comes."""

from __future__ import annotations

import sys
import textwrap
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from ..base import DataFlow, ProxyDataFlow
from ..errors import UsageError
from ..passes import Place, Run, Walk, graph, lost, refuse_lost
from ..utils import check
from ..utils.describe import describe, describe_one
from ..utils.old_names import renamed
from ..utils.progress import progress
from ..utils.speed import SpeedReport, measure


class PrintData(ProxyDataFlow):
    """Hand on a flow unchanged, and print what its first datapoints consist of.

    >>> ds = PrintData(DataFromList([[0.5, "a", [1, 2, 3]]], shuffle=False), max_list=2)
    >>> list(ds)
    Contents of DataFlow (DataFromList):
    datapoint 0/1 with 3 components consists of
      0: float with value 0.5
      1: str with value a
      2: list of len 3
        0: int with value 1
        1: int with value 2
        ...
    [[0.5, 'a', [1, 2, 3]]]

    It prints to stdout. Its length is ``len(ds)``. After the last datapoint that it prints it costs nothing.

    Args:
        ds: any flow.
        num: how many datapoints to print, counted from the last ``reset_state``.
        name: how to call the flow in the output, instead of by its class.
        max_depth: how deep to look into components that are nested.
        max_list: how many parts to show of a component that is a list, tuple or dict.

    Raises:
        ValueError: at construction, if a number is negative.
    """

    _transient = (*ProxyDataFlow._transient, "_printed")
    _printed = 0

    @renamed(label="name")
    def __init__(self, ds: Any, num: int = 1, name: str | None = None, max_depth: int = 3, max_list: int = 3) -> None:
        super().__init__(ds)
        check.integer(0, num=num, max_depth=max_depth, max_list=max_list)
        check.instance((str, type(None)), "a string", name=name)
        self.num = int(num)
        self.name = name
        self.max_depth = int(max_depth)
        self.max_list = int(max_list)

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._printed = 0

    def _walk(self, at: Place, run: Run) -> Walk:
        it, up = self.ds._walk(at, run)
        return (chain(self._shown(it), it) if self._printed < self.num else it), up

    def _shown(self, it: Iterator[Any]) -> Iterator[Any]:
        """Yield what is printed; the rest of ``it`` is left to others."""
        for dp in it:
            self._print(dp)
            yield dp
            if self._printed >= self.num:
                break

    def _print(self, dp: Any) -> None:
        lines = [] if self._printed else [f"Contents of DataFlow ({self.name or type(self.ds).__name__}):"]
        title = f"datapoint {self._printed}/{self.num}"
        self._printed += 1
        if isinstance(dp, list | tuple | dict):
            lines.append(f"{title} with {len(dp)} components consists of")
            lines.extend(describe(dp, self.max_depth, self.max_list))
        else:
            lines.append(f"{title} is no list or dict of components, but {describe_one(dp)}")
        _say("\n".join(lines))


class TestDataSpeed(ProxyDataFlow):
    """Measure how fast a flow is, then hand it on unchanged.

    ``start()`` runs the test; iterating runs it at the start of each pass, and then yields the whole pass. It takes
    ``warmup`` datapoints and measures up to ``size`` more; a flow that ends before is measured as far as it goes.

    >>> report = TestDataSpeed(FakeData([(8, 8)]), size=100, warmup=10).start()  # doctest: +ELLIPSIS
    Speed of FakeData(shapes=list of 1):
      100 datapoints in ...
    >>> report.datapoints, report.complete
    (100, True)

    The test takes nothing from the flow: it is put back where it was, so its passes are as if untested (but for a
    buffer or cache in the middle of a pass that was given up, which starts anew). A flow that reads a queue, or
    another source that cannot go back, cannot be put back. Then the datapoints of the test are kept in memory and
    yielded first by the iterator of this object; to iterate ``ds`` itself would miss them.

    Its length is ``len(ds)``.

    Args:
        ds: any flow.
        size: datapoints to measure, at least 1.
        warmup: datapoints to take before the clock starts.

    Raises:
        ValueError: at construction, if ``size`` is below 1 or ``warmup`` negative.
    """

    __test__ = False  # pytest collects classes that are called Test...
    _transient = (*ProxyDataFlow._transient, "_rest")
    # What a test has taken from a flow that cannot go back, and the pass that it took it from.
    _rest: tuple[deque[Any], Iterator[Any]] | None = None

    def __init__(self, ds: Any, size: int = 5000, warmup: int = 0) -> None:
        super().__init__(ds)
        check.integer(1, size=size)
        check.integer(0, warmup=warmup)
        self._size = int(size)
        self.warmup = int(warmup)

    def start(self) -> SpeedReport:
        """Run the test on a pass of ``ds``, print the report and return it.

        It shows a progress bar where stderr is a terminal.
        """
        if self._rest is not None:
            kept, it = self._rest
            return self._test(it, kept.append)
        ds = self.ds
        before = {name: getattr(ds, name) for name in ("_count", "_loaded", "_latest", "_pass", "_root_seed")}
        it = iter(ds)
        if not _has_position(ds):
            self._rest = deque(), it
            return self.start()
        try:
            return self._test(it)
        finally:
            ds.close()
            ds.reset_state()
            vars(ds).update(before)
            if before["_latest"] is not None and any(flow._carries for flow in graph(ds)):
                _carry_on(ds)

    def start_test(self) -> SpeedReport:
        """Run ``start()``; the old name."""
        warnings.warn("TestDataSpeed.start_test() is an old name, use start()", DeprecationWarning, stacklevel=2)
        return self.start()

    def close(self) -> None:
        super().close()
        self._rest = None

    def _walk(self, at: Place, run: Run) -> Walk:
        if self._rest is not None:
            return self._give_back(), lambda: lost(at["pass"], f"{self!r} has tested a flow that cannot go back")
        it, up = self.ds._walk(at, run)
        if at.keys() != {"pass"}:  # the middle of a pass: the test is over
            return it, up
        start = up()
        if not _can_go_to(start):
            self._rest = deque(), it
            self._test(it, self._rest[0].append)
            return self._give_back(), up
        self._test(it)
        del it
        # What keeps a buffer or a cache has gone on; after a reset, every place leads where it led before.
        self.ds.reset_state()
        return self.ds._walk(start, run)

    def _test(self, it: Iterator[Any], keep: Callable[[Any], None] | None = None) -> SpeedReport:
        with progress(self.warmup + self._size, "TestDataSpeed") as bar:

            def received(dp: Any) -> None:
                if keep is not None:
                    keep(dp)
                bar.update()

            report = measure(it, self._size, self.warmup, received)
        _say(f"Speed of {self.ds!r}:\n{textwrap.indent(str(report), '  ')}")
        return report

    def _give_back(self) -> Iterator[Any]:
        """Yield what the test took, then the rest of its pass; the next pass goes on if this one is given up."""
        if self._rest is None:
            return
        kept, it = self._rest
        while kept:
            yield kept.popleft()
        for dp in it:  # noqa: UP028  # `yield from` would close it together with this pass
            yield dp
        self._rest = None


def _has_position(ds: DataFlow) -> bool:
    try:
        ds.state_dict()
    except UsageError:
        return False
    return True


def _can_go_to(place: Place) -> bool:
    try:
        refuse_lost(place)
    except UsageError:
        return False
    return True


def _carry_on(ds: DataFlow) -> None:
    """Let the next pass start with what the last one has left in caches and buffers, unless it was given up."""
    state = ds.state_dict()
    if state["done"]:
        ds._loaded = state


def _say(text: str) -> None:
    """Print, also where stdout cannot show every character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))
