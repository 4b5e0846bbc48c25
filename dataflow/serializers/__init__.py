"""Files that hold the datapoints of a flow."""

from typing import TYPE_CHECKING, Any

from ..utils.later import loaded_later

if TYPE_CHECKING:
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

_MODULES = {
    "FORMATS": ".table",
    "ArrowSerializer": ".parquet",
    "HDF5Serializer": ".hdf5",
    "LMDBSerializer": ".lmdb",
    "NumpySerializer": ".npz",
    "ParquetSerializer": ".parquet",
    "TFRecordSerializer": ".tfrecord",
    "TarSerializer": ".tar",
    "load": ".table",
    "save": ".table",
    "serializer_of": ".table",
}


def __getattr__(name: str) -> Any:
    return loaded_later(__name__, _MODULES, name)
