"""Measure how fast a flow yields its datapoints: per second, in MB/s, the slow ones, and the memory that it takes."""

from __future__ import annotations

import argparse
import contextlib
import sys

from ..errors import EmptyFlowError
from ..utils.progress import progress
from ..utils.speed import SpeedReport, measure
from . import target
from .options import at_least

EXAMPLES = f"""\
{target.HELP}
examples:
  dataflow speed train.py:make_flow
  dataflow speed train.lmdb --size 20000 --warmup 100
  dataflow speed my_package.data:make_flow --json > speed.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="the flow; see below")
    parser.add_argument(
        "--size", metavar="N", type=at_least(1), default=5000, help="datapoints to measure (default: %(default)s)"
    )
    parser.add_argument(
        "--warmup", metavar="N", type=at_least(0), default=0, help="datapoints to take before the clock starts"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> None:
    """Measure, and print the report."""
    # What the flow prints itself must not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        report = _measure(args.target, args.size, args.warmup)
    if not report.datapoints:
        why = f"has no more than the {args.warmup} datapoints of --warmup" if args.warmup else "is empty"
        raise EmptyFlowError(f"{args.target!r} {why}: there is nothing to measure")
    print(report.to_json() if args.json else report)


def _measure(name: str, size: int, warmup: int) -> SpeedReport:
    # Not by TestDataSpeed, which keeps the datapoints of a flow that cannot go back.
    with target.load(name) as df, progress(warmup + size, "speed") as bar:
        return measure(iter(df), size, warmup, lambda _: bar.update())
