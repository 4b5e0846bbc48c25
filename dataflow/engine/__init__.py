"""The one layer that starts, feeds, watches and stops workers."""

from .pool import Pool
from .task import Context, Task

__all__ = ["Context", "Pool", "Task"]
