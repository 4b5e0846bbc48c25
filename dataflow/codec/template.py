"""The structure of a datapoint without its values: written down as a template, compiled into a skeleton.

::

    node    = null                                None
            | "int" | "float" | "str" | ...       a scalar, by its name in leaves.py
            | ["numpy", dtype]                    a numpy scalar
            | ["array", dtype, dimensions]        an array in C order
            | ["transposed", dtype, dimensions]   one in Fortran order, stored as its transpose
            | ["list" | "tuple" | "set" | "frozenset", node, ...]
            | ["dict", [key, ...], node, ...]
    key     = null | true | false | number | "text" | bytes | ["big int", bytes] | ["tuple", key, ...]
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from . import dtypes
from .leaves import BIG_INT, LEAF_OF, LEAVES, MAX_INT, MIN_INT, NUMPY_SCALARS, TAIL, Leaf, same
from .refuse import MAX_DEPTH, foreign, too_deep, unheld

SEQUENCES: dict[str, type] = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}

# The fixed value of an array has no bytes; it keeps the array's place among the leaves.
_ARRAY = "0s"

_KEYS = frozenset({type(None), bool, int, float, str, bytes})

_OTHERS = "or pass serializer='pickle'"

Finish = tuple[int, Callable[[Any], Any]]
Build = Callable[[Iterator[Any]], Any]


def template_of(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Write down the structure of a datapoint.

    Raises:
        TypeError: if something in it would not come back as it is; the message names its place.
        ValueError: if it is nested too deep or contains itself.
    """
    kind = type(value)
    if value is None:
        return None
    if kind is int:
        return "int" if MIN_INT <= value <= MAX_INT else BIG_INT.name
    if kind in LEAF_OF:
        return LEAF_OF[kind].name
    if kind is np.ndarray:
        node = "transposed" if value.flags.fnc else "array"
        return [node, _dtype_of(value, path), value.ndim]
    if kind in NUMPY_SCALARS:
        return ["numpy", _dtype_of(value, path)]
    if len(path) >= MAX_DEPTH:
        raise too_deep(path)
    if kind is dict:
        keys = [key_node(key, path) for key in value]
        return ["dict", keys, *(template_of(item, (*path, key)) for key, item in value.items())]
    if SEQUENCES.get(kind.__name__) is kind:
        return [kind.__name__, *(template_of(item, (*path, index)) for index, item in enumerate(value))]
    raise foreign(path, value, others=_OTHERS)


def _dtype_of(value: Any, path: tuple[Any, ...]) -> Any:
    try:
        return dtypes.describe(value.dtype)
    except TypeError as error:
        way_out = f"Give it a numeric dtype or turn it into a list first, {_OTHERS}"
        raise unheld(path, str(error), way_out) from None


def key_node(key: Any, path: tuple[Any, ...] = (), depth: int = 0) -> Any:
    """Write down one key of the dict at ``path``."""
    kind = type(key)
    if kind is int and not MIN_INT <= key <= MAX_INT:
        return [BIG_INT.name, BIG_INT.write(key)]
    if kind in _KEYS:
        return key
    if kind is tuple and depth < MAX_DEPTH:
        return ["tuple", *(key_node(part, path, depth + 1) for part in key)]
    raise unheld(path, f"a dict with a key of type {kind.__qualname__}", f"Use str, int or tuple, {_OTHERS}")


class Skeleton(NamedTuple):
    """What a template says, ready to be filled. A leaf is known by its number, in the order of the template.

    Attributes:
        fixed: the fixed values of all leaves, in a row.
        arrays: (leaf, dtype, number of dimensions); fields come with ``finish``.
        finish: (leaf, function) for leaves that are not yet what they shall be.
        tails: (leaf, function) for leaves whose fixed value is the length of their bytes in the tail.
        build: puts the leaves together; None where their list is the datapoint.
    """

    fixed: struct.Struct
    arrays: tuple[tuple[int, np.dtype[Any], int], ...]
    finish: tuple[Finish, ...]
    tails: tuple[Finish, ...]
    build: Callable[[list[Any]], Any] | None


def compile_template(template: Any) -> Skeleton:
    """Check a template that nobody vouches for, and make it ready.

    Raises:
        ValueError, TypeError: if it is none.
    """
    compiler = _Compiler()
    build = compiler.node(template, 0)
    return Skeleton(
        struct.Struct("<" + "".join(compiler.codes)),
        tuple(compiler.arrays),
        tuple(compiler.finish),
        tuple(compiler.tails),
        _from_list(template, build),
    )


