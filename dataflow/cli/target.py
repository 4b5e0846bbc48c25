"""Find the flow that a TARGET of the command line names."""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import inspect
import os
import pathlib
import pkgutil
import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType
from typing import Any

from ..base import DataFlow, as_flow
from ..errors import UsageError
from ..serializers import FORMATS, serializer_of
from ..serializers import load as load_file
from ..utils import check
from ..utils.open_file import is_url
from ..utils.shards import has_number
from .words import IN_WORDS

HELP = """\
TARGET is one of
  package.module:function     a function without arguments that returns a flow, or any iterable of datapoints;
                              the current directory is searched first
  path/to/file.py:function    the same in a file
  path/to/data.lmdb           a data file, read in its order: .lmdb .tfrecord .npz .h5 .tar .parquet .arrow .svm
                              and others; or its URL, or a folder with an LMDB file in it
"""


class TargetError(UsageError):
    """A TARGET, or a FILE, that the command line cannot use."""


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that name a flow."""
    parser.add_argument("target", metavar="TARGET", help="the flow; see below")
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare what may be said of a data file whose datapoints are read."""
    add_allow_pickle(parser)
    parser.add_argument(
        "--data-paths",
        metavar="NAME,NAME",
        type=lambda text: text.split(","),
        help="the datasets to read, of an HDF5 file that another program wrote",
    )


def add_allow_pickle(parser: argparse.ArgumentParser) -> None:
    """Declare the option for files that hold pickles."""
    parser.add_argument(
        "--allow-pickle",
        action="store_true",
        help="load a data file that holds pickles, such as tensorpack writes, which may run any code",
    )


def options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the arguments say, as options of ``dataflow.load``."""
    return {name: vars(args)[name] for name in IN_WORDS if vars(args)[name]}


def load(target: str, **options: Any) -> DataFlow:
    """Return the flow that ``target`` names; HELP says how.

    Raises:
        TargetError: if there is no such thing, or it is no flow.
        Exception: whatever the code raises that makes the flow.
    """
    return _flow(_find(target, options), target)


def factory(target: str, **options: Any) -> Callable[[], DataFlow]:
    """Return a function that makes the flow which ``target`` names, anew at each call.

    Raises:
        TargetError: if there is no such thing, or it is a flow that exists already.
        Exception: whatever the code raises that is to make the flow.
    """
    found = _find(target, options)
    if isinstance(found, DataFlow):
        raise TargetError(
            f"{target!r} is one flow, and each thread needs its own: name a function that makes it, or use --num-proc"
        )
    return partial(_flow, found, target)


def is_data_file(target: str) -> bool:
    """Say whether ``target`` names a data file, and not something in Python code."""
    known = os.path.splitext(target)[1].lower() in FORMATS
    return known or is_url(target) or os.path.exists(target) or ":" not in target


def serializer(path: str, *, writes: bool = False) -> Any:
    """Return the class that reads and writes files with the suffix of ``path``.

    Raises:
        TargetError: if there is none.
    """
    try:
        return serializer_of(path, writes=writes)
    except ValueError as error:
        raise TargetError(str(error)) from None


def reader(path: str) -> Any:
    """Return the class that reads the data file at ``path``.

    Raises:
        TargetError: if it is no data file, or none that is there.
    """
    if path.endswith(".py") or not is_data_file(path):
        raise TargetError(f"{path!r} is code and no data file; `dataflow save TARGET FILE` makes one of a flow")
    if why := _missing(path):
        raise TargetError(why)
    return serializer(path)


def writer(path: str) -> Any:
    """Return the class that writes data files with the suffix of ``path``.

    Raises:
        TargetError: if there is none.
    """
    kind = serializer(path, writes=True)
    if not hasattr(kind, "save"):
        raise TargetError(f"files like {path!r} are only read here: choose another suffix, such as .lmdb")
    return kind


def _find(target: str, options: dict[str, Any]) -> Any:
    """Return what ``target`` names, or a function that opens it if that is a data file."""
    if is_data_file(target):
        return _file(target, options)
    if options:
        given = " and ".join(IN_WORDS[name][1].partition(" ")[0] for name in options)
        raise TargetError(f"{given}: for data files only, and {target!r} is code. Say it there, to what reads the file")
    place, _, name = target.rpartition(":")
    if not name:
        raise TargetError(f"{target!r} names no function: say which behind the colon, as in {target}make_flow")
    if not place:
        raise TargetError(f"{target!r} names no file or module: say which before the colon, as in train.py{target}")
    module = _run_file(place) if place.endswith(".py") or "/" in place else _import(place)
    return _look_up(module, place, name)


def _file(path: str, options: dict[str, Any]) -> Callable[[], DataFlow]:
    if why := _missing(path):
        raise TargetError(
            f"{why} A target is a data file, or names a function: package.module:function or path/to/file.py:function"
        )
    if path.endswith(".py"):
        raise TargetError(f"{path!r} is code: name the function in it that makes the flow, as in {path}:make_flow")
    kind = serializer(path)
    known = inspect.signature(getattr(kind, "load", kind)).parameters
    for name in options:
        if name not in known:
            raise TargetError(f"files like {path!r} take no {IN_WORDS[name][1].partition(' ')[0]}: leave it out")
    return partial(load_file, path, **options)


def _missing(path: str) -> str | None:
    """Say that there is no data file at ``path``, if so."""
    if is_url(path) or os.path.exists(path) or "{" in path or has_number(path):  # these stand for several files
        return None
    file = pathlib.Path(path)
    return f"no such file: {path!r}{similar(file.name, (other.name for other in file.parent.glob('*'))) or '.'}"


def _run_file(path: str) -> ModuleType:
    """Run a Python file as a module, with its directory first on the import path, as ``python path`` does."""
    file = pathlib.Path(path).resolve()
    if not file.is_file():
        others = similar(file.name, (other.name for other in file.parent.glob("*.py")))
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
        others = similar(last, (module.name for module in found))
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
            raise TargetError(f"{place!r} has no {name!r}{similar(part, dir(found))}") from None
    return found


def similar(name: str, others: Iterable[str]) -> str:
    """Ask whether one of ``others`` was meant, or return nothing if none is like ``name``."""
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
