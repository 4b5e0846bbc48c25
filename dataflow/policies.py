"""What a map does with a datapoint at which its function raises, other than to raise: skip, replace, try again.

A policy is an argument of the map, ``on_error=Skip(at_most=10)``. The worker applies it, beside the function, and
answers what it did; the consumer counts that in the order of delivery in an ``ErrorReport``, and raises when there were
too many. So the stream is the same for any number of workers, and nothing is dropped that is not told::

    worker: func(dp) raises --> settled(policy, error, dp, again) --> result | None, Settled
                                                                                        |
    consumer: map --> ErrorReport.note(Settled): count, warn at the first, TooManyErrors <--+
"""

from __future__ import annotations

import copy
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

from .errors import TooManyErrors
from .utils import check

logger = logging.getLogger(__name__)

Errors = type[Exception] | tuple[type[Exception], ...]

# Errors that a report keeps.
KEPT = 10
# Characters of a message that a report keeps.
LONGEST = 300


class Settled(NamedTuple):
    """What became of a datapoint at which the function raised.

    Attributes:
        number: which datapoint it was, from 0.
        fate: "skipped", "replaced" or "retried".
        error: type and message of the exception, and where it was raised.
    """

    number: int
    fate: str
    error: str

    def __str__(self) -> str:
        return f"datapoint {self.number} was {self.fate}: {self.error}"


class ErrorPolicy(ABC):
    """What to do when a function raises; base class of ``Skip``, ``Replace`` and ``Retry``.

    Args:
        only: class, or tuple of classes, of the exceptions that it is for. Others are raised.
        at_most: how many datapoints of a pass may be lost to it; None is any number.
    """

    def __init__(self, only: Errors, at_most: int | None) -> None:
        for kind in only if isinstance(only, tuple) else (only,):
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError(f"only must be a class of exceptions, or a tuple of them, got {check.seen(kind)}")
        if at_most is not None:
            check.integer(0, at_most=at_most)
        self.only = only
        self.at_most = at_most

    @abstractmethod
    def settle(self, error: Exception, dp: Any, again: Callable[[], Any]) -> tuple[Any, str]:
        """Return the result for ``dp`` and its fate, or raise.

        Args:
            error: what the function raised, an instance of ``only``.
            dp: the datapoint.
            again: calls the function on it once more, with the same random numbers.
        """

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in vars(self).items() if value not in (None, Exception)]
        return f"{type(self).__name__}({', '.join(given)})"


class Skip(ErrorPolicy):
    """Drop datapoints at which the function raises.

    >>> ds = DataFromList([["1"], ["one"], ["3"]], shuffle=False)
    >>> df = MapData(ds, lambda dp: [int(dp[0])], on_error=Skip(at_most=1))
    >>> list(df)
    [[1], [3]]
    >>> df.error_report.skipped
    1

    Args:
        at_most: how many of a pass, before ``TooManyErrors`` is raised; None is any number. A pass that is resumed
            from a state counts from there.
        only: class, or tuple of classes, of the exceptions that are skipped. Others are raised.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``at_most`` is negative.
    """

    def __init__(self, at_most: int | None = 100, *, only: Errors = Exception) -> None:
        super().__init__(only, at_most)

    def settle(self, error: Exception, dp: Any, again: Callable[[], Any]) -> tuple[Any, str]:  # noqa: ARG002
        return None, "skipped"


class Replace(ErrorPolicy):
    """Put another datapoint in place of one at which the function raises.

    >>> ds = DataFromList([["1"], ["one"], ["3"]], shuffle=False)
    >>> list(MapData(ds, lambda dp: [int(dp[0])], on_error=Replace([0])))
    [[1], [0], [3]]
    >>> list(MapData(ds, lambda dp: [int(dp[0])], on_error=Replace(lambda dp, error: [len(dp[0])])))
    [[1], [3], [3]]

    Args:
        by: a datapoint, of which each gets a copy; or a function (datapoint, error) -> datapoint | None, which is
            called in the worker. What it raises is raised.
        at_most: as in ``Skip``.
        only: as in ``Skip``.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``at_most`` is negative.
    """

    def __init__(self, by: Any, at_most: int | None = 100, *, only: Errors = Exception) -> None:
        if not callable(by):
            check.instance((list, tuple, dict), "a datapoint or a function that makes one", by=by)
        self.by = by
        super().__init__(only, at_most)

    def settle(self, error: Exception, dp: Any, again: Callable[[], Any]) -> tuple[Any, str]:  # noqa: ARG002
        return self.by(dp, error) if callable(self.by) else copy.deepcopy(self.by), "replaced"


