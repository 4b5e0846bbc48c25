"""Objects to bytes between processes of ours: plain pickle where it does, cloudpickle where it does not.

Plain pickle names functions and classes, and the other side imports them. What it cannot find again (lambdas, local
classes, in a new interpreter everything of ``__main__``, which is never run twice) travels by value instead.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import numpy as np

from .deps import need

# Buffers below this many bytes stay in the pickle: a part of its own costs more than it saves.
OUT_OF_BAND = 2048
MAIN = b"__main__"
WAY_OUT = "Take it out, or make it anew in the process that uses it."

# A frame lists the size of each of its arrays; beyond this many the rest stays in the pickle.
MAX_BUFFERS = 1024

# True in an interpreter that was started by ours, whose __main__ is not the user's script.
_guest = False


class Buffers(list[memoryview]):
    """The bulk of an object, beside its pickle; ``take`` is the buffer_callback."""

    read_only = False  # True where an array may not be written to; such a pickle would load as one that may not, too

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.readonly and isinstance(raw.obj, np.ndarray):
            self.read_only = True
        if raw.nbytes < OUT_OF_BAND or len(self) >= MAX_BUFFERS:
            return True
        self.append(raw)
        return False


def dumps(obj: Any, buffers: Buffers | None = None, *, main_by_value: bool = False) -> bytes:
    """Pickle ``obj``; large arrays go to ``buffers``, which refer to their memory.

    With ``buffers`` every array, of any size and at any depth, loads as one that may be written to.

    Args:
        obj: anything.
        buffers: an empty list to be filled, or None to keep all in the pickle.
        main_by_value: the reader is an interpreter of ours without the user's ``__main__``.
    """
    take = None if buffers is None else buffers.take
    try:
        data = pickle.dumps(obj, pickle.HIGHEST_PROTOCOL, buffer_callback=take)
    except (RecursionError, MemoryError):
        raise
    except Exception:
        data = b""
    again = buffers is not None and buffers.read_only
    if data and not again and not (main_by_value and MAIN in data):
        return data
    if buffers is not None:
        buffers.clear()
    return travel(obj, buffers, main_by_value=main_by_value)


def travel(
    obj: Any,
    buffers: Buffers | None = None,
    *,
    main_by_value: bool = False,
    reduce: Callable[[Any], Any] | None = None,
) -> bytes:
    """Pickle ``obj`` by cloudpickle; ``reduce`` may say how an object is taken apart, or NotImplemented."""
    file = io.BytesIO()
    _pickler()(file, buffers, main_by_value, reduce).dump(obj)
    return file.getvalue()


def load() -> None:
    """Load cloudpickle now."""
    _pickler()


def be_guest() -> None:
    """Remember that the user's ``__main__`` is not the one of this interpreter."""
    global _guest
    _guest = True


@lru_cache(maxsize=1)
def _pickler() -> Any:
    """Make our pickler; cloudpickle is loaded now and not before."""
    base: Any = need("cloudpickle", by="a worker process").Pickler

    class Pickler(base):  # type: ignore[misc]  # untyped
        def __init__(self, file: Any, buffers: Buffers | None, main_by_value: bool, reduce: Any) -> None:
            take = None if buffers is None else buffers.take
            super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=take)
            self._by_value = main_by_value
            self._reduce = reduce
            self._copies = buffers is not None

        def reducer_override(self, obj: Any) -> Any:
            if self._reduce is not None and (parts := self._reduce(obj)) is not NotImplemented:
                return parts
            if self._copies and type(obj) is np.ndarray and not obj.flags.writeable:
                return obj.copy("K").__reduce_ex__(pickle.HIGHEST_PROTOCOL)
            if isinstance(obj, type | types.FunctionType) and _is_of_main(obj) and not self._by_value:
                return obj.__qualname__  # the reader has it under this name
            return super().reducer_override(obj)

    return Pickler


def _is_of_main(obj: Any) -> bool:
    """Say whether a class or function can be found in ``__main__`` by its name.

    Where ours is a guest, put there what came from the user's: now plain pickle finds it here, and there its original.
    """
    if obj.__module__ != "__main__" or "." in obj.__qualname__:
        return False
    names = vars(sys.modules["__main__"])
    if _guest:
        names.setdefault(obj.__name__, obj)
    return names.get(obj.__qualname__) is obj


def explain(parts: Iterable[tuple[str, Any]], error: BaseException) -> str:
    """Say which place in ``parts``, objects with their names, cannot be pickled, and what to do."""
    named = list(parts)
    for main_by_value in (False, True):  # what pickles by its name may have been sent by value
        for name, obj in named:
            if (reason := _fails(obj, main_by_value)) is not None:
                place, part, reason = _culprit(obj, name, reason, main_by_value)
                return f"{place} is a {type(part).__name__} and cannot be sent to another process: {reason}. {WAY_OUT}"
    return f"this cannot be sent to another process: {error}. {WAY_OUT}"


def _culprit(obj: Any, name: str, error: BaseException, main_by_value: bool) -> tuple[str, Any, BaseException]:
    """Return the place, the object and the error of the innermost part that cannot be pickled."""
    seen = set()
    while id(obj) not in seen:
        seen.add(id(obj))
        for label, part in _parts(obj):
            if (found := _fails(part, main_by_value)) is not None:
                obj, name, error = part, name + label, found
                break
        else:
            break
    return name, obj, error


def _fails(obj: Any, main_by_value: bool) -> BaseException | None:
    try:
        travel(obj, main_by_value=main_by_value)
    except Exception as error:
        return error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    """Yield what pickle would go into, with how one writes it."""
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield f"[{key!r}]", value
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            yield f"[{index}]", value
    elif isinstance(obj, np.ndarray) and obj.dtype.hasobject:
        for index, value in enumerate(obj.flat):
            yield f".flat[{index}]", value
    elif isinstance(obj, types.FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
    elif isinstance(obj, partial):
        yield from {".func": obj.func, ".args": obj.args, ".keywords": obj.keywords}.items()
    elif isinstance(obj, type):
        yield ".__bases__", obj.__bases__
        yield from _attributes({name: value for name, value in vars(obj).items() if not _is_made_anew(name, value)})
    else:
        yield from _attributes(_state(obj))
        yield "'s class", type(obj)


def _parts_of_function(func: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for variable, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        with suppress(ValueError):  # it has no value yet
            yield f"'s variable {variable}", cell.cell_contents
    for variable in _names(func.__code__):
        if variable in func.__globals__:
            yield f"'s global {variable}", func.__globals__[variable]
    yield ".__defaults__", func.__defaults__
    yield ".__kwdefaults__", func.__kwdefaults__


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield the globals that a function may use, and those that are inside of it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names(inner)


def _attributes(state: Any) -> Iterator[tuple[str, Any]]:
    for attributes in state if isinstance(state, tuple) else (state,):  # with slots it is a pair
        if isinstance(attributes, dict):
            for attribute, value in attributes.items():
                yield f".{attribute}", value


def _is_made_anew(name: str, value: Any) -> bool:
    """Say whether Python makes this attribute of a class, so that it does not travel."""
    return name == "_abc_impl" or isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType)


def _state(obj: Any) -> Any:
    """Return what pickle would keep of an object, or None if it is the object that refuses."""
    try:
        return obj.__getstate__()
    except Exception:
        return None
