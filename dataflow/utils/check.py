"""Check arguments: the error names the argument as the user typed it, the value seen and what is allowed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np


def integer(minimum: int | None = None, /, **values: Any) -> None:
    """Raise unless every value is an integer (not a bool) and at least ``minimum``."""
    wanted = "an integer" if minimum is None else f"an integer of at least {minimum}"
    for name, value in values.items():
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:  # classes and arrays have __index__ too
            number = None
        if number is None:
            raise TypeError(f"{name} must be {wanted}, got {seen(value)}")
        if minimum is not None and number < minimum:
            raise ValueError(f"{name} must be {wanted}, got {value}")


def flag(**values: Any) -> None:
    """Raise unless every value is True or False."""
    for name, value in values.items():
        if value is not True and value is not False:
            raise TypeError(f"{name} must be True or False, got {seen(value)}")


def function(**values: Any) -> None:
    """Raise unless every value can be called."""
    for name, value in values.items():
        if not callable(value):
            raise TypeError(f"{name} must be callable, got {seen(value)}")


def instance(kind: type | tuple[type, ...], wanted: str, /, **values: Any) -> None:
    """Raise unless every value is a ``kind``; ``wanted`` says it in words."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {wanted}, got {seen(value)}")


def one_of(allowed: tuple[Any, ...], /, **values: Any) -> None:
    """Raise unless every value is one of ``allowed``."""
    for name, value in values.items():
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {seen(value)}")


def seen(value: Any) -> str:
    """Show a wrong value in an error: its type, and its text where that is short."""
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    if isinstance(value, np.generic):
        return f"{value} (numpy.{type(value).__name__})"
    if isinstance(value, Callable):  # type: ignore[arg-type]  # a plain ABC check; mypy wants a concrete type
        return f"the function {getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, bool | int | float | str | bytes) or value is None:
        text = repr(value)
        if len(text) > 60:
            text = f"{text[:57]}..."
        return text if value is None else f"{text} ({type(value).__qualname__})"
    return f"a {type(value).__qualname__}"
