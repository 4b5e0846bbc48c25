"""Keep the spellings of tensorpack's first versions working, with a warning that names the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def renamed(**new_names: str) -> Callable[[F], F]:
    """Let a function also take keyword arguments by their old names, given as ``old="new"``."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old in new_names.keys() & kwargs.keys():
                new = new_names[old]
                warnings.warn(f"the argument {old!r} is an old name, use {new!r}", DeprecationWarning, stacklevel=2)
                if new in kwargs:
                    raise TypeError(f"{old!r} is the old name of {new!r}; pass only one of them")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]  # the same signature, plus old names

    return decorate
