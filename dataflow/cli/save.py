"""Write the datapoints of one pass of a flow to a data file, whose suffix tells its format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from ..base import ProxyDataFlow
from ..errors import EmptyFlowError
from ..passes import Place, Run, Walk
from ..serializers import save as save_to
from ..utils.open_file import size_of
from ..utils.open_lmdb import data_file
from ..utils.shards import shard_paths
from . import target
from .words import counted

EXAMPLES = f"""\
{target.HELP}
FILE ends in .lmdb, .tfrecord, .npz, .h5, .tar, .parquet or .arrow, and may be a URL for the formats that can be
written along: .tfrecord, .npz, .tar, .parquet and .arrow.

examples:
  dataflow save train.py:make_flow train.lmdb
  dataflow save my_package.data:make_flow train.tfrecord

The file is read again by `dataflow.load("train.lmdb")` in Python, and by the other commands.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    target.add_argument(parser)
    parser.add_argument("file", metavar="FILE", help="the file to write, which must not exist; see below")


def run(args: argparse.Namespace) -> None:
    """Save, and say how much."""
    print(f"{args.file}: {write(args.target, args.file, target.options(args))}")


def write(source: str, file: str, options: dict[str, Any]) -> str:
    """Write the flow that ``source`` names to a file, and say how much it was.

    Raises:
        TargetError: if ``source`` or ``file`` is wrong.
        EmptyFlowError: if there is no datapoint; then there is no file, too.
        Exception: whatever the flow raises, or ``save`` of the format.
    """
    target.writer(file)
    with _Counted(target.load(source, **options), source) as df:
        try:
            save_to(df, file)
        except EmptyFlowError as error:
            if not df.count:
                error.__notes__ = []  # which say at what datapoint it was
            raise
    return f"{counted(df.count, 'datapoint')}, {size(file)}"


def size(file: str) -> str:
    """Return the size of a file as text, or of all shards that it stands for."""
    files = [data_file(file)] if os.path.isdir(file) else shard_paths(file)
    total = sum(map(size_of, files))
    return f"{total / 1e6:,.1f} MB" if total >= 100_000 else counted(total, "byte")


class _Counted(ProxyDataFlow):
    """Hand on a flow and count it; one that is empty is an error, before there is a file."""

    def __init__(self, ds: Any, name: str) -> None:
        super().__init__(ds)
        self.name = name
        self.count = 0

    def _walk(self, at: Place, run: Run) -> Walk:
        rows, place = super()._walk(at, run)
        return self._counted(rows), place

    def _counted(self, rows: Iterator[Any]) -> Iterator[Any]:
        for self.count, dp in enumerate(rows, 1):
            yield dp
        if not self.count:
            raise EmptyFlowError(f"{self.name!r} is empty: there is no datapoint to save")
