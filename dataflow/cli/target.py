"""Find the flow that a TARGET of the command line names."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

from ..base import DataFlow, as_flow
from ..errors import UsageError
from ..serializers import LMDBSerializer
from ..utils import check

HELP = """\
TARGET is one of
  package.module:function     a function without arguments that returns a flow, or any iterable of datapoints;
                              the current directory is searched first
  path/to/file.py:function    the same in a file
  data.lmdb                   a file that `dataflow save` or LMDBSerializer.save has written, in its order
"""

# What a data file is read and written with, by its suffix.
SERIALIZERS = {".lmdb": LMDBSerializer}


class TargetError(UsageError):
    """A TARGET, or a FILE, that the command line cannot use."""


def load(target: str) -> DataFlow:
    """Return the flow that ``target`` names; HELP says how.

    Raises:
        TargetError: if there is no such thing, or it is no flow.
        Exception: whatever the code raises that makes the flow.
    """
    return _flow(_find(target), target)


def factory(target: str) -> Callable[[], DataFlow]:
    """Return a function that makes the flow which ``target`` names, anew at each call.

    Raises:
        TargetError: if there is no such thing, or it is a flow that exists already.
        Exception: whatever the code raises that is to make the flow.
    """
    found = _find(target)
    if isinstance(found, DataFlow):
        raise TargetError(
            f"{target!r} is one flow, and each thread needs its own: name a function that makes it, or use --num-proc"
        )
    return partial(_flow, found, target)


def _find(target: str) -> Any:
    """Return what ``target`` names, or a function that opens it if that is a data file."""
    place, colon, name = target.rpartition(":")
    if pathlib.Path(target).exists() or not colon:
        return _file(target)
    module = _run_file(place) if place.endswith(".py") or "/" in place else _import(place)
    return _look_up(module, place, name)


def serializer(path: str) -> Any:
    """Return the class that reads and writes files with the suffix of ``path``.

    Raises:
        TargetError: if there is none.
    """
    suffix = pathlib.Path(path).suffix
    if suffix not in SERIALIZERS:
        raise TargetError(f"cannot tell the format of {path!r}: a data file ends in {', '.join(SERIALIZERS)}")
    return SERIALIZERS[suffix]


def _file(path: str) -> Callable[[], DataFlow]:
    if not pathlib.Path(path).exists():
        raise TargetError(
            f"no such file: {path!r}. A target is a data file, or names a function: "
            "package.module:function or path/to/file.py:function"
        )
    if path.endswith(".py"):
        raise TargetError(f"{path!r} is code: name the function in it that makes the flow, as in {path}:make_flow")
    return partial(serializer(path).load, path, shuffle=False)


def _run_file(path: str) -> ModuleType:
    """Run a Python file as a module, with its directory first on the import path, as ``python path`` does."""
    file = pathlib.Path(path).resolve()
    if not file.is_file():
        others = _similar(file.name, (other.name for other in file.parent.glob("*.py")))
        raise TargetError(f"no such file: {path!r}{others}")
    _search_first(file.parent)
    # A module that is loaded already, such as one of the standard library, keeps its name.
    name = file.stem if file.stem not in sys.modules else f"{file.stem} of {file.parent}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path!r} is no Python file: its name must end in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType:
    """Import a module by its dotted name; the current directory is searched first."""
    _search_first(pathlib.Path.cwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"there is no module {name!r}")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # an import inside the module failed
            raise
        parent, _, last = error.name.rpartition(".")
        found = pkgutil.iter_modules(_folders(parent))
        others = _similar(last, (module.name for module in found))
        raise TargetError(f"there is no module {error.name!r}{others}") from None


def _folders(package: str) -> list[str]:
    """List where the modules of a package lie, or those of the user if there is no package."""
    return [*getattr(sys.modules[package], "__path__", ())] if package else [str(pathlib.Path.cwd())]


def _search_first(folder: pathlib.Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _look_up(module: ModuleType, place: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(f"{place!r} has no {name!r}{_similar(part, dir(found))}") from None
    return found


def _similar(name: str, others: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, [other for other in others if not other.startswith("__")], cutoff=0.7)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _flow(found: Any, target: str) -> DataFlow:
    """Return ``found`` as a flow, or the flow that it makes."""
    if isinstance(found, DataFlow):
        return found
    made = found
    if callable(found):
        _refuse_arguments(found, target)
        made = found()
        if made is None:
            raise TargetError(f"{target!r} returned None: it must return a flow. Is there a `return` at its end?")
    try:
        return as_flow(made)
    except TypeError:
        what = f"{'returned' if callable(found) else 'is'} {check.seen(made)}"
        raise TargetError(f"{target!r} {what}: it must be a flow, or a function that returns one") from None


def _refuse_arguments(make: Callable[..., Any], target: str) -> None:
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # a builtin without a signature: calling it will tell
        return
    try:
        signature.bind()
    except TypeError as error:
        raise TargetError(
            f"{target!r} cannot be called without arguments ({error}). Write a function that takes none, e.g. "
            f"def make_flow(): return {make.__name__}(...)"
        ) from None
