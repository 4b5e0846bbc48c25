"""Flows that draw from other flows."""

from .batch import BatchData
from .map import MapData, MapDataComponent, SelectComponent
from .repeat import FixedSizeData, RepeatedData, RepeatedDataPoint
from .shuffle import LocallyShuffleData, ShuffleData

__all__ = [
    "BatchData",
    "FixedSizeData",
    "LocallyShuffleData",
    "MapData",
    "MapDataComponent",
    "RepeatedData",
    "RepeatedDataPoint",
    "SelectComponent",
    "ShuffleData",
]
