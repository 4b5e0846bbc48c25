"""The faults, as programs: ``python program.py FAULT KIND METHOD`` makes one happen and checks what follows.

It runs alone, without the repository's tests on its path, as a script of a user does. What it raises is the verdict:
``SilentLoss``, ``Leftover``, or any other error.
"""
# ruff: noqa: T201  # it prints to its supervisor

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import multiprocessing
import os
import pathlib
import random
import resource
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, NoReturn

import numpy as np

import dataflow
from dataflow.errors import UsageError, WorkerDied, WorkerError, WorkerTimeout

PROCESSES = ("process", "zmq-map", "zmq-run", "zmq-batch")
ALL = ("thread-map", "thread-run", *PROCESSES)
RUNNERS = ("process", "zmq-run")
ROWS = 200
BAD = 17  # the datapoint at which a fault happens
PROMPT = 2.0  # seconds for the error, and for the clean-up
Flow = Any


class SilentLoss(AssertionError):
    """Data is missing, twice there, or out of order, and nothing was said."""


class Leftover(AssertionError):
    """Something was still there ``PROMPT`` seconds after the end."""


class Fault(NamedTuple):
    """A program, for which kinds it makes sense, and how it ends."""

    run: Callable[[], None]
    kinds: tuple[str, ...]
    send: int | None
    to_group: bool
    code: int


FAULTS: dict[str, Fault] = {}


def fault(
    kinds: tuple[str, ...] = ALL, send: int | None = None, to_group: bool = False, code: int = 0
) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(run: Callable[[], None]) -> Callable[[], None]:
        FAULTS[run.__name__] = Fault(run, kinds, send, to_group, code)
        return run

    return register


# What the programs are made of


def numbers(rows: int = ROWS) -> Flow:
    return dataflow.DataFromList([[i] for i in range(rows)], shuffle=False)


def build(func: Callable[[Any], Any] | None = None, ds: Flow = None, workers: int = 2, **options: Any) -> Flow:
    """Build the flow that is tried, with ``func`` in its workers."""
    ds = numbers() if ds is None else ds
    func = func or same
    if KIND == "thread-map":
        return dataflow.MultiThreadMapData(ds, workers, func, buffer_size=20, strict=True, ordered=True, **options)
    if KIND == "zmq-map":
        return dataflow.MultiProcessMapDataZMQ(ds, workers, func, buffer_size=20, strict=True, ordered=True, **options)
    if KIND == "zmq-batch":
        return dataflow.MultiProcessMapAndBatchDataZMQ(ds, workers, func, 4, ordered=True, **options)
    ds = dataflow.MapData(ds, func)
    if KIND == "thread-run":
        return dataflow.MultiThreadRunner(lambda: ds, 20, workers, **options)
    if KIND == "process":
        return dataflow.MultiProcessRunner(ds, 20, workers, **options)
    return dataflow.MultiProcessRunnerZMQ(ds, workers, 10, **options)


def same(dp: Any) -> Any:
    return dp


def say(word: str) -> None:
    print(word, flush=True)


def now_it_happens() -> None:
    """Note the time in a file, for the bound; a worker that is spawned has no other way to tell."""
    mine = f"{MARK}-{os.getpid()}-{threading.get_ident()}"
    pathlib.Path(mine).write_text(repr(time.monotonic()))
    with contextlib.suppress(FileExistsError):  # whole from the start, for one who reads it meanwhile
        os.link(mine, MARK)


