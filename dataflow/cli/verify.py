"""Read every record of a data file, and list those that are damaged.

That happens in a process of its own, since a file that was made to do harm may crash it; that is damage, too. What is
wrong with the file itself, such as an end that is missing, is a line without the number of a record. The exit code is 1
if anything is damaged.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import CorruptDataError, UsageError
from ..utils.progress import progress
from . import target, verify_child
from .words import counted, in_words

EXAMPLES = """\
examples:
  dataflow verify train.lmdb
  dataflow verify old.lmdb --allow-pickle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a data file, its URL, or a folder with an LMDB file in it")
    target.add_allow_pickle(parser)


def run(args: argparse.Namespace) -> None:
    """Print a line for each damaged record, or one that says that there is none."""
    target.reader(args.file)
    read = 0
    checksums, counts, ended = "", True, False
    with (
        _child(args.file, args.allow_pickle) as process,
        progress(None, "verify", " records") as bar,
        _Faults(lambda line: bar.write(in_words(line))) as faults,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line == verify_child.READ:
                read += 1
                bar.update()
                continue
            match json.loads(line):
                case {"datapoints": total, "checksums": checksums, "counts": counts}:
                    bar.total = total
                case {"number": number, "why": why}:
                    faults.add(number, why)
                case {"failure": failure}:
                    raise UsageError(failure)
                case {"end": ended}:
                    pass
    if not ended:
        raise CorruptDataError(
            f"{args.file!r} is damaged at record {read}: the process that read it was ended by "
            f"{_end_of(process.returncode)}. What follows was not read"
        )
    if faults.count:
        # Not "of so many": a fault may be one of the file, and a record that is lost was not read.
        raise CorruptDataError(
            f"{args.file!r} is damaged: {counted(faults.count, 'fault')}, {counted(read, 'record')} read"
        )
    unseen = ""
    if checksums == "none":
        unseen = "; it has no checksums that would tell a changed value"
    if not counts:
        unseen += "; without an index nothing tells whether it was cut between two records, or records were removed"
    print(f"{args.file}: {'the' if read == 1 else 'all'} {counted(read, 'record')} can be read{unseen}")


class _Faults:
    """Show a line for each fault, or for several records in a row that have the same."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self.count = 0
        self._show = show
        self._first = self._last = 0
        self._why: str | None = None

    def __enter__(self) -> _Faults:
        return self

    def __exit__(self, *exception: object) -> None:
        self._flush()

    def add(self, number: int | None, why: str) -> None:
        """Show what came before, unless this is more of it; without a number it is a fault of the file itself."""
        self.count += 1
        if number is None:
            self._flush()
            self._show(why)
            return
        if (number, why) != (self._last + 1, self._why):
            self._flush()
            self._first = number
        self._last, self._why = number, why

    def _flush(self) -> None:
        if self._why is not None:
            one = self._first == self._last
            self._show(f"{f'record {self._first}' if one else f'records {self._first} to {self._last}'}: {self._why}")
            self._why = None


@contextmanager
def _child(file: str, allow_pickle: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Start the process that reads ``file``; it ends with the block."""
    command = [sys.executable, "-P", "-m", verify_child.__name__, file, *(["--allow-pickle"] if allow_pickle else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def _end_of(code: int) -> str:
    """Say how a process ended."""
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
