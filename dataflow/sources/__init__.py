"""Flows that datapoints come from."""

from .caffe import CaffeLMDB
from .fake import FakeData
from .hdf5_file import HDF5Data
from .images import ImageFromFile
from .iterables import DataFromGenerator, DataFromIterable, DataFromQueue
from .lmdb_file import LMDBData, LMDBDataDecoder
from .memory import DataFromList
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