def at_bad(do: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a function that does ``do`` to one datapoint and nothing to the others."""

    def func(dp: Any) -> Any:
        if dp[0] != BAD:
            return dp
        now_it_happens()
        return do(dp)

    return func


def receive(df: Iterable[Any], into: list[int]) -> None:
    """Receive one pass, or what is left of it."""
    for dp in df:
        into.extend(np.ravel(dp[0]).tolist())


def check_order(received: list[int]) -> None:
    """Raise unless this is the beginning of what one worker sends, or of what two full copies send."""
    copies = 2 if KIND in RUNNERS or KIND == "thread-run" else 1
    counts = Counter(received)
    values = sorted(counts)
    falling = all(counts[a] >= counts[b] for a, b in itertools.pairwise(values))
    complete = values == [*range(len(values))] and falling and max(counts.values(), default=0) <= copies
    if not complete or (copies == 1 and received != values):
        raise SilentLoss(f"received {received}")


def fails(
    df: Flow, kind: type[BaseException] | tuple[type[BaseException], ...], *parts: str, extra: float = 0.0
) -> BaseException:
    """Iterate ``df``: it must raise ``kind``, in time, with these parts in its text, and lose nothing before."""
    received: list[int] = []
    start = time.monotonic()
    try:
        receive(df, received)
    except kind as error:
        end = time.monotonic()
        caught = error
    else:
        raise SilentLoss(f"no error; received {received}")
    start = float(pathlib.Path(MARK).read_text()) if os.path.exists(MARK) else start
    assert end - start < PROMPT + extra, f"the error took {end - start:.2f} s"
    check_order(received)
    said = "\n".join([str(caught), *getattr(caught, "__notes__", [])])
    for part in parts:
        assert part in said, f"{part!r} is not in {said!r}"
    return caught


def dies(df: Flow, *parts: str) -> None:
    """Iterate ``df``: a worker of it must be reported dead, with all that helps."""
    error = fails(df, WorkerDied, "worker ", type(df).__name__, *parts)
    assert isinstance(error, WorkerDied)
    assert f"(pid {error.pid})" in str(error)
    assert error.pid > 0
    if "map" in KIND:
        assert BAD + 1 in error.samples or BAD in error.samples, error.samples
        assert "in flight" in str(error)


def children() -> Iterator[str]:
    """Yield the processes that this one has started, zombies included."""
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has just ended
            yield from (task / "children").read_text().split()


def possessions() -> dict[str, Any]:
    """Return what this process holds."""
    links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    return {
        "children": sorted(children()),
        "descriptors": sorted(os.readlink(link) for link in links if os.path.islink(link)),
        "threads": len(threading.enumerate()),
        "sockets": os.listdir(os.environ["DATAFLOW_PIPEDIR"]),
    }


@contextlib.contextmanager
def nothing_is_left() -> Iterator[None]:
    """Check that what is there before is there after, soon, whatever happened in between."""
    before = possessions()
    yield
    pathlib.Path(MARK).unlink(missing_ok=True)
    deadline = time.monotonic() + PROMPT
    while gc.collect() >= 0 and (left := possessions()) != before:
        if time.monotonic() > deadline:
            raise Leftover(f"{left} where {before} was")
        time.sleep(0.005)


# A worker dies


@fault(PROCESSES)
def killed() -> None:
    with nothing_is_left():
        dies(build(at_bad(lambda dp: os.kill(os.getpid(), signal.SIGKILL))), "SIGKILL")


@fault(PROCESSES)
def crashes() -> None:
    with nothing_is_left():
        dies(build(at_bad(lambda dp: ctypes.string_at(0))), "SIGSEGV")


@fault(PROCESSES)
def leaves_at_once() -> None:
    with nothing_is_left():
        dies(build(at_bad(lambda dp: os._exit(0))), "exited with 0", "os._exit")


@fault()
def calls_sys_exit() -> None:
    with nothing_is_left():
        df = build(at_bad(lambda dp: sys.exit(3)))
        if KIND.startswith("thread"):
            fails(df, WorkerDied, "exited with 3", "sys.exit")
        else:
            dies(df, "exited with 3", "sys.exit")


# Something raises


class TwoArguments(Exception):
    def __init__(self, what: str, where: str) -> None:
        super().__init__(f"{what} in {where}")


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Irreducible(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("no parts")


class Keywords(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class NoError(BaseException):
    pass


def caused() -> Exception:
    error = ValueError("the effect")
    error.__cause__ = KeyError("the cause")
    return error


def local() -> Exception:
    class Local(Exception):
        pass

    return Local("made in a function")


# name: how it is made, what it comes out as, and what it says
ERRORS: dict[str, tuple[Callable[[], BaseException], tuple[type[BaseException], ...], str]] = {
    "two arguments": (lambda: TwoArguments("hole", "bucket"), (TwoArguments, WorkerError), "hole in bucket"),
    "unpicklable": (lambda: Unpicklable("a lock inside"), (Unpicklable, WorkerError), "a lock inside"),
    "group": (lambda: ExceptionGroup("both", [ValueError("one"), KeyError("two")]), (ExceptionGroup,), "both"),
    "key": (lambda: KeyError("absent"), (KeyError,), "absent"),
    "irreducible": (lambda: Irreducible("in one piece"), (Irreducible, WorkerError), "in one piece"),
    "keywords": (lambda: Keywords(code=7), (Keywords, WorkerError), "code 7"),
    "no error": (lambda: NoError("and yet raised"), (NoError,), "and yet raised"),
    "local": (local, (Exception,), "made in a function"),
    "caused": (caused, (ValueError,), "the effect"),
    "system": (lambda: FileNotFoundError(2, "No such file", "x.jpg"), (FileNotFoundError,), "x.jpg"),
    "unicode": (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad byte"), (UnicodeDecodeError,), "bad byte"),
    "stop": (lambda: StopIteration("enough"), (RuntimeError,), ""),
}


def each_error(
    make: Callable[[Callable[[], NoReturn]], Flow], stop: tuple[type[BaseException], ...] = (RuntimeError,)
) -> None:
    """Build a flow for each kind of error, with a function that raises it.

    A StopIteration has to come out as one of ``stop``: out of ``next`` it would be a silent end, out of ``iter`` it
    is none.
    """
    few = PART or METHOD != "fork"  # a new interpreter for each takes its time
    for name in random.sample([*ERRORS], 3) if few else ERRORS:
        error, kinds, says = ERRORS[name]

        def throw(error: Callable[[], BaseException] = error) -> NoReturn:
            now_it_happens()
            raise error()

        with nothing_is_left():
            try:
                caught = fails(make(throw), BaseException, says)
            except AssertionError as failed:
                failed.add_note(f"with an error of the kind {name!r}")
                raise
            assert isinstance(caught, stop if name == "stop" else kinds), f"{name}: {caught!r}"
            del caught  # its traceback holds the iterator


@fault()
def func_raises() -> None:
    each_error(lambda throw: build(at_bad(lambda dp: throw())))


class Faulty(dataflow.DataFlow):
    """A source that calls ``throw`` in one of its methods."""

    def __init__(self, throw: Callable[[], NoReturn], where: str) -> None:
        self.throw, self.where = throw, where

    def reset_state(self) -> None:
        super().reset_state()
        if self.where == "reset_state":
            self.throw()

    def __len__(self) -> int:
        return ROWS

    def __iter__(self) -> Iterator[Any]:
        for i in range(ROWS):
            if i == BAD and self.where == "iter":
                self.throw()
            yield [i]


@fault()
def source_raises() -> None:
    each_error(lambda throw: build(ds=Faulty(throw, "iter")))


@fault()
def reset_state_raises() -> None:
    each_error(lambda throw: build(ds=Faulty(throw, "reset_state")), stop=(RuntimeError, StopIteration))


@fault(("thread-run",))
def get_df_raises() -> None:
    each_error(lambda throw: dataflow.MultiThreadRunner(throw, 20, 2))


# Something does not pickle


@fault(PROCESSES)
def unpicklable_result() -> None:
    place = "dp[1]['lock']" if KIND != "zmq-batch" else "lock"
    with nothing_is_left():
        fails(build(at_bad(lambda dp: [dp[0], {"lock": threading.Lock()}])), Exception, place)


@fault(PROCESSES)
def unpicklable_func() -> None:
    lock = threading.Lock()
    with nothing_is_left():
        df = build(lambda dp: dp if lock else None)
        if METHOD == "fork":  # nothing is pickled
            received: list[int] = []
            receive(df, received)
            check_order(received)
            df.close()
        else:
            fails(df, TypeError, "lock")


def explode() -> NoReturn:
    raise ValueError("no way back")


class OneWay:
    def __reduce__(self) -> Any:
        return explode, ()


@fault(("process", "zmq-map", "zmq-run"))
def result_does_not_unpickle() -> None:
    with nothing_is_left():
        fails(build(at_bad(lambda dp: [OneWay()])), WorkerError, "worker ", "pid", "no way back")


# A worker hangs


def stuck_here() -> None:
    time.sleep(1000)


def stuck_in_c() -> None:
    sum(range(10**11))  # it holds the GIL all the time


@fault()
def stuck() -> None:
    def hang(dp: Any) -> None:
        stuck_here()

    with contextlib.nullcontext() if KIND.startswith("thread") else nothing_is_left():  # a thread cannot be killed
        error = fails(build(at_bad(hang), timeout=0.4), WorkerTimeout, "0.4 s", "stuck_here", extra=0.4)
        assert isinstance(error, WorkerTimeout)
        assert "stuck_here" in error.stack
        del error


@fault(PROCESSES)
def stuck_with_the_gil() -> None:
    with nothing_is_left():
        fails(build(at_bad(lambda dp: stuck_in_c()), timeout=0.4), WorkerTimeout, "stuck_in_c", extra=0.4)


# The consumer goes


def wait_for_ever(hang: Callable[[], None] = stuck_here) -> None:
    """Wait for a datapoint that does not come; the supervisor is told, and sends its signal."""

    def func(dp: Any) -> Any:
        if dp[0] == BAD:
            # Until all workers have connected, ZeroMQ's files are there, and nobody could remove them after SIGKILL.
            deadline = time.monotonic() + PROMPT
            while os.listdir(os.environ["DATAFLOW_PIPEDIR"]) and time.monotonic() < deadline:
                time.sleep(0.001)
            say("ready")
            hang()
        return dp

    receive(build(func), [])


@fault(PROCESSES, send=signal.SIGKILL, code=-signal.SIGKILL)
def consumer_killed() -> None:
    wait_for_ever()


@fault(PROCESSES, send=signal.SIGKILL, code=-signal.SIGKILL)
def consumer_killed_while_the_gil_is_held() -> None:
    wait_for_ever(stuck_in_c)


@fault(send=signal.SIGTERM, code=-signal.SIGTERM)
def consumer_terminated() -> None:
    wait_for_ever()


@fault(send=signal.SIGINT, code=-signal.SIGINT)
def interrupted() -> None:
    wait_for_ever()


@fault(send=signal.SIGINT, to_group=True, code=-signal.SIGINT)
def interrupted_with_its_group() -> None:
    wait_for_ever()


@fault(PROCESSES, send=signal.SIGINT, to_group=True)
def interrupted_and_goes_on() -> None:
    with nothing_is_left():
        try:
            wait_for_ever()
        except KeyboardInterrupt:
            return_to_work = True
        assert return_to_work
    with nothing_is_left():
        received: list[int] = []
        receive(build(), received)
        check_order(received)


@fault()
def interrupted_at_any_moment() -> None:
    """Interrupt a pass at moments all over its life, while another thread runs, which may be handed the signal."""
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    # In the middle of a weak reference's callback, say, Python itself drops the interrupt, and says so.
    sys.unraisablehook = lambda _: None

    def one_pass() -> None:
        df = build(lambda dp: time.sleep(0.001) or dp)
        try:
            receive(df, [])
        finally:
            df.close()

    start = time.monotonic()
    one_pass()
    whole = time.monotonic() - start
    caught = 0
    moments = [i / 16 for i in range(1, 16)]
    for moment in random.sample(moments, 3) if PART else moments:
        with nothing_is_left():
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, whole * moment)
                    one_pass()
                finally:  # where the alarm may still come
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                caught += 1
    assert caught > 3 or PART, caught
    received: list[int] = []
    receive(build(), received)
    check_order(received)


@fault()
def closed_by_another_thread() -> None:
    with nothing_is_left():
        df = build(lambda dp: time.sleep(0.01) or dp)
        closer = threading.Timer(0.2, df.close)
        it = iter(df)
        next(it)  # before its workers run there is nothing to close
        closer.start()
        start = time.monotonic()
        # Between two datapoints the pass just ends, as with any generator that is closed.
        with contextlib.suppress(UsageError):
            receive(it, [])
        assert time.monotonic() - start < PROMPT, "it went on"
        closer.join()
        received: list[int] = []
        receive(df, received)
        check_order(received)
        df.close()


@fault()
def exit_with_a_live_iterator() -> None:
    global alive
    alive = iter(build())
    next(alive)


@fault(PROCESSES)
def exit_with_a_busy_worker() -> None:
    global alive
    alive = iter(build(lambda dp: stuck_here() if dp[0] == BAD else dp))
    next(alive)


@fault()
def abandoned_again_and_again() -> None:
    with nothing_is_left():
        df = build()
        for _ in range(50 if PART else 1000):
            iterator = iter(df)
            dp = next(iterator)
            first = np.ravel(dp[0]).tolist()[0]
            if first != 0 and KIND not in (*RUNNERS, "thread-run"):
                raise SilentLoss(f"a new pass began with {first}")
            del iterator
        received: list[int] = []
        receive(df, received)
        check_order(received)
        del df


@fault()
def two_consumers() -> None:
    with nothing_is_left():
        df = build()
        first, second = iter(df), iter(df)
        next(first)
        try:
            next(second)
        except UsageError:
            pass
        else:
            raise AssertionError("a second pass that overlaps was let in")
        del first, second
        received: list[int] = []
        receive(df, received)
        check_order(received)
        del df


@fault()
def two_threads_consume() -> None:
    with nothing_is_left():
        df = build()
        received: list[int] = []
        errors: list[Exception] = []

        def consume(iterator: Iterator[Any]) -> None:
            try:
                for dp in iterator:
                    received.extend(np.ravel(dp[0]).tolist())
            except (UsageError, ValueError) as error:  # ValueError: a generator runs already
                errors.append(error)

        iterator = iter(df)
        threads = [threading.Thread(target=consume, args=(iterator,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a consumer hangs"
        received.sort()
        if not errors and KIND not in (*RUNNERS, "thread-run") and received != [*range(ROWS)]:
            raise SilentLoss(f"received {received}")
        errors.clear()
        del iterator, df


# Too little, too much, at the wrong time


@fault(PROCESSES)
def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    for _ in range(2):
        with nothing_is_left():
            received: list[int] = []
            receive(build(), received)
            check_order(received)


@fault(PROCESSES)
def too_few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with nothing_is_left():
        fails(build(workers=40), (WorkerError, OSError), "open files", extra=1.0)


def memory() -> int:
    """Return the bytes that this process and its children hold, each page counted once."""
    total = 0
    for pid in ("self", *children()):
        with contextlib.suppress(OSError):
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    return total


@fault()
def slow_consumer_of_large_datapoints() -> None:
    def large(dp: Any) -> Any:
        return [dp[0], np.zeros(10_000_000, np.uint8) + 1]

    with nothing_is_left():
        df = build(large)
        iterator = iter(df)
        peak = 0
        for _ in range(4):
            next(iterator)
            for _ in range(8):
                time.sleep(0.02)
                peak = max(peak, memory())
        del iterator, df
    say(f"peak of {peak >> 20} MB")
    assert peak < 1 << 30, f"{peak >> 20} MB for datapoints of 10 MB"


@fault(PROCESSES)
def fork_while_a_lock_is_held() -> None:
    pathlib.Path("guarded.py").write_text(
        textwrap.dedent("""
        import threading
        lock = threading.Lock()
        def func(dp):
            with lock:
                return dp
        """)
    )
    sys.path.insert(0, os.getcwd())
    import guarded  # a module of the user, with a lock inside

    done = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with guarded.lock:
            held.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    dataflow.set_start_method(None)  # the default has to see the thread
    received: list[int] = []
    with nothing_is_left():
        receive(build(guarded.func), received)
    check_order(received)
    done.set()
    holder.join()


@fault(PROCESSES)
def func_holds_a_queue_and_a_lock() -> None:
    context = multiprocessing.get_context("fork" if METHOD == "fork" else "spawn")
    queue, lock = context.Queue(), context.Lock()

    def func(dp: Any) -> Any:
        with lock:
            queue.put(dp[0])
        return dp

    df = build(func)
    received: list[int] = []
    with nothing_is_left():
        receive(df, received)
        check_order(received)
        seen = [queue.get(timeout=PROMPT) for _ in received]
        if Counter(received) - Counter(seen) and "run" not in KIND and KIND != "process":
            raise SilentLoss(f"the queue received {seen}")
        df.close()
        del df
    queue.close()


if __name__ == "__main__":
    name, KIND, METHOD, *part = sys.argv[1:]
    PART = bool(part)
    MARK = os.path.join(tempfile.gettempdir(), f"it-happens-{os.getpid()}")
    # A shell starts background jobs with Ctrl-C ignored, and faults of it would then lie.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    dataflow.set_start_method(METHOD)
    FAULTS[name].run()
