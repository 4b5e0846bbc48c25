"""Run or map a flow in threads: for functions that wait or release the GIL, as file, network and most of cv2 do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..base import DataFlow
from ..engine import Pool
from ..policies import ErrorPolicy
from ..utils import check
from ..utils.old_names import renamed
from .mapping import ParallelMap
from .replicas import ReplicaTask
from .runner import Runner


class MultiThreadRunner(Runner):
    """Make a flow in each of several threads, run them all, and yield what comes first.

    >>> def get_df():
    ...     return DataFromList([[1], [2], [3]], shuffle=False)
    >>> df = MultiThreadRunner(get_df, num_prefetch=10, num_thread=1)
    >>> list(df)
    [[1], [2], [3]]
    >>> df.close()

    A pass is as many datapoints as the flow of thread 0 is long, or endless if that is unknown; its length is the same.

    Guarantees:
        * One thread yields what its flow yields, in this order, pass after pass.
        * More threads run as many whole flows: each datapoint comes once from every one of them, in any order, and a
          pass may end in the middle of theirs. For each datapoint once, use ``MultiThreadMapData``.
        * Each thread calls ``get_df`` itself, resets its flow once, and is the only one to touch it.
        * After a whole pass the flows run on. After a ``break`` they start anew: what they were asked for before is
          finished, and not delivered.
        * An error in a thread is raised where its datapoint would come.
        * A forked process starts threads of its own. Iterate it from one thread at a time.

    Threads share one interpreter lock, so Python code does not run faster in them: use a process runner for that. A
    thread cannot be killed: one that hangs is left behind by ``close``.

    Args:
        get_df: returns a new flow at each call. It is called once in each thread, and once here if something
            is asked about the flow before the threads run, such as its length.
        num_prefetch: datapoints that all threads together are ahead, but at least one each.
        num_thread: how many threads.
        timeout: seconds that a thread may take for a datapoint; None is for ever.

    Raises:
        TypeError: at construction, if ``get_df`` cannot be called; at the start, if it returns no flow.
        ValueError: at construction, if a number is below 1.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
        WorkerTimeout: while iterating, if a thread takes longer than ``timeout``.
    """

    _transient = (*Runner._transient, "_sample")
    _kind = "thread"
    _sample: DataFlow | None = None

    @renamed(nr_prefetch="num_prefetch", nr_thread="num_thread")
    def __init__(
        self, get_df: Callable[[], DataFlow], num_prefetch: int, num_thread: int, *, timeout: float | None = None
    ) -> None:
        check.function(get_df=get_df)
        check.integer(1, num_prefetch=num_prefetch, num_thread=num_thread)
        self.get_df = get_df
        self.num_prefetch = int(num_prefetch)
        self.num_thread = int(num_thread)
        super().__init__(num_thread, -(-num_prefetch // num_thread), None, timeout)

    def __len__(self) -> int:
        return len(self._replica())

    def _children(self) -> list[DataFlow]:
        return [self._replica()]

    def _replica(self) -> DataFlow:
        """Return the flow of thread 0, or, before it runs, one like it."""
        if self._sample is None:
            self._sample = _checked(self.get_df)
        return self._sample

    @property
    def _make(self) -> Callable[[], DataFlow]:
        return partial(_checked, self.get_df)

    def _started(self, pool: Pool) -> Pool:
        super()._started(pool)
        pool.send(0, (0, None), slow=True)  # answered when there is a flow
        pool.receive()
        assert isinstance(pool.task, ReplicaTask)
        self._sample = pool.task.made[0]
        return pool


def _checked(get_df: Callable[[], DataFlow]) -> DataFlow:
    df = get_df()
    check.instance(DataFlow, "a function that returns a DataFlow", get_df=df)
    return df


class MultiThreadMapData(ParallelMap):
    """Apply a function to each datapoint in threads, and drop those for which it returns None.

    It is ``MapData`` but for the order, and a function that declares a parameter ``rng`` draws the same.

    >>> ds = DataFromList([[1], [2], [3]], shuffle=False)
    >>> df = MultiThreadMapData(ds, 2, lambda dp: [dp[0] * 10], strict=True, ordered=True)
    >>> list(df)
    [[10], [20], [30]]
    >>> df.close()

    Its length is ``len(ds)``, strict or not.

    Guarantees:
        * ``strict=True``: a pass holds exactly the datapoints of ``MapData(ds, map_func)``, each once, for every source
          and buffer. After a ``break`` the workers finish what they have in hand, and it is not delivered.
        * ``strict=False``: passes of ``ds`` follow each other without end, and the stream is a reordering of
          ``RepeatedData(MapData(ds, map_func), -1)``. The next ``iter`` goes on behind the datapoint received last.
        * ``ordered=True``: the order of ``ds``. Else the order in which they are done; one thread keeps the order too.
        * ``ds`` is read ahead, so it must not wait for its consumer, unless ``buffer_size`` is 1.
        * A position holds nothing that was read ahead, and loads with any number of threads.
        * ``ds`` is iterated by the consumer alone. ``map_func`` runs in several threads at once, so it must allow that.
        * A forked process starts threads of its own. Iterate it from one thread at a time.

    Threads share one interpreter lock: they help a function that waits, or computes outside of Python.
    ``MultiProcessRunnerZMQ(MultiThreadMapData(...), 1)`` takes them out of the main process.

    Args:
        ds: flow of lists or dicts.
        num_thread: how many threads. Required.
        map_func: datapoint -> datapoint | None. Required.
        buffer_size: datapoints that are on their way at most.
        strict: end after one pass of ``ds``.
        ordered: keep the order of ``ds``.
        timeout: seconds that a thread may take for a datapoint; None is for ever.
        on_error: what to do where ``map_func`` raises: ``Skip``, ``Replace`` or ``Retry``; None raises it.

    Raises:
        TypeError: at construction, if ``num_thread`` or ``map_func`` is missing or wrong.
        ValueError: at construction, if a number is below 1.
        EmptyFlowError: while iterating, if ``ds`` yields nothing and it is not strict.
        UsageError: while iterating, at the first ``next`` of a second pass that overlaps.
        WorkerTimeout: while iterating, if a thread takes longer than ``timeout``.
        TooManyErrors: while iterating, if ``on_error`` loses more datapoints than it allows.
        Exception: while iterating, whatever ``map_func`` raises, with a note that says at which datapoint.
    """

    _kind = "thread"

    @renamed(nr_thread="num_thread")
    def __init__(
        self, ds: Any, num_thread: Any = None, map_func: Any = None, *, buffer_size: int = 200, strict: bool = False,
        ordered: bool = False, timeout: float | None = None, on_error: ErrorPolicy | None = None,
    ) -> None:  # fmt: skip
        check.integer(1, num_thread=num_thread)
        self.num_thread = int(num_thread)
        super().__init__(ds, num_thread, map_func, buffer_size, strict, ordered, None, timeout, 0, on_error)