def _from_list(template: Any, build: Build) -> Callable[[list[Any]], Any] | None:
    """Adapt ``build`` to a list of all leaves, with a shorter way for a flat list, tuple or dict."""
    match template:
        case ["list", *nodes] if all(map(_is_leaf, nodes)):
            return None
        case ["tuple", *nodes] if all(map(_is_leaf, nodes)):
            return tuple
        case ["dict", keys, *nodes] if all(map(_is_leaf, nodes)):
            names = tuple(map(_key, keys))
            return lambda leaves: dict(zip(names, leaves, strict=True))
    return lambda leaves: build(iter(leaves))


def _is_leaf(node: Any) -> bool:
    return type(node) is str or (type(node) is list and node[0] in ("array", "transposed", "numpy"))


class _Compiler:
    """Collect the leaves of a template, and return for each node a function from all leaves to its value."""

    def __init__(self) -> None:
        self.codes: list[str] = []
        self.arrays: list[tuple[int, np.dtype[Any], int]] = []
        self.finish: list[Finish] = []
        self.tails: list[Finish] = []

    def node(self, node: Any, depth: int) -> Build:
        match node:
            case None:
                return _none
            case str() if node in LEAVES:
                return self._scalar(LEAVES[node])
            case ["array" | "transposed" as order, dtype, int(ndim)] if 0 <= ndim <= 64:
                return self._array(dtypes.restore(dtype), ndim, order == "transposed")
            case ["numpy", dtype]:
                return self._numpy_scalar(dtypes.restore(dtype))
            case [("dict" | "list" | "tuple" | "set" | "frozenset"), *_] if depth >= MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            case ["dict", list(keys), *nodes] if len(keys) == len(nodes):
                return self._dict(tuple(map(_key, keys)), nodes, depth)
            case [str(kind), *nodes] if kind in SEQUENCES:
                return self._sequence(SEQUENCES[kind], nodes, depth)
        raise ValueError(f"{str(node)[:60]!r} is no node of a template")

    def _scalar(self, leaf: Leaf) -> Build:
        if leaf.code == TAIL:
            self.tails.append((len(self.codes), leaf.read))
        elif leaf.read is not same:
            self.finish.append((len(self.codes), leaf.read))
        self.codes.append(leaf.code)
        return next

    def _array(self, dtype: np.dtype[Any], ndim: int, transposed: bool) -> Build:
        leaf = len(self.codes)
        self.codes.append(_ARRAY)
        self.arrays.append((leaf, dtypes.raw(dtype), ndim))
        if dtype.names is not None:
            self.finish.append((leaf, partial(_with_fields, dtype)))
        if transposed:
            self.finish.append((leaf, attrgetter("T")))
        return next

    def _numpy_scalar(self, dtype: np.dtype[Any]) -> Build:
        if dtype.type not in NUMPY_SCALARS:
            raise ValueError(f"no numpy scalar is held as {dtype}")
        self.finish.append((len(self.codes), partial(numpy_scalar, dtype)))
        self.codes.append(f"{dtype.itemsize}s")
        return next

    def _dict(self, keys: tuple[Any, ...], nodes: list[Any], depth: int) -> Build:
        if len(dict.fromkeys(keys)) < len(keys):
            raise ValueError("a dict has a key twice")
        items = self._items(nodes, depth)
        return lambda leaves: dict(zip(keys, items(leaves), strict=True))

    def _sequence(self, make: Callable[[Any], Any], nodes: list[Any], depth: int) -> Build:
        items = self._items(nodes, depth)
        return lambda leaves: make(items(leaves))

    def _items(self, nodes: list[Any], depth: int) -> Build:
        builds = tuple(self.node(node, depth + 1) for node in nodes)
        if all(map(_is_leaf, nodes)):
            return lambda leaves: islice(leaves, len(builds))
        return lambda leaves: [build(leaves) for build in builds]


def _none(_leaves: Iterator[Any]) -> None:
    return None


def _key(node: Any, depth: int = 0) -> Any:
    match node:
        case [BIG_INT.name, bytes(raw)]:
            return BIG_INT.read(raw)
        case ["tuple", *parts] if depth < MAX_DEPTH:
            return tuple(_key(part, depth + 1) for part in parts)
        case _ if type(node) in _KEYS:
            return node
    raise ValueError(f"{str(node)[:60]!r} is no key of a dict")


def numpy_scalar(dtype: np.dtype[Any], raw: Any) -> Any:
    """Make a numpy scalar with bytes of its own: one with fields can be written to."""
    return np.ndarray((), _own(dtype), bytearray(raw))[()]


def _with_fields(dtype: np.dtype[Any], array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.view(_own(dtype))


def _own(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype whose fields may be renamed, as numpy allows, without renaming those of later datapoints."""
    return dtype if dtype.names is None else dtype.newbyteorder("|")
