"""The first thing that a new interpreter runs, told by launcher.Spawner: become a worker."""

from __future__ import annotations

import mmap
import pickle
import sys
from collections.abc import Collection, Iterator
from multiprocessing import process, resource_tracker
from typing import Any, NoReturn

from ..utils import pickling
from ..utils.rng import set_seed
from . import child, launcher
from .arena import Arena
from .channel import SocketFar
from .descriptors import Descriptor
from .task import Context, Task
from .zmq_channel import ZmqFar

FAR = {"socket": SocketFar, "zmq": ZmqFar}


class _Unloadable(Task):
    """Stands for a task that could not be loaded; the pool hears why."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, inbox: Iterator[Any], context: Context) -> Iterator[Any]:  # noqa: ARG002
        self.error.add_note("while a new interpreter loaded the task; what it imports must be importable there")
        raise self.error


def main(
    boot: mmap.mmap,
    who: tuple[Any, ...],
    recipe: tuple[Any, ...],
    share: tuple[int, tuple[int, int]] | None,
    bond: tuple[Any, ...],
    mask: Collection[int],
) -> NoReturn:
    """Be the worker ``who``, a Context; ``boot`` stands behind sys.path, which has been read."""
    tie = launcher.Bond(*bond)

    def be_worker() -> int:
        child.settle(tie, mask)
        settings = pickle.load(boot)
        sys.argv[:] = settings["argv"]
        pickling.be_guest()
        set_seed(settings["seed"])
        launcher.set_start_method(settings["start_method"])
        context = Context(*who)
        arena = None
        if share is not None:
            arena = Arena(Descriptor(share[0]), context.workers), share[1]
        return child.serve(_load(boot, settings), context, FAR[recipe[0]](*recipe[1:]), arena)

    child.live(tie, be_worker)


def _load(boot: mmap.mmap, settings: dict[str, Any]) -> Task:
    me: Any = process.current_process()
    tracker: Any = resource_tracker._resource_tracker
    if "authkey" in settings:
        me.authkey = settings["authkey"]
    if "tracker" in settings:
        tracker._fd = settings["tracker"]
    me._inheriting = True  # proxies of managers ask
    try:
        task: Task = pickle.load(boot)
        return task
    except BaseException as error:
        return _Unloadable(error)
    finally:
        del me._inheriting
