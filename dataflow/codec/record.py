"""Write a datapoint as one record, and read it back. The layout is drawn in ``dataflow.codec``."""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy import ndarray

from ..errors import CorruptDataError
from ..utils.deps import need
from . import dtypes
from .leaves import BIG_INT, LEAF_OF, MAX_INT, MIN_INT, NUMPY_SCALARS, TAIL
from .refuse import MAX_DEPTH
from .template import Finish, Skeleton, compile_template, key_node, template_of
from .untrusted import msgpack, unpack

FIRST_BYTE = 0xC1  # begins no msgpack value and no pickle
CHECKED = b"\xc1DF\x01"
UNCHECKED = b"\xc1df\x01"  # two bits away from CHECKED: no single flip turns the check off
ALIGNMENT = 64

_PRELUDE = struct.Struct("<4sI")  # magic, length of the header
_unpack_prelude = _PRELUDE.unpack_from
_LENGTH = struct.Struct("<I")
_CHECKSUM = struct.Struct("<I")
_INTACT = 0x48674BC7  # the crc32c of any bytes with their own crc32c behind them
_PIECE = 1 << 16
_BYTE = np.dtype(np.uint8)

_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})

# Structures and shapes are few in an honest file; in a hostile one they are endless.
_MAX_CACHED = 256
_MAX_CACHED_LENGTH = 4096

_Key = TypeVar("_Key", bytes, tuple[Any, ...])
_Value = TypeVar("_Value")


class _Layout(NamedTuple):
    """What the records of one structure with arrays of the same shapes share, for the writer."""

    head: bytes  # the prelude and the header
    pack: Callable[..., bytes]
    pads: tuple[bytes, ...]  # one behind each array; () where all are empty


class _Plan(NamedTuple):
    """What they share for the reader."""

    unpack: Callable[..., tuple[Any, ...]]
    size: int  # bytes behind the header, without the tail
    arrays: tuple[tuple[int, tuple[int, ...], np.dtype[Any], int], ...]  # leaf, shape, dtype, offset
    finish: tuple[Finish, ...]
    tails: tuple[Finish, ...]
    build: Callable[[list[Any]], Any] | None


_layouts: dict[tuple[Any, ...], _Layout] = {}  # by signature
_templates: dict[tuple[Any, ...], tuple[bytes, Skeleton]] = {}  # by signature without shapes
_plans: dict[bytes, _Plan] = {}  # by header
_skeletons: dict[bytes, Skeleton] = {}  # by template


