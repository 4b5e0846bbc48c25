"""Write the datapoints of one data file to another, in their order, such as from LMDB to Parquet."""

from __future__ import annotations

import argparse

from . import target
from .save import size, write

EXAMPLES = """\
The suffixes tell the formats: .lmdb .tfrecord .npz .h5 .tar .parquet .arrow; files in .svm are only read. A or B may
be a URL for the formats that can be read or written along: .tfrecord, .npz, .tar, .parquet and .arrow.

What comes back from B is what came from A, bit by bit; what B cannot hold is an error that names it.

examples:
  dataflow convert train.lmdb train.tfrecord
  dataflow convert old.lmdb new.lmdb --allow-pickle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="A", help="the file to read")
    parser.add_argument("new_file", metavar="B", help="the file to write, which must not exist")
    target.add_options(parser)


def run(args: argparse.Namespace) -> None:
    """Convert, and say how much."""
    target.reader(args.file)
    print(f"{args.new_file}: {write(args.file, args.new_file, target.options(args))}, from {size(args.file)}")
