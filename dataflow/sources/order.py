"""Where a pass over numbered datapoints goes on, and whether a state fits to the data that it meets."""

from __future__ import annotations

from ..errors import UsageError
from ..passes import Place


def start_of(at: Place, size: int, what: str) -> int:
    """Return how many of ``size`` datapoints come before a place, as ``place_in`` made it.

    Raises:
        UsageError: if it does not lie in data of this size, or in a random order of as many.
    """
    start: int = at.get("index", 0)
    had: int = at.get("size", size) if start else size
    if start > size or had != size:
        raise UsageError(
            f"{what} has {size:,} datapoints, and had {f'{had:,}' if had != size else f'at least {start:,}'} when this "
            "state was taken: it has been replaced. Bring back what was there, or begin without the state"
        )
    return start


def refuse_smaller(offset: int, size: int, path: str) -> None:
    """Raise if a place lies behind the end of a file of ``size`` bytes.

    Raises:
        UsageError: if so.
    """
    if offset > size:
        raise UsageError(
            f"{path!r} has been replaced by a smaller file since this state was taken. Bring back what was there, or "
            "begin without the state"
        )


def place_in(path: int, index: int, size: int, shuffle: bool) -> Place:
    """Return the place behind ``index`` datapoints; the random order of another number of them is another order."""
    return {"pass": path, "index": index, "size": size} if shuffle else {"pass": path, "index": index}
