"""Names of a package whose modules are loaded when they are first asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def loaded_later(package: str, modules: Mapping[str, str], name: str) -> Any:
    """Return what ``package`` calls ``name``, for its ``__getattr__``, and keep it there.

    Args:
        package: the name of the package.
        modules: for each of its names the module that holds it, relative to the package.
        name: which is asked for.

    Raises:
        AttributeError: if it is none of them.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(import_module(modules[name], package), name)
    setattr(sys.modules[package], name, value)
    return value
