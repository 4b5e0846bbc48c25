"""What a pool asks of the workers of one kind, and what it hears from them."""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from .task import Context, Task


class Kind(enum.IntEnum):
    """What a worker has to say."""

    READY = 0  # it is up, and about to call Task.run
    MESSAGE = 1
    END = 2  # Task.run has returned
    ERROR = 3  # Task.run has raised; the exception
    DEATH = 4  # it is gone without one of the two above; a Death
    SHARED = 5  # as MESSAGE, with the arrays in blocks of the arena
    FREE = 6  # the other way: blocks that the consumer needs no longer
    ALIVE = 7  # it is at work, where there is a timeout


class Death(NamedTuple):
    """How a worker went."""

    exitcode: int | None
    stack: str = ""


class Event(NamedTuple):
    """One thing that a worker said, as it came in."""

    worker: int
    kind: Kind
    payload: Any = None
    size: int = 0


# Lets go of what a copy of the consumer has received, which is of no use to a worker.
Forget = Callable[[], None]


class Crew(ABC):
    """The workers of one pool. It must not refer to the pool, whose end stops it."""

    def __init__(self, task: Task, workers: int, stage: str, timeout: float | None = None) -> None:
        self.task = task
        self.contexts = [Context(worker, workers, stage, timeout) for worker in range(workers)]
        self.events: deque[Event] = deque()
        self.stopped = False
        # Held by the thread that is inside of `send` or `receive`: what it uses is freed by no other one.
        self.gate = threading.RLock()
        self.inside = False  # True while it works there: then a signal handler that interrupts it must not free either

    @abstractmethod
    def start(self) -> None:
        """Start every worker."""

    def pack(self, message: Any) -> tuple[Any, int]:
        """Return what is sent in place of a message, and its size in bytes."""
        return message, 0

    @abstractmethod
    def send(self, worker: int, message: Any) -> None:
        """Put a packed message into a worker's inbox, without ever blocking."""

    @abstractmethod
    def wait(self, timeout: float | None) -> Iterable[int]:
        """Wait until a worker is heard from, move what is there to ``events``, and return who it was."""

    def open(self, event: Event) -> Any:
        """Return the message in an event."""
        return event.payload

    def pid(self, worker: int) -> int:  # noqa: ARG002  # threads have none of their own
        """Return the process of a worker, or 0."""
        return 0

    def restart(self, worker: int, forget: Forget | None) -> None:  # processes only
        """Start a worker again that is dead, with an empty inbox; one that is forked calls ``forget`` first."""
        raise NotImplementedError(f"{type(self).__name__} cannot restart worker {worker}")

    @abstractmethod
    def give_up(self, worker: int) -> str:
        """Stop a worker that is stuck, as far as that is possible, and return its Python stack."""

    def stop(self) -> None:
        """End every worker and free everything; harmless when repeated.

        Where somebody is inside, the workers end, which wakes it, and it calls this again for the rest.
        """
        self.stopped = True
        entered = self.gate.acquire(blocking=False)
        try:
            self._stop(alone=entered and not self.inside)
        finally:
            if entered:
                self.gate.release()

    @abstractmethod
    def _stop(self, alone: bool) -> None:
        """End every worker; if nobody is inside, also free what is used there."""
