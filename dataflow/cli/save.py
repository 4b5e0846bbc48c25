"""Write the datapoints of one pass of a flow to a file."""

from __future__ import annotations

import argparse
import pathlib

from ..errors import EmptyFlowError
from . import target

EXAMPLES = f"""\
{target.HELP}
examples:
  dataflow save train.py:make_flow train.lmdb

The file is read again by `LMDBSerializer.load("train.lmdb")`, and by the other commands.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("target", metavar="TARGET", help="the flow; see below")
    parser.add_argument("file", metavar="FILE", help=f"the file to write, ending in {' or '.join(target.SERIALIZERS)}")


def run(args: argparse.Namespace) -> None:
    """Save, and say how much."""
    serializer = target.serializer(args.file)
    with target.load(args.target) as df:
        serializer.save(df, args.file)
    file = pathlib.Path(args.file)
    with serializer.load(args.file) as saved:
        count = len(saved)
    if not count:
        file.unlink()
        raise EmptyFlowError(f"{args.target!r} is empty: there is no datapoint to save")
    print(f"{args.file}: {count:,} datapoints, {file.stat().st_size / 1e6:,.1f} MB")
