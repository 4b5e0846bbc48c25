"""Run or map a flow in processes that talk to the consumer over ZeroMQ."""

from __future__ import annotations

from typing import Any

from ..policies import ErrorPolicy
from ..utils import check
from ..utils.old_names import renamed
from .batching import ParallelMapAndBatch
from .mapping import ParallelMap
from .processes import ProcessRunner


class MultiProcessRunnerZMQ(ProcessRunner):
    """Run a whole flow in each of several processes, and yield what comes first, over ZeroMQ.

    >>> df = MultiProcessRunnerZMQ(DataFromList([[1], [2], [3]], shuffle=False), num_proc=1)
    >>> list(df)
    [[1], [2], [3]]
    >>> df.close()

    A pass is ``len(ds)`` datapoints, or endless where ``ds`` has no length; its length is that of ``ds``.

    Guarantees: those of ``MultiProcessRunner``. The sockets are files in a private folder, which is made in the folder
    that ``DATAFLOW_PIPEDIR`` (or ``TENSORPACK_PIPEDIR``) names, else in the temporary one; it should be a local disk.

    Args:
        ds: any flow. A copy of it goes to each process.
        num_proc: how many processes.
        hwm: datapoints that each process is ahead; the "high-water mark".
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

    _kind = "zmq"

    @renamed(nr_proc="num_proc")
    def __init__(
        self, ds: Any, num_proc: int = 1, hwm: int = 50, *, start_method: str | None = None,
        timeout: float | None = None, restarts: int = 0,
    ) -> None:  # fmt: skip
        check.integer(1, num_proc=num_proc, hwm=hwm)
        self.hwm = int(hwm)
        super().__init__(ds, num_proc, hwm, start_method, timeout, restarts)


class MultiProcessMapDataZMQ(ParallelMap):
    """Apply a function to each datapoint in processes, and drop those for which it returns None.

    It is ``MapData`` but for the order, and a function that declares a parameter ``rng`` draws the same.

    >>> ds = DataFromList([[1], [2], [3]], shuffle=False)
    >>> df = MultiProcessMapDataZMQ(ds, 1, lambda dp: [dp[0] * 10], strict=True)
    >>> list(df)
    [[10], [20], [30]]
    >>> df.close()

    Its length is ``len(ds)``, strict or not.

    Guarantees:
        * ``strict=True``: a pass holds exactly the datapoints of ``MapData(ds, map_func)``, each once, for every source
          and buffer. After a ``break`` the workers finish what they have in hand, and it is not delivered.
        * ``strict=False``: passes of ``ds`` follow each other without end, and the stream is a reordering of
          ``RepeatedData(MapData(ds, map_func), -1)``. The next ``iter`` goes on behind the datapoint received last.
        * ``ordered=True``: the order of ``ds``. Else the order in which they are done; one process keeps the order too.
        * ``ds`` is read ahead, so it must not wait for its consumer, unless ``buffer_size`` is 1.
        * A position holds nothing that was read ahead, and loads with any number of processes.
        * ``ds`` is iterated in this process, by the consumer alone. Only ``map_func`` goes to the processes.
        * An error of ``map_func`` is raised where its datapoint would come, and a process that dies is ``WorkerDied``.
        * The processes start in ``reset_state``, or in the first pass: before that, open no GPU that cannot be forked.
          They end with ``close``, when it is garbage collected, and with this process, however that ends.
        * A forked process starts processes of its own. Iterate it from one thread at a time.

    Datapoints are pickled both ways: where that costs more than the function, use ``MapData``.

    Args:
        ds: flow of lists or dicts.
        num_proc: how many processes. Required.
        map_func: datapoint -> datapoint | None. Required.
        buffer_size: datapoints that are on their way at most.
        strict: end after one pass of ``ds``.
        ordered: keep the order of ``ds``.
        start_method: "fork" or "spawn"; None leaves it to ``set_start_method``.
        timeout: seconds that a process may take for a datapoint; None is for ever.
        restarts: how many dead processes are replaced; what one had in hand is done again.
        on_error: what to do where ``map_func`` raises: ``Skip``, ``Replace`` or ``Retry``; None raises it.

    Raises:
        TypeError: at construction, if ``num_proc`` or ``map_func`` is missing or wrong.
        ValueError: at construction, if a number is below 1.
        EmptyFlowError: while iterating, if ``ds`` yields nothing and it is not strict.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
        WorkerDied: while iterating, if a process is killed, or leaves by ``sys.exit``.
        WorkerTimeout: while iterating, if one takes longer than ``timeout``.
        TooManyErrors: while iterating, if ``on_error`` loses more datapoints than it allows.
        Exception: while iterating, whatever ``map_func`` raises, with a note that says at which datapoint.
    """

    _kind = "zmq"

    @renamed(nr_proc="num_proc")
    def __init__(
        self, ds: Any, num_proc: Any = None, map_func: Any = None, *, buffer_size: int = 200, strict: bool = False,
        ordered: bool = False, start_method: str | None = None, timeout: float | None = None, restarts: int = 0,
        on_error: ErrorPolicy | None = None,
    ) -> None:  # fmt: skip
        check.integer(1, num_proc=num_proc)
        self.num_proc = int(num_proc)
        super().__init__(
            ds, num_proc, map_func, buffer_size, strict, ordered, start_method, timeout, restarts, on_error
        )


class MultiProcessMapAndBatchDataZMQ(ParallelMapAndBatch):
    """Apply a function to each datapoint and stack the results into batches, in processes.

    >>> ds = DataFromList([[0], [1], [2], [3], [4]], shuffle=False)
    >>> df = MultiProcessMapAndBatchDataZMQ(ds, 1, lambda dp: [dp[0] * 10], 2)
    >>> list(df)
    [[array([ 0, 10], dtype=int32)], [array([20, 30], dtype=int32)]]
    >>> df.close()

    Its length is that of ``BatchData``: ``len(ds) // batch_size``, one more for a remainder; too large where datapoints
    are dropped.

    Guarantees:
        * A pass is finite: the full batches that the datapoints of one pass of ``ds`` make, each datapoint in one.
        * One process yields exactly what ``BatchData(MapData(ds, map_func), batch_size)`` yields. More processes
          yield as many batches, with the datapoints grouped in any order.
        * ``ordered=True`` yields exactly that with any number of processes; it stacks in this process.
        * The rest is as with ``MultiProcessMapData``.

    Args:
        ds: flow of lists or dicts.
        num_proc: how many processes.
        map_func: datapoint -> datapoint | None.
        batch_size: datapoints per batch, at least 1.
        buffer_size: datapoints, not batches, that are on their way at most; ten batches if not given.
        remainder: also yield what is left at the end as a smaller batch; else it is dropped.
        ordered: keep the order of ``ds``.
        start_method: "fork" or "spawn"; None leaves it to ``set_start_method``.
        timeout: seconds that a process may take for a datapoint; None is for ever.
        restarts: how many dead processes are replaced; what one had in hand is done again, and batches are stacked
            in this process.
        on_error: what to do where ``map_func`` raises: ``Skip``, ``Replace`` or ``Retry``; None raises it.

    Raises:
        TypeError: at construction, if an argument is of the wrong kind.
        ValueError: at construction, if a number is below 1, or ``batch_size`` without remainder above ``len(ds)``.
        BatchError: while iterating, if results cannot be stacked; see ``BatchData``.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
        WorkerDied: while iterating, if a process is killed, or leaves by ``sys.exit``.
        WorkerTimeout: while iterating, if one takes longer than ``timeout``.
        TooManyErrors: while iterating, if ``on_error`` loses more datapoints than it allows.
        Exception: while iterating, whatever ``map_func`` raises, with a note that says at which datapoint.
    """

    _kind = "zmq"

    @renamed(nr_proc="num_proc")
    def __init__(
        self, ds: Any, num_proc: int, map_func: Any, batch_size: int, buffer_size: int | None = None, *,
        remainder: bool = False, ordered: bool = False, start_method: str | None = None,
        timeout: float | None = None, restarts: int = 0, on_error: ErrorPolicy | None = None,
    ) -> None:  # fmt: skip
        check.integer(1, num_proc=num_proc)
        self.num_proc = int(num_proc)
        super().__init__(
            ds, num_proc, map_func, batch_size, buffer_size, remainder, ordered, start_method, timeout, restarts,
            on_error,
        )  # fmt: skip
