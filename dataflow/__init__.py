"""Turn a data source into batches for training: small iterators that compose by wrapping."""

from .base import DataFlow, ProxyDataFlow, RNGDataFlow, as_flow
from .errors import DataFlowTerminated
from .proxies import (
    BatchData,
    FixedSizeData,
    LocallyShuffleData,
    MapData,
    MapDataComponent,
    RepeatedData,
    RepeatedDataPoint,
    SelectComponent,
    ShuffleData,
)
from .sources import DataFromList
from .utils.rng import set_seed

__all__ = [
    "BatchData",
    "DataFlow",
    "DataFlowTerminated",
    "DataFromList",
    "FixedSizeData",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "ProxyDataFlow",
    "RNGDataFlow",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShuffleData",
    "as_flow",
    "set_seed",
]