class Retry(ErrorPolicy):
    """Call the function again on a datapoint at which it raised: for networks and file systems that fail at times.

    A function that draws from ``rng`` draws the same again, so that a retry leaves no trace in the stream. It gets the
    same datapoint: if it has changed arrays in place before it raised, it finds them changed.

    >>> ds = DataFromList([[1], [2]], shuffle=False)
    >>> df = MapData(ds, FailsOnce(2), on_error=Retry(3, wait=0))
    >>> list(df)
    [[1], [2]]
    >>> df.error_report.retried
    1

    Args:
        times: how often, at least 1.
        wait: seconds before the first retry, twice as long before each further one.
        only: class, or tuple of classes, of the exceptions after which it is tried again. Others go to ``then``.
        then: what to do with a datapoint that fails even so: ``Skip`` or ``Replace``; None raises its last error.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``times`` is below 1 or ``wait`` below 0.
    """

    def __init__(
        self, times: int, *, wait: float = 0.1, only: Errors = Exception, then: ErrorPolicy | None = None
    ) -> None:
        check.integer(1, times=times)
        check.instance((int, float), "a number of seconds", wait=wait)
        if not wait >= 0:
            raise ValueError(f"wait must be at least 0 seconds, got {wait}")
        self.times = int(times)
        self.wait = float(wait)
        self.then = checked(then=then)
        super().__init__(only, then.at_most if then is not None else None)

    def settle(self, error: Exception, dp: Any, again: Callable[[], Any]) -> tuple[Any, str]:
        for i in range(self.times):
            time.sleep(self.wait * 2**i)
            try:
                return again(), "retried"
            except Exception as last:
                error = last
                if not isinstance(error, self.only):
                    break
        return _applied(self.then, error, dp, again)


def checked(**policy: Any) -> ErrorPolicy | None:
    """Return the one argument, or raise unless it is a policy or None."""
    ((name, value),) = policy.items()
    if value is not None and not isinstance(value, ErrorPolicy):
        raise TypeError(f"{name} must be Skip(...), Replace(...), Retry(...) or None, got {check.seen(value)}")
    return value


def settled(
    policy: ErrorPolicy, error: Exception, dp: Any, again: Callable[[], Any], number: int
) -> tuple[Any, Settled]:
    """Return the result for datapoint ``number``, at which a function raised ``error``, and its fate; or raise."""
    result, fate = _applied(policy, error, dp, again)
    return result, Settled(number, fate, _words(error))


def _applied(policy: ErrorPolicy | None, error: Exception, dp: Any, again: Callable[[], Any]) -> tuple[Any, str]:
    if isinstance(policy, Retry) and not isinstance(error, policy.only):
        policy = policy.then
    if policy is None or not isinstance(error, policy.only):
        raise error
    return policy.settle(error, dp, again)


def _words(error: Exception) -> str:
    """Return an exception in a line: its type and message, and where it was raised."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 3]}..."
    *_, (frame, line) = walk_tb(error.__traceback__)
    return f"{text} ({Path(frame.f_code.co_filename).name}:{line} in {frame.f_code.co_name})"


class ErrorReport:
    """What became of the datapoints of one pass at which a function raised, up to those that are being delivered.

    Attributes:
        skipped: how many were dropped.
        replaced: how many were replaced.
        retried: how many were served by trying again.
        first: the first ten of them, each with ``number``, ``fate`` and ``error``.

    Args:
        stage: the map.
        at_most: how many may be skipped or replaced; None is any number.
    """

    def __init__(self, stage: str, at_most: int | None) -> None:
        self._stage = stage
        self._at_most = at_most
        self.skipped = 0
        self.replaced = 0
        self.retried = 0
        self.first: list[Settled] = []

    def note(self, settled: Settled) -> None:
        """Count one.

        Raises:
            TooManyErrors: if it is one too many.
        """
        if not self.first:
            logger.warning("%s: %s. Further ones are counted in its error_report.", self._stage, settled)
        if len(self.first) < KEPT:
            self.first.append(settled)
        setattr(self, settled.fate, getattr(self, settled.fate) + 1)
        if settled.fate != "retried" and self._at_most is not None and self.skipped + self.replaced > self._at_most:
            raise TooManyErrors(
                f"{self._stage}: {settled}. That is one more than its on_error allows in a pass, "
                f"at_most={self._at_most}. Look at the first ones in its error_report; None would allow any number."
            )

    def __str__(self) -> str:
        counts = f"{self.skipped} skipped, {self.replaced} replaced, {self.retried} retried"
        return "\n  ".join([f"{self._stage}: {counts}", *map(str, self.first)])

    def __repr__(self) -> str:
        return f"<ErrorReport {self}>"


class Forgiving:
    """A map that has a policy for errors, and reports on it."""

    on_error: ErrorPolicy | None = None
    _report: ErrorReport | None = None

    @property
    def error_report(self) -> ErrorReport:
        """What became of the datapoints at which the function raised, in the latest pass of this flow."""
        return self._report or ErrorReport(repr(self), None)

    def _new_report(self) -> ErrorReport:
        """Begin the report of a pass."""
        self._report = ErrorReport(repr(self), self.on_error.at_most if self.on_error is not None else None)
        return self._report
