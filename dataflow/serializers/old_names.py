"""Names of tensorpack's first versions; ``dataflow.__getattr__`` hands them out, with a warning."""

from __future__ import annotations

from typing import Any

from ..base import DataFlow
from ..codec import loads
from ..proxies import MapData
from ..sources.lmdb_file import LMDBData
from .lmdb import LMDBSerializer


def LMDBDataPoint(lmdb_path: Any, shuffle: bool = True, keys: Any = None) -> MapData:  # noqa: N802  # it was a class
    """Return the decoded datapoints of an LMDB file, or of a flow of its pairs; now ``LMDBSerializer.load``."""
    pairs = lmdb_path if isinstance(lmdb_path, DataFlow) else LMDBData(lmdb_path, shuffle, keys)
    return MapData(pairs, _decoded)


def dump_dataflow_to_lmdb(ds: Any, lmdb_path: Any, write_frequency: int = 5000) -> None:
    """Write a flow to an LMDB file; now ``LMDBSerializer.save``."""
    LMDBSerializer.save(ds, lmdb_path, write_frequency)


def _decoded(dp: Any) -> Any:
    return loads(dp[1])
