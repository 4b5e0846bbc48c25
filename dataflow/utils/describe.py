"""Describe a datapoint in a few short lines, whatever it is made of."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

# The components of a datapoint are all listed, up to a number that nobody reads.
MOST_COMPONENTS = 100
# Characters of a value that are shown.
WIDTH = 60


def describe(dp: Any, max_depth: int = 3, max_list: int = 3) -> Iterator[str]:
    r"""Yield a line for each component of a datapoint, and for what is inside of it.

    >>> print(*describe([0.5, np.arange(3), [1, 2, 3, 4]], max_list=2), sep="\n")
      0: float with value 0.5
      1: ndarray:int64 of shape (3,) in range [0, 2]
      2: list of len 4
        0: int with value 1
        1: int with value 2
        ...

    It raises nothing, changes nothing, and shows no more than a few characters of anything.

    Args:
        dp: a list, tuple or dict of components.
        max_depth: what is nested deeper is cut.
        max_list: parts of a list or dict that are shown.
    """
    try:
        yield from _parts(dp, 1, max_depth, MOST_COMPONENTS, max_list)
    except Exception:  # a list or key of a foreign class, see describe_one
        yield "  ..."


def _parts(value: Any, depth: int, max_depth: int, most: int, max_list: int) -> Iterator[str]:
    indent = "  " * depth
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    if value and depth > max_depth:
        yield f"{indent}..."
        return
    for key, part in islice(parts, most):
        yield f"{indent}{_text(key)}: {describe_one(part)}"
        if isinstance(part, list | tuple | dict):
            yield from _parts(part, depth + 1, max_depth, max_list, max_list)
    if len(value) > most:
        yield f"{indent}..."


def describe_one(value: Any) -> str:
    """Describe one component: its type, and its size, range or value.

    >>> describe_one(np.array([1.0, np.nan, -2.5], "float32"))
    'ndarray:float32 of shape (3,) in range [-2.5000, 1.0000], 1 NaN'
    """
    name = type(value).__name__
    try:
        return f"{name}{_detail(value)}"
    except Exception:  # a property or a str() of a foreign class: whoever looks for a fault in data needs the rest
        return name


def _detail(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f":{_cut(str(value.dtype))} of shape {value.shape}{_range(value)}"
    if isinstance(value, np.void):  # a record, which may hold anything
        return f":{_cut(str(value.dtype))}"
    if isinstance(value, str):
        return f" with value {_text(value)}" + (f" of len {len(value)}" if len(value) > WIDTH else "")
    if isinstance(value, bytes | bytearray):
        return f" with value {bytes(value)!r}" if len(value) <= WIDTH // 4 else f" of len {len(value)}"
    if isinstance(value, int) and value.bit_length() > 200:  # its digits take long
        return f" of {value.bit_length()} bits"
    if isinstance(value, int | float | complex | np.generic):
        return f" with value {_text(value)}"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f" of len {len(value)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):  # a tensor: asking for its range may copy it, or wait
        return f":{_cut(str(value.dtype))} of shape {_cut(str(tuple(value.shape)))}"
    return ""


def _range(array: np.ndarray[Any, Any]) -> str:
    """Say what the values are between, without those that have no order."""
    kind = array.dtype.kind
    if not array.size or kind not in "biufcmM":
        return ""
    if kind == "c":
        with np.errstate(all="ignore"):
            return _range(np.abs(array)).replace(" in range", " of magnitude")
    values, missing = array, 0
    if kind in "fmM":
        is_missing = np.isnan(array) if kind == "f" else np.isnat(array)
        missing = int(np.count_nonzero(is_missing))
        values = array[~is_missing] if missing else array
    bounds = f" in range [{_number(values.min())}, {_number(values.max())}]" if values.size else ""
    return bounds + (f", {missing} {'NaN' if kind == 'f' else 'NaT'}" if missing else "")


def _number(value: Any) -> str:
    """Show a bound: four digits behind the point, unless it is too small or too large for that."""
    if value.dtype.kind != "f":
        return str(value)
    number = float(value)
    return f"{number:.4f}" if number == 0 or 1e-3 <= abs(number) < 1e6 else f"{number:.5g}"


def _text(value: Any) -> str:
    """Show a key or value on one line."""
    if isinstance(value, str | np.str_):
        text = str(value[: WIDTH + 1])
        return _cut(text if text.isprintable() else repr(text)[1:-1])
    return _cut(str(value) if isinstance(value, int | float | complex | np.generic) else reprlib.repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}..."
