"""Flows that datapoints come from."""

from .fake import FakeData
from .images import ImageFromFile
from .iterables import DataFromGenerator, DataFromIterable, DataFromQueue
from .lmdb_file import LMDBData, LMDBDataDecoder
from .memory import DataFromList

__all__ = [
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "FakeData",
    "ImageFromFile",
    "LMDBData",
    "LMDBDataDecoder",
]
