"""Say what went wrong with a worker: what failed, where, what was in flight, and one way out."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from ..errors import WorkerDied, WorkerTimeout
from .crew import Death
from .task import Context

ADVICE = {
    signal.SIGKILL: "The kernel does that when memory runs out (see `dmesg`): use fewer workers or smaller datapoints.",
    signal.SIGSEGV: "A C library crashed: look at the stack, or run the same function in the main process.",
    signal.SIGBUS: "A mapped file shrank or a disk is full, or a C library crashed.",
    signal.SIGABRT: "A C library gave up: look at what it wrote to stderr.",
}


def name(context: Context, pid: int) -> str:
    """Return how a worker is called in messages."""
    return f"worker {context.worker} (pid {pid}) of {context.stage}" if pid else f"{_bare(context)} of {context.stage}"


def place(context: Context, pid: int, samples: Sequence[int]) -> str:
    """Return where an exception happened, as a note."""
    who = f"worker {context.worker} (pid {pid})" if pid else _bare(context)
    return f"in {context.stage}, {who}" + (f", {numbers(samples)}" if samples else "")


def numbers(samples: Sequence[int]) -> str:
    """Return the datapoints in words, as few as say it."""
    if len(samples) == 1:
        return f"datapoint {samples[0]}"
    first, last = min(samples), max(samples)
    if last - first + 1 == len(samples):
        return f"datapoints {first} to {last}"
    return f"{len(samples)} datapoints between {first} and {last}"


def died(context: Context, pid: int, death: Death, samples: Sequence[int]) -> WorkerDied:
    """Return the error for a worker that is gone."""
    code = death.exitcode
    text = f"{name(context, pid)} {_way(code)}{_flight(samples)}."
    if code is not None and -code in ADVICE:
        text += f" {ADVICE[signal.Signals(-code)]}"
    elif code is not None and code >= 0:
        text += " Something in it called sys.exit() or os._exit(): raise an exception instead."
    if death.stack:
        text += f"\nIts last words:\n{death.stack}"
    error = WorkerDied(text, stage=context.stage, worker=context.worker, pid=pid)
    error.exitcode, error.samples = code, tuple(samples)
    return error


def stuck(context: Context, pid: int, seconds: float, stack: str, samples: Sequence[int]) -> WorkerTimeout:
    """Return the error for a worker that gave no sign of life."""
    fate = "was killed" if pid else "was left to itself, since a thread cannot be killed"
    text = f"{name(context, pid)} sent nothing for {seconds:g} s{_flight(samples)}, and {fate}."
    text += f" Its stack:\n{stack}" if stack else " It could not tell its stack."
    error = WorkerTimeout(text, stage=context.stage, worker=context.worker, pid=pid)
    error.stack, error.samples = stack, tuple(samples)
    return error


def _bare(context: Context) -> str:
    return f"worker {context.worker} (a thread)"


def _way(code: int | None) -> str:
    if code is None:
        return "is gone (its exit code was collected by somebody else)"
    if code >= 0:
        return f"exited with {code} before finishing"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _flight(samples: Sequence[int]) -> str:
    return f" with {numbers(samples)} in flight" if samples else ""