def _keep(cache: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    if len(key) <= _MAX_CACHED_LENGTH:
        if len(cache) >= _MAX_CACHED:
            cache.clear()
        cache[key] = value
    return value


@functools.cache
def _crc32c() -> Callable[[int, Any], int]:
    extend: Callable[[int, Any], int] = need("google_crc32c", by="the checksum of a record").extend
    return extend


def checksum(data: bytes | bytearray | memoryview | ndarray[Any, Any]) -> int:
    """Return the crc32c of bytes, of a contiguous view of bytes, or of an array that lies in memory and in no file."""
    extend = _crc32c()
    kind = type(data)
    if kind is bytearray:
        return extend(0, ndarray(len(data), _BYTE, data))  # which takes what cannot change its size
    if kind is bytes or kind is ndarray:
        return extend(0, data)
    # A view is mostly of a file's page that is in no cache yet. There, copying a piece and looking at the copy
    # takes two thirds of the time of looking at the page.
    crc = 0
    for start in range(0, len(data), _PIECE):
        crc = extend(crc, bytes(data[start : start + _PIECE]))
    return crc


def encode(dp: Any, with_checksum: bool) -> bytes:
    """Return ``dp`` as one record."""
    signature: list[Any] = [CHECKED if with_checksum else UNCHECKED]
    values: list[Any] = []
    arrays: list[Any] = []
    tail: list[bytes] = []
    if type(dp) in _CONTAINERS:
        _scan(dp, 0, signature, values, arrays, tail)
    else:
        signature.append("bare")
        _scan((dp,), 0, signature, values, arrays, tail)
    key = tuple(signature)
    layout = _layouts.get(key)
    if layout is None:
        layout = _lay_out(dp, key, arrays)
    head, pack, pads = layout
    if pads:
        arrays = [part for pair in zip(arrays, pads, strict=True) for part in pair]
    parts = [head + pack(*values), *arrays, *tail]
    crc = 0
    if with_checksum:
        extend = _crc32c()
        for part in parts:
            crc = extend(crc, part)
    parts.append(_CHECKSUM.pack(crc))
    return b"".join(parts)


def _scan(
    container: Any,
    depth: int,
    signature: list[Any],
    values: list[Any],
    arrays: list[Any],
    tail: list[bytes],
) -> None:
    """Sort what ``container`` holds into fixed values, arrays and tail; the signature says what it all is.

    Equal signatures have equal templates. Nothing is refused here: a type that cannot be held stands in the
    signature, which is then in no cache, and ``template_of`` refuses it by its place.
    """
    kind = type(container)
    signature += (kind, len(container))
    if kind is dict:
        signature += [key if type(key) in (str, int) else _token(key_node, key) for key in container]
        container = container.values()
    for item in container:
        kind = type(item)
        if kind is ndarray:
            if not item.flags.c_contiguous:
                if item.flags.f_contiguous:
                    item = item.T
                    signature.append("transposed")
                else:
                    item = np.ascontiguousarray(item.view(dtypes.raw(item.dtype))).view(item.dtype)
            dtype = item.dtype
            signature += (dtype if dtype.names is None else _token(dtypes.describe, dtype), item.shape)
            values.append(b"")
            arrays.append(item)
        elif (kind is int and MIN_INT <= item <= MAX_INT) or kind is float or kind is bool:
            signature.append(kind)
            values.append(item)
        elif kind in LEAF_OF:
            leaf = BIG_INT if kind is int else LEAF_OF[kind]
            signature.append(leaf.name)
            value = leaf.write(item)
            if leaf.code == TAIL:
                tail.append(value)
                value = len(value)
            values.append(value)
        elif kind in _CONTAINERS and depth < MAX_DEPTH:
            _scan(item, depth + 1, signature, values, arrays, tail)
        elif kind in NUMPY_SCALARS:
            dtype = item.dtype
            signature += (kind, dtype if dtype.names is None else _token(dtypes.describe, dtype))
            values.append(item.tobytes())
        else:
            signature.append(kind)


def _token(write_down: Callable[[Any], Any], value: Any) -> Any:
    """Tell apart what is equal and yet not the same: 1, True and 1.0; fields that are aligned or not."""
    try:
        return _packed(write_down(value))
    except TypeError:
        return type(value)


def _packed(node: Any) -> bytes:
    packed: bytes = msgpack().packb(node, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def _lay_out(dp: Any, signature: tuple[Any, ...], arrays: list[Any]) -> _Layout:
    """Make the layout of a datapoint that is the first with its structure, or the first with its shapes."""
    structure = tuple(len(token) if type(token) is tuple else token for token in signature)
    known = _templates.get(structure)
    if known is None:
        template = template_of(dp)
        known = _keep(_templates, structure, (_packed(template), compile_template(template)))
    packed, skeleton = known
    lengths = [length for array in arrays for length in array.shape]
    header = _LENGTH.pack(len(packed)) + packed + struct.pack(f"<{len(lengths)}Q", *lengths)
    pads = []
    if arrays:
        header += _padding(_PRELUDE.size + len(header) + skeleton.fixed.size)
        pads = [_padding(array.nbytes) for array in arrays[:-1]] + [b""]
    head = _PRELUDE.pack(signature[0], len(header)) + header
    return _keep(_layouts, signature, _Layout(head, skeleton.fixed.pack, tuple(pads) if any(pads) else ()))


def _padding(size: int) -> bytes:
    return bytes(-size % ALIGNMENT)


def decode(data: bytes | bytearray | memoryview, copy: bool, verify: bool) -> Any:
    """Return the datapoint of one record.

    Args:
        data: bytes, or a read-only contiguous view of bytes.
        copy: whether arrays get memory of their own; else they are views on ``data``.
        verify: whether to compare the checksum.

    Raises:
        CorruptDataError: if ``data`` is anything but what ``encode`` returns.
    """
    try:
        magic, length = _unpack_prelude(data)
        start = _PRELUDE.size + length
        header = bytes(data[_PRELUDE.size : start])
        plan = _plans.get(header)
        if copy and type(data) is not bytes and (plan is None or plan.arrays):
            # One copy of all, out of a page that is in no cache, serves the checksum and the arrays.
            data, copy = bytearray(data), False
        if magic == CHECKED:
            if verify and checksum(data) != _INTACT:
                raise CorruptDataError(
                    "a damaged record: its bytes and their checksum do not agree. Copy it again, or write it anew"
                )
        elif magic != UNCHECKED:
            raise CorruptDataError(
                f"a record that begins with {magic!r}, not {CHECKED!r}: damaged, or of a later dataflow"
            )
        if plan is None:
            plan = _make_plan(header)
        unpack_values, size, arrays, finish, tails, build = plan
        tail_size = len(data) - start - size
        if tail_size and (tail_size < 0 or not tails):
            raise _wrong_length(data, start + size)
        leaves = list(unpack_values(data, start))
        for leaf, shape, dtype, offset in arrays:
            array: Any = ndarray(shape, dtype, data, offset)
            leaves[leaf] = array.copy() if copy else array
        if finish:
            for leaf, read in finish:
                leaves[leaf] = read(leaves[leaf])
        if tails:
            _read_tail(data, start + size - _CHECKSUM.size, leaves, tails)
        return leaves if build is None else build(leaves)
    except CorruptDataError:
        raise
    except (struct.error, ValueError, TypeError, OverflowError) as error:
        # What struct, msgpack, numpy and the containers say to bytes that no writer of ours wrote.
        raise CorruptDataError(f"a record that does not hold what it promises: {error}") from error


def _read_tail(
    data: bytes | bytearray | memoryview, position: int, leaves: list[Any], tails: tuple[Finish, ...]
) -> None:
    for leaf, read in tails:
        end = position + leaves[leaf]
        leaves[leaf] = read(data[position:end])
        position = end
    if position != len(data) - _CHECKSUM.size:
        raise _wrong_length(data, position + _CHECKSUM.size)


def _wrong_length(data: bytes | bytearray | memoryview, promised: int) -> CorruptDataError:
    return CorruptDataError(
        f"a record of {len(data)} bytes whose header promises {promised}: "
        "cut short, or glued to something else. Write it again"
    )


def _make_plan(header: bytes) -> _Plan:
    """Make the plan for a header not seen lately."""
    (length,) = _LENGTH.unpack_from(header)
    behind = _LENGTH.size + length
    packed = header[_LENGTH.size : behind]
    skeleton = _skeletons.get(packed)
    if skeleton is None:
        template = unpack(packed, unicode_errors="surrogatepass")
        skeleton = _keep(_skeletons, packed, compile_template(template))
    lengths = struct.Struct(f"<{sum(ndim for _, _, ndim in skeleton.arrays)}Q")
    lengths_left = iter(lengths.unpack_from(header, behind))
    padding = header[behind + lengths.size :]
    if len(padding) >= ALIGNMENT or any(padding):
        raise ValueError("its header is longer than what stands in it")
    start = _PRELUDE.size + len(header)
    end = start + skeleton.fixed.size
    arrays = []
    for leaf, dtype, ndim in skeleton.arrays:
        shape = tuple(islice(lengths_left, ndim))
        end += -end % ALIGNMENT
        arrays.append((leaf, shape, dtype, end))
        end += dtype.itemsize * math.prod(shape)
    _, finish, tails, build = skeleton[1:]
    size = end + _CHECKSUM.size - start
    return _keep(_plans, header, _Plan(skeleton.fixed.unpack_from, size, tuple(arrays), finish, tails, build))
