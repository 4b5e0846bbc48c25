"""Datapoints that come out of any Python object: an iterable, a generator, a queue."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from itertools import repeat, starmap
from typing import Any

from ..base import DataFlow, length
from ..passes import Exclusive, Place, Run, Walk, counted, locate, lost
from ..utils import check
from .memory import copier_of, in_order


class DataFromIterable(DataFlow):
    """Yield the datapoints of an iterable.

    >>> list(DataFromIterable(range(3)))
    [0, 1, 2]

    Its length is that of the iterable, if it has one. A datapoint that is a list or dict is copied, one level deep, as
    the iterable may be a container that keeps it. An iterator, such as a generator object, can be iterated once only:
    a second pass is empty, with a warning, and there is no position to save.

    Args:
        iterable: what ``iter`` takes.

    Raises:
        TypeError: at construction, if ``iterable`` is not iterable, or is text.
        UsageError: from ``state_dict``, if ``iterable`` is an iterator; while iterating one, if two passes overlap.
    """

    _transient = (*DataFlow._transient, "_begun")
    _begun = False

    def __init__(self, iterable: Iterable[Any]) -> None:
        if not _is_iterable(iterable):
            hint = "; for a function that returns an iterable, DataFromGenerator" if callable(iterable) else ""
            raise TypeError(f"iterable must be an iterable of datapoints, got {check.seen(iterable)}{hint}")
        self.iterable = iterable

    def __len__(self) -> int:
        size = length(self.iterable)  # type: ignore[arg-type]  # whatever has a length
        return super().__len__() if size is None else size

    def _walk(self, at: Place, run: Run) -> Walk:
        return _walk(self, self.iterable, at, run)

    def _open(self) -> Iterable[Any]:
        return self.iterable


class DataFromGenerator(DataFlow):
    """Yield the datapoints of a generator.

    >>> def rows():
    ...     yield [1]
    ...     yield [2]
    >>> df = DataFromGenerator(rows)
    >>> list(df), list(df)
    ([[1], [2]], [[1], [2]])

    Pass the generator function, as above, and not the generator object that it returns: an object can be iterated once
    only, so a second pass is empty, with a warning, and there is no position to save. Its length is unknown.

    Args:
        gen: a callable that returns an iterable, called once for each pass; or an iterable.
        size: ignored; it is accepted because it once was the length.

    Raises:
        TypeError: at construction, if ``gen`` is neither iterable nor callable; while iterating, if it returns
            something that is not iterable.
        UsageError: from ``state_dict``, if ``gen`` is an iterator; while iterating one, if two passes overlap.
    """

    _transient = (*DataFlow._transient, "_begun")
    _begun = False

    def __init__(self, gen: Any, *, size: Any = None) -> None:
        if not callable(gen) and not _is_iterable(gen):
            raise TypeError(f"gen must be an iterable, or a callable that returns one, got {check.seen(gen)}")
        if size is not None:
            warnings.warn(
                "DataFromGenerator has no length any more and ignores size; cut it with FixedSizeData(ds, size)",
                DeprecationWarning,
                stacklevel=2,
            )
        self.gen = gen

    def _walk(self, at: Place, run: Run) -> Walk:
        if _is_iterable(self.gen):
            return _walk(self, self.gen, at, run)
        return _again(self, at, run)

    def _open(self) -> Any:
        rows = self.gen if _is_iterable(self.gen) else self.gen()
        if not _is_iterable(rows):
            raise TypeError(f"gen must return an iterable of datapoints, but {self!r} got {check.seen(rows)}")
        return rows


class DataFromQueue(DataFlow):
    """Yield what comes out of a queue, for ever.

    >>> import queue
    >>> tasks = queue.Queue()
    >>> tasks.put([1])
    >>> next(iter(DataFromQueue(tasks)))
    [1]

    It waits while the queue is empty. Its length is unknown, its passes share the queue, and it has no position.

    Args:
        queue: an object with a method ``get()``, such as ``queue.Queue``.

    Raises:
        TypeError: at construction, if ``queue`` has no ``get``.
        UsageError: from ``state_dict``.
    """

    def __init__(self, queue: Any) -> None:
        if not callable(getattr(queue, "get", None)):
            raise TypeError(f"queue must have a method get(), got {check.seen(queue)}; for others, DataFromIterable")
        self.queue = queue

    def _walk(self, at: Place, run: Run) -> Walk:  # noqa: ARG002  # draws nothing
        why = (
            f"{self!r} cannot put back what it took out of the queue. Let whoever fills the queue save its position, "
            "or iterate a callable with DataFromGenerator"
        )
        return starmap(self.queue.get, repeat(())), lambda: lost(at["pass"], why)


def _is_iterable(x: Any) -> bool:
    """Say whether ``iter`` takes ``x`` and gives datapoints; a class is not what its instances are, text is none."""
    kind = type(x)
    return not isinstance(x, str | bytes | type) and (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__"))


def _walk(flow: DataFromIterable | DataFromGenerator, source: Any, at: Place, run: Run) -> Walk:
    """Walk ``source`` for ``flow``, as cheaply as what it is allows."""
    if isinstance(source, DataFlow):
        return source._walk(at, run)
    if isinstance(source, Iterator):
        return _once(flow, source, at, run)
    if type(source) in (list, tuple, range):
        rows, place = in_order(source, at)
    else:
        rows, place = _again(flow, at, run)
    return map(copier_of(source), rows), place


# The code of a user may iterate flows of its own: these belong to the pass, as in an ``__iter__`` of a class.
_again = counted(lambda flow: iter(flow._open()))


def _once(flow: DataFromIterable | DataFromGenerator, source: Iterator[Any], at: Place, run: Run) -> Walk:
    """Walk what can be walked but once."""
    why = (
        f"{flow!r} reads an iterator, which cannot start again. Pass a callable that makes a new one: "
        "DataFromGenerator(rows), not DataFromGenerator(rows())"
    )

    def rows() -> Iterator[Any]:
        n, begun, flow._begun = 0, flow._begun, True
        try:
            for n, dp in enumerate(source, 1):  # noqa: B007  # n is read after the loop
                yield dp
        except Exception as error:
            locate(error, flow, n)
            raise
        if begun and not n:
            warnings.warn(f"this pass is empty: {why}", UserWarning, stacklevel=3)

    return Exclusive(flow, rows(), run), lambda: lost(at["pass"], why)
