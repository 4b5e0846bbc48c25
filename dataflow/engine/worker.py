"""What happens in a worker, be it a thread or a process: one task runs from its beginning to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from .crew import Kind
from .task import Context, Task

# Takes an exception; a message in a list, to be taken out; or None.
Emit = Callable[[Kind, Any], None]


class HungUp(BaseException):  # it is no error
    """Nobody listens to this worker any more. No task can mistake it for an error of its own."""


def work(task: Task, inbox: Iterator[Any], context: Context, emit: Emit) -> None:
    """Run ``task`` and emit what it yields, then that it ended or failed.

    Raises:
        SystemExit: if the task did. Whoever leaves does not finish, so it counts as a death.
    """
    if context.timeout is not None:
        context = context._replace(alive=_Pulse(emit, context.timeout / 4))
    try:
        emit(Kind.READY, None)
        _run(task, inbox, context, emit)
    except (HungUp, SystemExit) as leaving:
        if isinstance(leaving, SystemExit):
            raise
    except BaseException as error:
        emit(Kind.ERROR, _never_silent(error, context))
    else:
        emit(Kind.END, None)


class _Pulse:
    """Emits a sign of life, but not more often than ``every`` seconds."""

    def __init__(self, emit: Emit, every: float) -> None:
        self._emit, self._every, self._last = emit, every, time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._last > self._every:
            self._last = now
            self._emit(Kind.ALIVE, None)


def _run(task: Task, inbox: Iterator[Any], context: Context, emit: Emit) -> None:
    messages = task.run(inbox, context)
    try:
        for message in messages:
            box = [message]
            del message
            emit(Kind.MESSAGE, box)  # who takes it out is the last to hold it
    finally:
        # The clean-up of a generator belongs to this worker, and to this moment.
        if (close := getattr(messages, "close", None)) is not None:
            close()


def _never_silent(error: BaseException, context: Context) -> BaseException:
    """Return ``error``, or what stands for a StopIteration, which would end the loop of the consumer."""
    if not isinstance(error, StopIteration):
        return error
    cause = RuntimeError(f"the task of {context.stage} raised StopIteration")
    cause.__cause__ = error
    return cause
