"""Flows that datapoints come from."""

from typing import TYPE_CHECKING, Any

from ..utils.later import loaded_later
from .fake import FakeData
from .images import ImageFromFile
from .iterables import DataFromGenerator, DataFromIterable, DataFromQueue
from .lmdb_file import LMDBData, LMDBDataDecoder
from .memory import DataFromList

if TYPE_CHECKING:
    from .caffe import CaffeLMDB
    from .hdf5_file import HDF5Data
    from .svmlight_file import SVMLightData

__all__ = [
    "CaffeLMDB",
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "FakeData",
    "HDF5Data",
    "ImageFromFile",
    "LMDBData",
    "LMDBDataDecoder",
    "SVMLightData",
]

_MODULES = {"CaffeLMDB": ".caffe", "HDF5Data": ".hdf5_file", "SVMLightData": ".svmlight_file"}


def __getattr__(name: str) -> Any:
    return loaded_later(__name__, _MODULES, name)
