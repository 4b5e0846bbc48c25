"""What a map does with a datapoint at which its function raises, other than to raise: skip, replace, try again.

A policy is an argument of the map, ``on_error=Skip(at_most=10)``. The worker applies it, beside the function, and
answers what it did; the consumer counts that in the order of delivery in an ``ErrorReport``, and raises when there were
too many. So the stream is the same for any number of workers, and nothing is dropped that is not told::

    worker: func(dp) raises --> settled(policy, error, Trial(dp, ...)) --> result | None, Settled
                                                                                        |
    consumer: map --> ErrorReport.note(Settled): count, warn at the first, TooManyErrors <--+
"""

from __future__ import annotations

import copy
import inspect
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .errors import TooManyErrors
from .utils import check
from .utils.remote_error import summary

logger = logging.getLogger(__name__)

Errors = type[Exception] | tuple[type[Exception], ...]

# Errors that a report keeps, and characters of the message of each.
KEPT, LONGEST_TEXT = 10, 300
# Seconds between two tries at most.
LONGEST_WAIT = 60.0


class Trial(NamedTuple):
    """A call of the function that raised."""

    dp: Any
    number: int  # of the datapoint, from 0
    again: Callable[[], Any]  # calls it once more, with the same random numbers
    sleep: Callable[[float], None] = time.sleep


class Settled(NamedTuple):
    """What became of a datapoint at which the function raised.

    Attributes:
        number: which datapoint it was, from 0.
        fate: "skipped", "replaced" or "retried".
        error: type and message of the exception that decided it, and where it was raised.
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
        kinds = only if isinstance(only, tuple) else (only,)
        for kind in kinds or (only,):
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError(f"only must be a class of exceptions, or a tuple of them, got {check.seen(kind)}")
        if at_most is not None:
            check.integer(0, at_most=at_most)
        self.only = only
        self.at_most = at_most

    @abstractmethod
    def settle(self, error: Exception, trial: Trial) -> tuple[Any, Settled]:
        """Return what comes in place of the result, and what became of the datapoint, or raise.

        Args:
            error: what the function raised, an instance of ``only``.
            trial: the call.
        """

    def __repr__(self) -> str:
        options = inspect.signature(type(self)).parameters.items()
        given = [f"{name}={vars(self)[name]!r}" for name, option in options if vars(self)[name] != option.default]
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
        at_most: how many of a pass of the map, before ``TooManyErrors`` is raised; None is any number. A pass that is
            resumed from a state counts from there, or from the place before it that it goes back to after an error; a
            repeated flow is as many passes.
        only: class, or tuple of classes, of the exceptions that are skipped. Others are raised.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``at_most`` is negative.
    """

    def __init__(self, at_most: int | None = 100, *, only: Errors = Exception) -> None:
        super().__init__(only, at_most)

    def settle(self, error: Exception, trial: Trial) -> tuple[Any, Settled]:
        return None, Settled(trial.number, "skipped", words(error))


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
            by = copy.deepcopy(by)
        self.by = by
        super().__init__(only, at_most)

    def settle(self, error: Exception, trial: Trial) -> tuple[Any, Settled]:
        settled = Settled(trial.number, "replaced", words(error))
        return self.by(trial.dp, error) if callable(self.by) else copy.deepcopy(self.by), settled


class Retry(ErrorPolicy):
    """Call the function again on a datapoint at which it raised: for networks and file systems that fail at times.

    A function that draws from ``rng`` draws the same again, so that a retry leaves no trace in the stream. It gets the
    same datapoint: what it had changed in it, in place, it finds changed.

    >>> ds = DataFromList([[1], [2]], shuffle=False)
    >>> df = MapData(ds, FailsOnce(2), on_error=Retry(3, wait=0))
    >>> list(df)
    [[1], [2]]
    >>> df.error_report.retried
    1

    Args:
        times: how often, at least 1.
        wait: seconds before the first retry, twice as long before each further one, up to a minute.
        only: class, or tuple of classes, of the exceptions after which it is tried again. Others go to ``then``.
        then: what to do with a datapoint that fails even so: ``Skip`` or ``Replace``; None raises its last error.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if ``times`` is below 1 or ``wait`` is not from 0 to 60.
    """

    def __init__(
        self, times: int, *, wait: float = 0.1, only: Errors = Exception, then: Skip | Replace | None = None
    ) -> None:
        check.integer(1, times=times)
        check.instance((int, float), "a number of seconds", wait=wait)
        if not 0 <= wait <= LONGEST_WAIT:
            raise ValueError(f"wait must be from 0 to {LONGEST_WAIT:g} seconds, got {wait}")
        check.instance((Skip, Replace, type(None)), "Skip(...), Replace(...) or None", then=then)
        self.times = int(times)
        self.wait = float(wait)
        self.then = then
        super().__init__(only, None if then is None else then.at_most)

    def settle(self, error: Exception, trial: Trial) -> tuple[Any, Settled]:
        try:
            for i in range(self.times):
                if not isinstance(error, self.only):
                    break
                trial.sleep(min(self.wait * 2.0 ** min(i, 64), LONGEST_WAIT))
                try:
                    return trial.again(), Settled(trial.number, "retried", words(error))
                except Exception as last:
                    error = last
            return settled(self.then, error, trial)
        finally:
            del error  # which refers to this frame, and so to all that the function had in hand


def settled(policy: ErrorPolicy | None, error: Exception, trial: Trial) -> tuple[Any, Settled]:
    """Return what comes in place of a result, and what became of the datapoint, or raise."""
    try:
        if policy is None or not (isinstance(policy, Retry) or isinstance(error, policy.only)):
            raise error
        return policy.settle(error, trial)
    finally:
        del error


def words(error: Exception) -> str:
    """Return an exception in a line: its type and message, and where it was raised."""
    text = "".join(c if c.isprintable() else " " for c in summary(error)[: LONGEST_TEXT * 2])
    text = " ".join(text.split())
    if len(text) > LONGEST_TEXT:
        text = f"{text[: LONGEST_TEXT - 3]}..."
    if (trace := error.__traceback__) is None:
        return text
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return f"{text} ({Path(code.co_filename).name}:{trace.tb_lineno} in {code.co_name})"


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
        loud: warn at the first one; else it is no more than an information.
    """

    def __init__(self, stage: str, at_most: float | None, *, loud: bool = True) -> None:
        self._stage = stage
        self._at_most = math.inf if at_most is None else at_most
        self._loud = loud
        self.skipped = 0
        self.replaced = 0
        self.retried = 0
        self.first: list[Settled] = []

    @property
    def still_loud(self) -> bool:
        """Whether nobody has been warned yet."""
        return self._loud and not self.first

    def note(self, settled: Settled) -> None:
        """Count one.

        Raises:
            TooManyErrors: if it is one too many.
        """
        if not self.first:
            level = logging.WARNING if self._loud else logging.INFO
            logger.log(level, "%s: %s. Further ones are counted in its error_report.", self._stage, settled)
        if len(self.first) < KEPT:
            self.first.append(settled)
        setattr(self, settled.fate, getattr(self, settled.fate) + 1)
        if settled.fate != "retried" and self.skipped + self.replaced > self._at_most:
            raise TooManyErrors(
                f"{self._stage}: {settled}. That is one more than its on_error allows in a pass, "
                f"at_most={self._at_most}. The first ones are in its error_report. If they are fewer than you can do "
                "without, allow more; at_most=None allows any number."
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

    def _new_report(self, policy: ErrorPolicy) -> ErrorReport:
        """Begin the report of a pass; who is warned once is not warned in each pass."""
        loud = self._report is None or self._report.still_loud
        self._report = ErrorReport(repr(self), policy.at_most, loud=loud)
        return self._report


def checked(on_error: Any) -> ErrorPolicy | None:
    """Return the argument of a map, or raise unless it is a policy or None."""
    wanted = "Skip(...), Replace(...), Retry(...) or None"
    check.instance((ErrorPolicy, type(None)), wanted, on_error=on_error)
    policy: ErrorPolicy | None = on_error
    return policy
