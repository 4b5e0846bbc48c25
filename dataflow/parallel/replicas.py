"""What runs in the workers of a runner: a whole flow, frame by frame as it is asked for; runner.py draws the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from ..base import DataFlow
from ..engine import Context, Task
from ..passes import Part, Place, Run, _inside
from ..proxies.repeat import Again
from ..utils.row_list import RowList
from .feed import read_some


class Start(NamedTuple):
    """Where a replica starts: how its flows are numbered, its place, and how many datapoints to leave out."""

    part: Part
    outer: tuple[int, ...]
    place: Place
    skip: int
    reset: bool  # whether it is to be reset before


class Rows(NamedTuple):
    """A frame: the place of the replica, how many datapoints behind it to leave out, and the datapoints."""

    place: Place
    skip: int
    rows: list[Any]


class ReplicaTask(Task):
    """Run a flow and answer each request with a frame of it; what the workers of a runner run.

    Args:
        make: returns the replica; called once in each worker.
    """

    def __init__(self, make: Callable[[], DataFlow]) -> None:
        self.make = make
        self.made: dict[int, DataFlow] = {}

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Any]:
        ds = self.made[context.worker] = _inside(None, self.make)
        stream: Stream | None = None
        try:
            _inside(None, ds.reset_state)
            for limit, start in inbox:
                if start is not None:
                    stream = None  # lets go of what it holds
                    if start.reset:
                        _inside(None, ds.reset_state)
                    stream = _inside(None, Stream, ds, start, context)
                yield _inside(None, stream.read, limit) if stream else None
        finally:
            ds.close()

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        return [("dp", dp) for dp in message.rows] if isinstance(message, Rows) else ()


class Stream:
    """A replica on its way, pass after pass."""

    def __init__(self, ds: DataFlow, start: Start, context: Context) -> None:
        self._run = Run.of_replica(ds, start.part, (*start.outer, context.worker))
        self._run.in_order = True  # since its position is a place and a count
        self._name = Named(context.stage)
        self._context = context
        self._error: Exception | None = None
        if "after" in start.place:  # what flows carry over from a pass that was given up, they find as it was left
            self._go(ds, *start.place["after"])
        self._go(ds, start.place, start.skip)

    def _go(self, ds: DataFlow, place: Place, skip: int) -> None:
        self._path = place["path"]
        self._again = Again(self._name, ds, self._run, self._path, place)
        self._it = iter(self._context.each(self._again))
        next(islice(self._it, skip, skip), None)

    def read(self, limit: int) -> Rows:
        """Return a frame of up to ``limit`` datapoints, fewer if they come slowly.

        Raises:
            Exception: what the flow raised, once the datapoints before it are read.
        """
        if self._error is not None:
            raise self._error
        place = {"path": self._path, **self._again.place()}
        rows = RowList()
        try:
            read_some(self._it, limit, rows)
        except Exception as error:
            if not rows:
                raise
            self._error = error
        return Rows(place, 0, rows)


class Named(DataFlow):
    """Stand for the runner in a worker's messages."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError
