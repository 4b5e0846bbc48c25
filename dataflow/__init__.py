"""Turn a data source into batches for training: small iterators that compose by wrapping."""

import warnings
from importlib import import_module
from typing import Any

from .base import DataFlow, ProxyDataFlow, RNGDataFlow, as_flow
from .codec import dumps, loads
from .errors import DataFlowTerminated
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
from .serializers import LMDBSerializer
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
from .utils.rng import set_seed

__all__ = [
    "BatchData",
    "BatchDataByShape",
    "CacheData",
    "ConcatData",
    "DataFlow",
    "DataFlowTerminated",
    "DataFromGenerator",
    "DataFromIterable",
    "DataFromList",
    "DataFromQueue",
    "FakeData",
    "FixedSizeData",
    "ImageFromFile",
    "JoinData",
    "LMDBData",
    "LMDBDataDecoder",
    "LMDBSerializer",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "PrintData",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RandomChooseData",
    "RandomMixData",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShuffleData",
    "TestDataSpeed",
    "as_flow",
    "dumps",
    "loads",
    "set_seed",
]

# Names of tensorpack's first versions: where each is found now, and what to write instead.
_OLD_NAMES = {
    "LMDBDataPoint": ("LMDBDataPoint", "LMDBSerializer.load"),
    "dftools": (None, "LMDBSerializer.save"),
}


def __getattr__(name: str) -> Any:
    if name not in _OLD_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    attribute, new = _OLD_NAMES[name]
    warnings.warn(f"dataflow.{name} is an old name, use {new}", DeprecationWarning, stacklevel=2)
    old_names = import_module(".serializers.old_names", __name__)
    return getattr(old_names, attribute) if attribute else old_names
