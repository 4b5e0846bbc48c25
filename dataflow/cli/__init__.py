"""The command line: ``dataflow speed``, ``peek``, ``save`` and so on, a file each."""

from __future__ import annotations

import argparse
import importlib
import os
import select
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ..errors import DataFlowTerminated
from .failure import explain
from .target import TargetError, is_data_file, similar
from .words import in_words

COMMANDS = {
    "speed": "measure how fast a flow yields its datapoints",
    "peek": "print the first datapoints of a flow",
    "save": "write the datapoints of a flow to a data file",
    "convert": "write the datapoints of one data file to another",
    "inspect": "say what a data file is: format, number of datapoints, checksums, the first datapoint",
    "verify": "read all of a data file, and list the records that are damaged",
    "demo": "turn real photographs into training batches, and time every step",
}
EXAMPLES = """\
examples:
  dataflow demo
  dataflow speed train.py:make_flow
  dataflow peek my_package.data:make_flow --num 5
  dataflow save train.py:make_flow train.lmdb
  dataflow convert train.lmdb train.parquet
  dataflow inspect train.lmdb
  dataflow verify train.lmdb

`dataflow COMMAND --help` says more about one of them.
"""

OK, FAILED, USAGE = 0, 1, 2
# What a shell says of a program that a signal has ended: 128 plus the number of the signal.
INTERRUPTED, PIPE_CLOSED = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a flow that fails, 2 for a wrong argument."""
    args = argparse.Namespace()
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv), args)
        sys.stdout.flush()
        return code
    except TargetError as error:
        print(f"dataflow: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except (Exception, SystemExit, DataFlowTerminated) as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return PIPE_CLOSED
        print(_told(error, args), file=sys.stderr)
        return FAILED


def _run(argv: list[str], args: argparse.Namespace) -> int:
    if argv and argv[0] not in COMMANDS and (others := similar(argv[0], COMMANDS)):
        raise TargetError(f"there is no command {argv[0]!r}{others}")
    try:
        _parser(argv).parse_args(argv, args)
    except SystemExit as end:  # argparse has said what there is to say
        return int(end.code or OK)
    args.run(args)
    return OK


def _parser(argv: list[str]) -> argparse.ArgumentParser:
    """Make the parser. Of the commands only the one that is asked for is loaded, with what it imports."""
    parser = argparse.ArgumentParser(
        "dataflow",
        description="Look at flows of training data: how fast, what comes out. Save them to files.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dataflow {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in COMMANDS.items():
        if argv[:1] != [name]:
            commands.add_parser(name, help=what)
            continue
        command = importlib.import_module(f".{name}", __name__)
        chosen = commands.add_parser(
            name,
            help=what,
            description=command.__doc__,
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(chosen)
        chosen.set_defaults(run=command.run)
    return parser


def _told(error: BaseException, args: argparse.Namespace) -> str:
    """Say what went wrong. Of a data file in our words, and without a traceback unless it may run code."""
    name = getattr(args, "target", "") or getattr(args, "file", "")
    if not name or not is_data_file(name):
        return explain(error)
    return in_words(explain(error, code=args.allow_pickle))


def _version() -> str:
    try:
        return version("dataflow-toolkit")
    except PackageNotFoundError:  # imported from a source tree that is not installed
        return "(not installed)"


def _stdout_is_closed() -> bool:
    """Say whether the reader of our output has gone; if so, what is left in the buffer goes nowhere, quietly."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # replaced by an object in memory
        return False
    # Not by another flush, which does not fail any more.
    watch = select.poll()
    watch.register(descriptor, 0)
    if watch.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return True
    return False
