"""Workers that are no workers: everything runs in the caller, when it waits. For debugging, and as the reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import UsageError
from .crew import Crew, Event, Kind
from .task import Context, Task


class InlineCrew(Crew):
    """Run the tasks in turns, in the caller: those with messages in the order of these, or all of them."""

    def __init__(self, task: Task, workers: int, stage: str) -> None:
        super().__init__(task, workers, stage)
        self._inboxes = [deque[Any]() for _ in self.contexts]
        self._runs: dict[int, Iterator[Any]] = {}
        self._turns: deque[int] = deque()
        self._fed = False

    def start(self) -> None:
        self._runs = {
            context.worker: _begin(self.task, _drain(inbox, context.stage), context)
            for inbox, context in zip(self._inboxes, self.contexts, strict=True)
        }
        self._turns.extend(self._runs)

    def send(self, worker: int, message: Any) -> None:
        if not self._fed:  # from now on it is the messages that say whose turn it is
            self._turns.clear()
            self._fed = True
        self._inboxes[worker].append(message)
        self._turns.append(worker)

    def wait(self, timeout: float | None) -> Iterable[int]:
        if timeout == 0:
            return ()
        if not self._turns:
            raise UsageError(f"{self.contexts[0].stage} waits for an answer, and nothing was sent that is unanswered")
        worker = self._turns.popleft()
        if worker not in self._runs:
            return ()
        try:
            event = Event(worker, Kind.MESSAGE, next(self._runs[worker]))
        except StopIteration:
            del self._runs[worker]
            event = Event(worker, Kind.END)
        except Exception as error:
            event = Event(worker, Kind.ERROR, error)
        if not self._fed and event.kind is Kind.MESSAGE:
            self._turns.append(worker)
        self.events.append(event)
        return (worker,)

    def give_up(self, worker: int) -> str:  # noqa: ARG002  # nobody is left to call it when the caller is stuck
        return ""

    def _stop(self, alone: bool) -> None:
        while self._runs and alone:
            _, run = self._runs.popitem()
            if (close := getattr(run, "close", None)) is not None:
                close()


def _begin(task: Task, inbox: Iterator[Any], context: Context) -> Iterator[Any]:
    yield from task.run(inbox, context)  # only when it is asked for, as elsewhere


def _drain(inbox: deque[Any], stage: str) -> Iterator[Any]:
    while inbox:
        yield inbox.popleft()
    raise UsageError(f"the task of {stage} asks for a message before it has answered the one before")
