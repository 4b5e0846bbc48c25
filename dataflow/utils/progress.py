"""The one progress bar: shown on a terminal only, and only for what takes longer than a second."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Iterable
from typing import Any

from .deps import need


def progress(total: int | None, desc: str, unit: str = " datapoints", rows: Iterable[Any] | None = None) -> Any:
    """Return a tqdm bar on stderr: a context manager with ``update(n)``, or an iterator over ``rows``.

    >>> with progress(total=3, desc="count") as bar:
    ...     for _ in range(3):
    ...         bar.update()  # of no effect where stderr is not a terminal
    >>> list(progress(total=2, desc="read", rows="ab"))
    ['a', 'b']

    Args:
        total: how many are expected; None or 0 if unknown.
        desc: what is being done.
        unit: of what, as it follows a number.
        rows: iterate these and count them.
    """
    return _bar()(
        rows, total=total or None, desc=desc, unit=unit, file=sys.stderr, delay=1, disable=None, dynamic_ncols=True
    )


@functools.cache
def _bar() -> Any:
    """Return tqdm without its monitor thread and its multiprocessing lock: processes may be forked beside a bar.

    A class of our own, so that the bars of the user stay as they are.
    """
    tqdm = need("tqdm", by="a progress bar").tqdm
    return type("Bar", (tqdm,), {"monitor_interval": 0, "_lock": threading.RLock()})
