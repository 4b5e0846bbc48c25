"""Measure how fast a flow yields its datapoints: per second, in MB/s, the slow ones, the memory that it takes.

Where workers take part, it says how full their buffers ran, and so what the flow waits for.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys

from ..base import DataFlow
from ..errors import EmptyFlowError
from ..parallel import MultiProcessRunnerZMQ, MultiThreadRunner
from ..passes import graph
from ..utils.progress import progress
from ..utils.speed import SpeedReport, measure
from . import target
from .options import at_least

EXAMPLES = f"""\
{target.HELP}
examples:
  dataflow speed train.py:make_flow
  dataflow speed train.lmdb --size 20000 --warmup 100
  dataflow speed train.py:make_flow --num-proc 4 --warmup 500
  dataflow speed my_package.data:make_flow --json > speed.json

With --num-proc and --num-thread every worker runs the whole flow, as MultiProcessRunnerZMQ and MultiThreadRunner do.
Each of them makes a flow of its own in a thread, and has a copy of the one flow in a process.
"""

AHEAD = 50  # datapoints that a worker is ahead


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    target.add_argument(parser)
    parser.add_argument(
        "--size", metavar="N", type=at_least(1), default=5000, help="datapoints to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup", metavar="N", type=at_least(0), default=0, help="datapoints to take before the clock starts"
    )
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument("--num-proc", metavar="N", type=at_least(1), help="run copies of the flow in N processes")
    workers.add_argument("--num-thread", metavar="N", type=at_least(1), help="run copies of the flow in N threads")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the report."""
    # What the flow prints itself must not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        report = _measure(_flow(args), args.size, args.warmup)
    if not report.datapoints:
        why = f"has no more than the {args.warmup} datapoints of --warmup" if args.warmup else "is empty"
        raise EmptyFlowError(f"{args.target!r} {why}: there is nothing to measure")
    print(report.to_json() if args.json else report)


def _flow(args: argparse.Namespace) -> DataFlow:
    """Return the flow that is to be measured, in workers or not."""
    if args.num_thread:
        return MultiThreadRunner(
            target.factory(args.target, **target.options(args)), AHEAD * args.num_thread, args.num_thread
        )
    df = target.load(args.target, **target.options(args))
    return MultiProcessRunnerZMQ(df, args.num_proc, hwm=AHEAD) if args.num_proc else df


def _measure(flow: DataFlow, size: int, warmup: int) -> SpeedReport:
    # Not by TestDataSpeed, which keeps the datapoints of a flow that cannot go back.
    with flow as df, progress(warmup + size, "speed") as bar:
        report = measure(iter(df), size, warmup, lambda _: bar.update())
        # Before the workers are closed: that takes time, too.
        buffers = [stage._gauge.report(repr(stage)) for stage in graph(df) if stage._gauge is not None]
    return dataclasses.replace(report, buffers=[buffer for buffer in buffers if buffer is not None])
