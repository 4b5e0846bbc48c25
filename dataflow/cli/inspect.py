"""Say what a data file is: its format, how many datapoints, whether they carry checksums, what the first is made of."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..utils.describe import describe
from . import target
from .words import in_words

EXAMPLES = """\
examples:
  dataflow inspect train.lmdb
  dataflow inspect train.parquet --json

It reads little. `dataflow verify FILE` reads all of it, and finds the records that are damaged.
"""

FIRST = "first datapoint"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="a data file, its URL, or a folder with an LMDB file in it")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    target.add_options(parser)


def run(args: argparse.Namespace) -> None:
    """Print what is found; an error in the first datapoint comes behind that."""
    found = {"file": args.file, **target.reader(args.file).inspect(args.file)}
    try:
        if _holds_datapoints(found) or args.data_paths:
            found[FIRST] = _first(args.file, target.options(args))
    finally:
        print(json.dumps(found) if args.json else in_words(_text(found)))


def _holds_datapoints(found: dict[str, Any]) -> bool:
    """Say whether a file can be read as it is; values without a codec cannot, unless they stand in columns."""
    codec = found.get("codec")
    return "columns" in found if codec is None else codec not in ("arrays", "datasets")


def _first(file: str, options: dict[str, Any]) -> list[str] | None:
    """Return the lines that describe the first datapoint; None if there is none."""
    with target.load(file, **options) as df:
        for dp in df:
            return [line.removeprefix("  ") for line in describe(dp)]
    return None


def _text(found: dict[str, Any]) -> str:
    """Show what was found in two columns."""
    rows = {name: value for name, value in found.items() if name not in ("file", FIRST)}
    width = max(map(len, rows))
    lines = [found["file"]]
    for name, value in rows.items():
        if isinstance(value, dict):
            lines += [f"  {name}", *(f"    {key}: {_shown(part)}" for key, part in value.items())]
        else:
            lines.append(f"  {name:{width}}  {_shown(value)}")
    if found.get(FIRST):
        lines += [f"  {FIRST}", *(f"    {line}" for line in found[FIRST])]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(part)}" for key, part in value.items() if part is not None)
    return ", ".join(map(_shown, value)) if isinstance(value, list) else str(value)
