"""Turn a data source into batches for training: small iterators that compose by wrapping."""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import serializers as serializers
from .base import DataFlow, ProxyDataFlow, RNGDataFlow, as_flow
from .codec import dumps, loads
from .engine import set_start_method
from .errors import DataFlowTerminated
from .parallel import (
    MultiProcessMapAndBatchData,
    MultiProcessMapAndBatchDataZMQ,
    MultiProcessMapData,
    MultiProcessMapDataZMQ,
    MultiProcessRunner,
    MultiProcessRunnerZMQ,
    MultiThreadMapData,
    MultiThreadRunner,
)
from .policies import Replace, Retry, Skip
from .proxies import (
    BatchData,
    BatchDataByShape,
    CacheData,
    ConcatData,
    FixedSizeData,
    JoinData,
    LocallyShuffleData,
    MapData,
    MapDataComponent,
    PrintData,
    RandomChooseData,
    RandomMixData,
    RepeatedData,
    RepeatedDataPoint,
    SelectComponent,
    ShuffleData,
    TestDataSpeed,
)
from .sources import (
    DataFromGenerator,
    DataFromIterable,
    DataFromList,
    DataFromQueue,
    FakeData,
    ImageFromFile,
    LMDBData,
    LMDBDataDecoder,
)
from .utils.later import loaded_later
from .utils.rng import set_seed

if TYPE_CHECKING:  # these are loaded when they are asked for
    from . import testing as testing
    from .serializers import (
        ArrowSerializer,
        HDF5Serializer,
        LMDBSerializer,
        NumpySerializer,
        ParquetSerializer,
        TarSerializer,
        TFRecordSerializer,
        load,
        save,
    )
    from .sources import CaffeLMDB, HDF5Data, SVMLightData

__all__ = [
    "ArrowSerializer",
    "BatchData",
    "BatchDataByShape",
    "CacheData",
    "CaffeLMDB",
    "ConcatData",
    "DataFlow",
    "DataFlowTerminated",
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "FakeData",
    "FixedSizeData",
    "HDF5Data",
    "HDF5Serializer",
    "ImageFromFile",
    "JoinData",
    "LMDBData",
    "LMDBDataDecoder",
    "LMDBSerializer",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "MultiProcessMapAndBatchData",
    "MultiProcessMapAndBatchDataZMQ",
    "MultiProcessMapData",
    "MultiProcessMapDataZMQ",
    "MultiProcessRunner",
    "MultiProcessRunnerZMQ",
    "MultiThreadMapData",
    "MultiThreadRunner",
    "NumpySerializer",
    "ParquetSerializer",
    "PrintData",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RandomChooseData",
    "RandomMixData",
    "RepeatedData",
    "RepeatedDataPoint",
    "Replace",
    "Retry",
    "SVMLightData",
    "SelectComponent",
    "ShuffleData",
    "Skip",
    "TFRecordSerializer",
    "TarSerializer",
    "TestDataSpeed",
    "as_flow",
    "dumps",
    "load",
    "loads",
    "save",
    "set_seed",
    "set_start_method",
]

_LATER = {
    "CaffeLMDB": ".sources",
    "HDF5Data": ".sources",
    "SVMLightData": ".sources",
    "ArrowSerializer": ".serializers",
    "HDF5Serializer": ".serializers",
    "LMDBSerializer": ".serializers",
    "NumpySerializer": ".serializers",
    "ParquetSerializer": ".serializers",
    "TFRecordSerializer": ".serializers",
    "TarSerializer": ".serializers",
    "load": ".serializers",
    "save": ".serializers",
}

# Names of tensorpack's first versions: the module that holds each, None for a class of today, and what to write.
_OLD_NAMES = {
    "LMDBDataPoint": ("serializers.old_names", "LMDBSerializer.load"),
    "MultiProcessPrefetchData": (None, "MultiProcessRunner"),
    "MultiThreadPrefetchData": (None, "MultiThreadRunner"),
    "PrefetchData": (None, "MultiProcessRunner"),
    "PrefetchDataZMQ": (None, "MultiProcessRunnerZMQ"),
    "ThreadedMapData": (None, "MultiThreadMapData"),
    "dftools": ("serializers.old_names", "LMDBSerializer.save"),  # was a module
}


def __getattr__(name: str) -> Any:
    if name == "testing":
        return import_module(".testing", __name__)
    if name not in _OLD_NAMES:
        return loaded_later(__name__, _LATER, name)
    place, new = _OLD_NAMES[name]
    warnings.warn(f"dataflow.{name} is an old name, use {new}", DeprecationWarning, stacklevel=2)
    if place is None:
        return globals()[new]
    module = import_module(f".{place}", __name__)
    return module if name == "dftools" else getattr(module, name)
