"""Files that hold the datapoints of a flow."""

from .lmdb import LMDBSerializer

__all__ = ["LMDBSerializer"]
