"""Look at Parquet and Arrow files: what one is, and which of its rows are damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from ..errors import CorruptDataError
from ..sources.parquet_groups import ColumnData
from ..utils.open_file import size_of


def inspect(df: ColumnData, name: str) -> dict[str, Any]:
    """Tell what the file of a flow is; see ``ParquetSerializer.inspect``."""
    table = df._opened()
    ours = table.note is not None
    return {
        "format": name,
        "codec": "dataflow" if ours else None,
        "datapoints": len(df),
        "bytes": size_of(df.path),
        "checksums": "every record" if ours else "none",
        "groups": len(table.starts) - 1,
        "columns": table.types,
    }


def damages(df: ColumnData, on_record: Callable[[], None] | None) -> Iterator[tuple[int, str]]:
    """Read every row of a flow, and yield those that are damaged; see ``ParquetSerializer.damages``."""
    table = df._opened()
    for group, (start, end) in enumerate(pairwise(table.starts)):
        fault = None
        try:
            for _, batch in df._group(table, group):
                deque(table.rows(batch), maxlen=0)
        except CorruptDataError as error:
            fault = f"in group {group}: {error.__cause__ or error}"  # and not where all of it begins
        for number in range(start, end):
            if fault is not None:
                yield number, fault
            if on_record is not None:
                on_record()
