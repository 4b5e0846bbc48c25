"""Say what cannot be held: the place inside the datapoint, the type seen, and the way out."""

from __future__ import annotations

from typing import Any

import numpy as np

# Nesting that a datapoint may have; more is almost always a datapoint that contains itself.
MAX_DEPTH = 64

_PLAIN_TYPES = (dict, list, tuple, set, frozenset, bool, int, float, complex, str, bytes, bytearray)


def place(path: tuple[Any, ...]) -> str:
    """Spell the way to a value: ``component 1['meta'][3]``."""
    if not path:
        return "the datapoint"
    return f"component {path[0]!r}" + "".join(f"[{key!r}]" for key in path[1:])


def unheld(path: tuple[Any, ...], what: str, way_out: str) -> TypeError:
    """Return the error for one value that would not come back as it is."""
    return TypeError(f"cannot serialize {place(path)}: {what}. {way_out}")


def foreign(path: tuple[Any, ...], value: Any, *, others: str) -> TypeError:
    """Return the error for a value whose type the layout does not know; ``others`` names layouts that may."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if isinstance(value, np.ma.MaskedArray):
        return unheld(path, f"a masked array ({name})", f"Store its .data and .mask as two arrays, {others}")
    if isinstance(value, np.ndarray):
        return unheld(path, f"a subclass of ndarray ({name})", f"Take np.asarray of it, {others}")
    for plain in _PLAIN_TYPES:
        if isinstance(value, plain) and kind is not plain:
            what = f"a subclass of {plain.__name__} ({name})"
            return unheld(path, what, f"Make it a plain {plain.__name__} first, {others}")
    return unheld(path, f"a value of type {name}", f"Turn it into an array or bytes first, {others}")


def too_deep(path: tuple[Any, ...]) -> ValueError:
    """Return the error for endless nesting."""
    return ValueError(
        f"cannot serialize {place(path[:1])}: nested deeper than {MAX_DEPTH} levels, or it contains itself. "
        "Flatten it first"
    )
