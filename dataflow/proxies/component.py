"""Say which component of a datapoint is missing, and what it has."""

from __future__ import annotations

import reprlib
from typing import Any

from ..errors import MissingKeyError


def look_up(dp: Any, index: Any, argument: str) -> Any:
    """Return a component, or say what the datapoint has instead.

    Made for the except clause of what has failed with ``dp[index]``, which is faster.

    >>> look_up([1, 2], 2, "index")
    Traceback (most recent call last):
    ...
    IndexError: there is no component 2: the datapoint is a list of 2. Give 0 to 1 as index

    Args:
        dp: the datapoint.
        index: index or key.
        argument: what the user calls it.

    Raises:
        IndexError: if there is no such component (KeyError for a dict, TypeError for a key of a list).
    """
    try:
        return dp[index]
    except (IndexError, KeyError, TypeError) as error:
        if not isinstance(dp, list | tuple | dict):
            raise
        kind = next((kind for kind in (IndexError, TypeError) if isinstance(error, kind)), MissingKeyError)
        raise kind(f"there is no component {index!r}: the datapoint is {_content(dp, argument)}") from None


def _content(dp: Any, argument: str) -> str:
    kind = type(dp).__name__
    if not dp:
        return f"an empty {kind}. Drop those upstream, e.g. MapData(ds, lambda dp: dp or None)"
    if isinstance(dp, dict):
        return f"a {kind} with the keys {reprlib.repr([*dp])[1:-1]}. Give one of them as {argument}"
    return f"a {kind} of {len(dp)}. Give 0 to {len(dp) - 1} as {argument}"
