"""What a worker runs: the one interface between the engine and everything that uses it."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Context(NamedTuple):
    """Who runs a task: worker number ``worker`` of ``workers``, in ``stage``."""

    worker: int
    workers: int
    stage: str
    timeout: float | None = None  # seconds that it may be silent
    alive: Callable[[], None] | None = None  # breaks the silence, where there is a timeout

    def each(self, items: Iterable[Any]) -> Iterable[Any]:
        """Return ``items``; who iterates them shows after each that this worker is alive."""
        return items if self.alive is None else self._each(items, self.alive)

    @staticmethod
    def _each(items: Iterable[Any], alive: Callable[[], None]) -> Iterator[Any]:
        for item in items:
            yield item
            alive()

    def sleep(self, seconds: float) -> None:
        """Sleep, but show meanwhile that this worker is alive."""
        stop = time.monotonic() + seconds
        while self.alive is not None and self.timeout is not None and seconds > self.timeout / 4:
            time.sleep(self.timeout / 4)
            self.alive()
            seconds = stop - time.monotonic()
        time.sleep(max(0.0, seconds))

    def note(self, error: BaseException, number: int) -> None:
        """Note on ``error`` that it happened at datapoint ``number``; a task that knows it calls this and re-raises."""
        error.add_note(f"in {self.stage}, worker {self.worker} (pid {os.getpid()}), datapoint {number}")


class Task(ABC):
    """What a worker runs. It must pickle by cloudpickle; the threads of a pool share one object."""

    @abstractmethod
    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Any]:
        """Yield messages to the pool; called once in each worker.

        ``inbox`` yields what ``Pool.send`` sent to this worker, in order, and ends when the pool closes. A task
        either answers each message with exactly one of its own, in order, or leaves the inbox alone and yields what
        it likes: from that the pool knows which samples are in flight, and who has work.
        """

    def parts(self, message: Any) -> Iterable[tuple[str, Any]]:
        """Name the datapoints in a message, either way; used only to say which of them cannot be pickled."""
        return [("dp", message)]
