"""Copies of stored datapoints, so that whoever receives one may change it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any


def own(dp: Any) -> Any:
    """Return a copy of a list or dict, one level deep; other values are handed on."""
    if type(dp) is list or type(dp) is dict:
        return dp.copy()
    return copy.copy(dp) if isinstance(dp, list | dict) else dp


def copier(rows: Sequence[Any]) -> Callable[[Any], Any]:
    """Return the cheapest function that does what ``own`` does for every one of ``rows``.

    ``list.copy`` in a C-level map costs 25 ns a datapoint and ``own`` 65; to look at the types costs 12.
    """
    kinds = {*map(type, rows)}
    if kinds == {list}:
        return list.copy
    if kinds == {dict}:
        return dict.copy
    return own
