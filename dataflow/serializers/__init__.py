"""Files that hold the datapoints of a flow."""

from .hdf5 import HDF5Serializer
from .lmdb import LMDBSerializer
from .npz import NumpySerializer
from .parquet import ArrowSerializer, ParquetSerializer
from .table import FORMATS, load, save, serializer_of
from .tar import TarSerializer
from .tfrecord import TFRecordSerializer

__all__ = [
    "FORMATS",
    "ArrowSerializer",
    "HDF5Serializer",
    "LMDBSerializer",
    "NumpySerializer",
    "ParquetSerializer",
    "TFRecordSerializer",
    "TarSerializer",
    "load",
    "save",
    "serializer_of",
]
