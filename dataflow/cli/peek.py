"""Print the first datapoints of a flow: the type, shape and range of every component."""

from __future__ import annotations

import argparse
from itertools import islice

from ..errors import EmptyFlowError
from ..proxies import PrintData
from . import target
from .options import at_least

EXAMPLES = f"""\
{target.HELP}
examples:
  dataflow peek train.py:make_flow
  dataflow peek train.lmdb --num 1 --max-list 10
  dataflow peek old.lmdb --allow-pickle
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    target.add_argument(parser)
    parser.add_argument("--num", type=at_least(1), default=3, help="datapoints to print (default: %(default)s)")
    parser.add_argument("--max-depth", type=at_least(0), default=3, help="levels of nesting (default: %(default)s)")
    parser.add_argument("--max-list", type=at_least(0), default=3, help="items of a list (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Print the datapoints."""
    with target.load(args.target, **target.options(args)) as df:
        shown = PrintData(df, args.num, max_depth=args.max_depth, max_list=args.max_list)
        if not sum(1 for _ in islice(shown, args.num)):
            raise EmptyFlowError(f"{args.target!r} is empty: there is no datapoint to print")
