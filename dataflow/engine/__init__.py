"""The one layer that starts, feeds, watches and stops workers."""

from .launcher import set_start_method
from .pool import Pool
from .task import Context, Task

__all__ = ["Context", "Pool", "Task", "set_start_method"]
