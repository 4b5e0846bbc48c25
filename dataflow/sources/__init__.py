"""Flows that datapoints come from."""

from .memory import DataFromList

__all__ = ["DataFromList"]
