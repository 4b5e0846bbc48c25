"""Everything that can go wrong, named by who must act. Each class is also the builtin a caller would expect."""


class DataFlowError(Exception):
    """Base of every error that dataflow raises on purpose."""


class UsageError(DataFlowError, RuntimeError):
    """The caller did something a flow cannot serve; the message says what to do instead."""


class UnknownLength(DataFlowError, NotImplementedError, TypeError):
    """``len()`` of a flow that cannot know its length.

    It is a TypeError so that ``list(df)`` and ``tqdm(df)`` go on without a length.
    """


class EndlessLength(UnknownLength, ValueError):
    """``len()`` of a flow that never ends."""


class BatchError(DataFlowError, ValueError):
    """Datapoints that cannot be stacked into one batch."""


class EmptyFlowError(DataFlowError, ValueError):
    """A flow that must yield something, to be repeated or cached or cut, yielded nothing."""


class CorruptDataError(DataFlowError, ValueError):
    """Bytes that do not hold what they promise: a damaged file, record or image."""


class TooManyErrors(DataFlowError, RuntimeError):
    """A function raised at more datapoints of a pass than its ``on_error`` allows."""


class MissingKeyError(DataFlowError, KeyError):
    """A key that a data file or a datapoint does not hold."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would quote the whole message.
        return str(self.args[0]) if self.args else ""


class MissingPackageError(DataFlowError, ImportError):
    """An optional package is needed and not installed."""


class WorkerError(DataFlowError, RuntimeError):
    """Something went wrong in a worker, or with what one sent.

    Attributes:
        stage: the class or stage that the worker runs.
        worker: its index, from 0.
        pid: its process, or 0 for a thread.
    """

    def __init__(self, message: str, *, stage: str = "", worker: int = -1, pid: int = 0) -> None:
        super().__init__(message)
        self.stage, self.worker, self.pid = stage, worker, pid


class WorkerDied(WorkerError):
    """A worker ended before it had finished: killed, crashed, or left by ``sys.exit`` or ``os._exit``.

    Attributes:
        exitcode: as of ``subprocess``: negative for a signal; None if something else has collected it.
        samples: the numbers of the datapoints that were in flight.
    """

    exitcode: int | None = None
    samples: tuple[int, ...] = ()


class WorkerTimeout(WorkerError, TimeoutError):
    """A worker that had work gave no sign of life for ``timeout`` seconds, and was stopped.

    Attributes:
        stack: the Python stack of the worker when it was stopped.
        samples: the numbers of the datapoints that were in flight.
    """

    stack: str = ""
    samples: tuple[int, ...] = ()


class DataFlowTerminated(BaseException):
    """The flow can produce no more data because what it draws from was closed under it."""
