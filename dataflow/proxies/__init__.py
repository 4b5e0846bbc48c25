"""Flows that draw from other flows."""

from .batch import BatchData
from .batch_by_shape import BatchDataByShape
from .cache import CacheData
from .combine import ConcatData, JoinData, RandomChooseData, RandomMixData
from .map import MapData, MapDataComponent, SelectComponent
from .repeat import FixedSizeData, RepeatedData, RepeatedDataPoint
from .report import PrintData, TestDataSpeed
from .shuffle import LocallyShuffleData, ShuffleData

__all__ = [
    "BatchData",
    "BatchDataByShape",
    "CacheData",
    "ConcatData",
    "FixedSizeData",
    "JoinData",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "PrintData",
    "RandomChooseData",
    "RandomMixData",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShuffleData",
    "TestDataSpeed",
]
