"""Run a flow in processes that talk to the consumer over socket pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..base import DataFlow, ProxyDataFlow, as_flow
from ..utils import check
from ..utils.old_names import renamed
from .runner import Runner


class ProcessRunner(Runner, ProxyDataFlow):
    """Run a flow in processes; base class of the runners that do.

    Args:
        ds: any flow.
        num_proc: how many processes.
        credit: datapoints that each may be ahead of the consumer.
        start_method: how they start.
        timeout: seconds that one may be silent.
        restarts: how many dead ones are replaced.
    """

    def __init__(
        self, ds: Any, num_proc: int, credit: int, start_method: str | None, timeout: float | None, restarts: int = 0
    ) -> None:
        self.ds = as_flow(ds)
        self.num_proc = int(num_proc)
        super().__init__(num_proc, credit, start_method, timeout, restarts)

    @property
    def _make(self) -> Callable[[], DataFlow]:
        return Copy(self.ds)

    def _replica(self) -> DataFlow:
        return self.ds


class Copy:
    """Return the copy of a flow that a process was given.

    Args:
        ds: the flow.
    """

    def __init__(self, ds: DataFlow) -> None:
        self.ds = ds

    def __call__(self) -> DataFlow:
        return self.ds


class MultiProcessRunner(ProcessRunner):
    """Run a whole flow in each of several processes, and yield what comes first.

    >>> df = MultiProcessRunner(DataFromList([[1], [2], [3]], shuffle=False), num_prefetch=10, num_proc=1)
    >>> list(df)
    [[1], [2], [3]]
    >>> df.close()

    A pass is ``len(ds)`` datapoints, or endless where ``ds`` has no length; its length is that of ``ds``.

    Guarantees:
        * One process yields what ``ds`` yields, in its order, pass after pass.
        * More processes run as many copies of the whole of ``ds``: each datapoint comes once from every one of them, in
          any order, and a pass may end in the middle of theirs. What is drawn at random differs between them. Fit for
          training on random samples. For each datapoint once, use ``MultiProcessMapData``.
        * Every process resets its copy once. ``ds`` itself is neither reset nor iterated in this process.
        * After a whole pass the copies run on. After a ``break`` they start anew: what they were asked for before is
          finished, and not delivered.
        * A position loads with the same ``num_proc`` only.
        * An error in a process is raised where its datapoint would come, and a process that dies is ``WorkerDied``.
        * The processes start in ``reset_state``, or in the first pass: before that, open no GPU that cannot be forked.
          They end with ``close``, when it is garbage collected, and with this process, however that ends.
        * A forked process starts processes of its own. Iterate it from one thread at a time.
        * Runners and maps nest: ``MultiProcessRunnerZMQ(MultiProcessRunner(df, 10, a), b)`` runs ``a * b`` copies.

    Args:
        ds: any flow. A copy of it goes to each process.
        num_prefetch: datapoints that all processes together are ahead, but at least one each.
        num_proc: how many processes.
        start_method: "fork" or "spawn"; None leaves it to ``set_start_method``.
        timeout: seconds that a process may take for a datapoint; None is for ever.
        restarts: how many dead processes are replaced, each by one that goes on behind what was received.

    Raises:
        TypeError, ValueError: at construction, if an argument is of the wrong kind, or a number below 1.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
        WorkerDied: while iterating, if a process is killed, or leaves by ``sys.exit``.
        WorkerTimeout: while iterating, if one takes longer than ``timeout``.
        Exception: while iterating, whatever ``ds`` raises, with the traceback of the process as its cause.
    """

    _kind = "process"

    @renamed(nr_prefetch="num_prefetch", nr_proc="num_proc")
    def __init__(
        self, ds: Any, num_prefetch: int, num_proc: int, *, start_method: str | None = None,
        timeout: float | None = None, restarts: int = 0,
    ) -> None:  # fmt: skip
        check.integer(1, num_prefetch=num_prefetch, num_proc=num_proc)
        self.num_prefetch = int(num_prefetch)
        super().__init__(ds, num_proc, -(-num_prefetch // num_proc), start_method, timeout, restarts)
