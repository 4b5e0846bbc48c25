"""Datapoints to columns of Arrow and back, exactly: what Parquet and Arrow files hold.

::

    component           column                            kind, as the file notes it
    bool int float      bool, int64, double               "bool" "int" "float"
    str bytes           string, binary                    "str" "bytes"
    None                null; also beside all above       "none"
    numpy scalar        the same type                     "int32" "float16" ...
    array               Arrow: a tensor of fixed shape    dtype, shape, and whether it lies by columns
                        Parquet, and dtypes that Arrow lacks: binary of fixed size

Parquet has no tensors: as lists, of which it notes where each begins, arrays take ten times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptDataError
from ..utils.deps import need
from . import dtypes

_PYTHON = {"bool": bool, "int": int, "float": float, "str": str, "bytes": bytes, "none": type(None)}
_NUMPY = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
          "float64")  # fmt: skip
_SCALARS = {f"numpy.{name}": np.dtype(name).type for name in _NUMPY}
# Arrow counts the bytes of an array in 32 bits, and Parquet those of a page with others in it.
MOST_BYTES = 1 << 30
# One less than numpy has: the rows of a group are one more.
_MOST_DIMENSIONS = 63
_KIND_OF = {kind: name for name, kind in (_PYTHON | _SCALARS).items()}


def pyarrow() -> Any:
    """Return the package."""
    return need("pyarrow", by="a Parquet or Arrow file")


class Column(NamedTuple):
    """What the values of one component have in common."""

    name: str
    kind: str  # "array", or a name as above
    dtype: Any = None
    shape: tuple[int, ...] = ()
    by_columns: bool = False

    @property
    def width(self) -> int:
        """Bytes of an array."""
        return int(self.dtype.itemsize * math.prod(self.shape))

    @property
    def has_bytes(self) -> bool:
        """Whether it holds arrays, and not of nothing."""
        return self.kind == "array" and self.width > 0

    def arrow_type(self, tensors: bool) -> Any:
        """Return the type of the column, with arrays as tensors or as binary."""
        pa = pyarrow()
        if self.kind == "array":
            if not self.width:
                return pa.null()
            if tensors and _has_tensors(self.dtype):
                shape = self.shape[::-1] if self.by_columns else self.shape
                return pa.fixed_shape_tensor(pa.from_numpy_dtype(self.dtype), shape)
            return pa.binary(self.width)
        if self.kind in _SCALARS:
            return pa.from_numpy_dtype(_SCALARS[self.kind])
        return {
            "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "str": pa.string(), "bytes": pa.binary(),
            "none": pa.null(),
        }[self.kind]  # fmt: skip

    def written(self) -> list[Any]:
        """Return what ``column_of`` reads."""
        if self.kind != "array":
            return [self.name, self.kind]
        return [self.name, self.kind, dtypes.describe(self.dtype), list(self.shape), self.by_columns]


def column_of(written: Any) -> Column:
    """Return the column that is noted in a file.

    Raises:
        ValueError: if there is none like it.
    """
    match written:
        case [str(name), str(kind)] if kind in _PYTHON or kind in _SCALARS:
            return Column(name, kind)
        case [str(name), "array", dtype, list(shape), bool(by_columns)] if all(
            type(n) is int and n >= 0 for n in shape
        ):
            column = Column(name, "array", dtypes.restore(dtype), tuple(shape), by_columns)
            if column.width > MOST_BYTES or len(shape) > _MOST_DIMENSIONS:
                raise ValueError(f"it has a column {name[:60]!r} of arrays that are larger than any")
            if not column.width:
                np.empty(shape, column.dtype)  # numpy has a limit for these, too
            return column
    raise ValueError(f"it has a column {str(written)[:60]}, which is of a later dataflow or damaged")


def _has_tensors(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf" and dtype.itemsize <= 8 and dtype.isnative


# Makes the error for the value with an index.
Fail = Callable[[int, str], TypeError]


def new_column(name: str, values: list[Any], fail: Fail) -> Column:
    """Return the column for the first values of a component.

    Raises:
        TypeError: if neither Parquet nor Arrow holds them.
    """
    index = next((index for index, value in enumerate(values) if value is not None), 0)
    first = values[index] if values else None
    if type(first) is np.ndarray:
        try:
            dtypes.describe(dtypes.checked(first.dtype))
        except (TypeError, ValueError):
            raise fail(index, f"an array of dtype {first.dtype}") from None
        column = Column(name, "array", first.dtype, first.shape, _by_columns(first))
        if column.width > MOST_BYTES or first.ndim > _MOST_DIMENSIONS:
            raise fail(
                index,
                f"{_shown(column)}, which is too large: a column holds arrays of up to 1 GiB and {_MOST_DIMENSIONS} "
                "dimensions",
            )
        return column
    kind = _KIND_OF.get(type(first))
    if kind is None:
        raise fail(
            index,
            "a column holds bool, int, float, str, bytes, None, numpy numbers or arrays of one shape, and this is a "
            f"{type(first).__name__}",
        )
    return Column(name, kind)


def _by_columns(array: np.ndarray[Any, Any]) -> bool:
    return array.flags.f_contiguous and not array.flags.c_contiguous


def to_arrow(column: Column, values: list[Any], tensors: bool, fail: Fail, together: Any = None) -> Any:
    """Return the values of a component as an Arrow array.

    Args:
        column: what they have in common.
        values: the values.
        tensors: whether arrays become tensors, or binary.
        fail: makes the error.
        together: the bytes of all of them, if they are arrays and known to be what the column is.

    Raises:
        TypeError: if one is not like those before.
    """
    pa = pyarrow()
    kind = column.arrow_type(tensors)
    if column.kind != "array":
        python = _PYTHON.get(column.kind) or _SCALARS[column.kind]
        for index, value in enumerate(values):
            if type(value) is not python and value is not None:
                raise fail(index, _unlike(column.kind, type(value).__name__))
        if column.kind in _SCALARS:
            return _numpy_to_arrow(values, python, kind)
        try:
            array = pa.array(values, kind)
        except (pa.ArrowException, ValueError, OverflowError) as error:
            raise fail(_first_failing(values, kind), str(error)) from None
        if column.kind in ("str", "bytes") and array.nbytes > MOST_BYTES:
            index = max(range(len(values)), key=lambda index: len(values[index] or ""))
            raise fail(
                index, f"{column.kind} of {len(values[index]):,}, which is too large: a column holds up to 1 GiB"
            )
        return array
    for index, value in enumerate(values if together is None else ()):
        if (
            type(value) is not np.ndarray
            or value.shape != column.shape
            or value.dtype != column.dtype
            or _by_columns(value) != column.by_columns
        ):
            raise fail(index, f"it was {_shown(column)} so far, and is {_seen(value)} now. Make them alike")
    if not column.width:
        return pa.nulls(len(values))
    raw = pa.py_buffer(b"".join([_raw(value) for value in values]) if together is None else together)
    if not hasattr(kind, "storage_type"):
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(values), [None, raw])
    items = pa.Array.from_buffers(kind.value_type, len(values) * math.prod(column.shape), [None, raw])
    return pa.ExtensionArray.from_storage(kind, pa.FixedSizeListArray.from_arrays(items, math.prod(column.shape)))


def _unlike(kind: str, seen: str) -> str:
    if kind == "none":
        return f"it was None in the whole first group of rows, and is {seen} now. Begin with a row that has a value"
    return f"it was {kind} so far, and is {seen} now. Make them alike"


def _numpy_to_arrow(values: list[Any], scalar: Any, kind: Any) -> Any:
    """Return numpy scalars as an Arrow array. Arrow takes them for Python's, which changes bits of a float32 NaN."""
    gaps = np.array([value is None for value in values], bool)
    known = [scalar(0) if value is None else value for value in values]
    return pyarrow().array(np.array(known, scalar), kind, mask=gaps if gaps.any() else None)


def _first_failing(values: list[Any], kind: Any) -> int:
    pa = pyarrow()
    for index, value in enumerate(values):
        try:
            pa.array([value], kind)
        except (pa.ArrowException, ValueError, OverflowError):
            return index
    return len(values) - 1


def _shown(column: Column) -> str:
    order = ", by columns" if column.by_columns else ""
    return f"an array of shape {column.shape} and dtype {column.dtype}{order}"


def _seen(value: Any) -> str:
    if type(value) is not np.ndarray:
        return type(value).__name__
    return _shown(Column("", "array", value.dtype, value.shape, _by_columns(value)))


def _raw(array: np.ndarray[Any, Any]) -> Any:
    """Return the bytes of an array, without a copy where it lies in one piece."""
    if _by_columns(array):
        array = array.T
    if not array.flags.c_contiguous or array.dtype.kind in "mM" or array.dtype.names is not None:
        return array.tobytes()
    return array


def from_arrow(column: Column, array: Any, block: Any = None) -> Iterator[Any]:
    """Return the values of an Arrow array; numpy arrays are in memory of their own, to write to.

    Args:
        column: what the values are.
        array: of one or many values.
        block: memory, as a numpy array, that is of this batch alone. Arrays that lie in it are views on it; a copy of
            each would take as long as reading it.

    Raises:
        CorruptDataError: if they are not what the file notes.
    """
    rows = len(array)
    if _is_shared(array):
        return _shared(array)
    if column.kind == "array":
        if not column.width:
            return iter(
                [np.empty(column.shape, column.dtype, order="F" if column.by_columns else "C") for _ in range(rows)]
            )
        if array.null_count:
            raise CorruptDataError(f"the column {column.name!r} of arrays has gaps")
        raw, offset = _data(array)
        inside = -1 if block is None else raw.address - block.ctypes.data
        is_view = 0 <= inside <= len(block) - raw.size
        shape = column.shape[::-1] if column.by_columns else column.shape
        # With an axis more, what comes of an array without any is an array and no number.
        whole = np.ndarray(
            (rows, *(shape or (1,))), column.dtype, *((block, inside + offset) if is_view else (raw, offset))
        )
        arrays: Iterator[Any] = iter(whole) if is_view and whole.flags.aligned else map(np.ndarray.copy, whole)
        if not shape:
            return (array.reshape(()) for array in arrays)
        return map(np.transpose, arrays) if column.by_columns else arrays
    if column.kind in ("int", "float") and not array.null_count:
        return iter(array.to_numpy().tolist())
    if column.kind not in _SCALARS:
        return iter(array.to_pylist())
    kind = _SCALARS[column.kind]
    if kind is np.bool_:
        return iter([None if value is None else kind(value) for value in array.to_pylist()])
    if not array.null_count:
        return iter(array.to_numpy(zero_copy_only=False))
    # Gaps would come as NaN among floats of 64 bits, which changes bits of others: take the values without the gaps.
    values = pyarrow().Array.from_buffers(array.type, rows, [None, array.buffers()[1]], offset=array.offset).to_numpy()
    return (value if there else None for value, there in zip(values, array.is_valid().to_pylist(), strict=True))


def _data(array: Any) -> tuple[Any, int]:
    """Return the buffer that holds the arrays of a column, and where in it they begin."""
    if hasattr(array, "storage"):
        return array.storage.buffers()[-1], array.offset * _tensor_bytes(array.type)
    return array.buffers()[1], array.offset * array.type.byte_width


def _tensor_bytes(kind: Any) -> int:
    return int(kind.storage_type.list_size * kind.value_type.bit_width // 8)


def parts_of(array: Any) -> Iterator[Any]:
    """Yield the bytes of an Arrow array of ours: whether there are values, where they end, and what they are."""
    rows = len(array)
    if isinstance(array, pyarrow().ExtensionArray):
        yield np.frombuffer(array.storage.buffers()[-1] or b"", np.uint8)[: rows * _tensor_bytes(array.type)]
        return
    buffers = array.buffers()
    if not rows or pyarrow().types.is_null(array.type):
        return
    if array.null_count:
        yield np.frombuffer(buffers[0], np.uint8)[: (rows + 7) // 8]
    if len(buffers) == 3:
        ends = np.frombuffer(buffers[1], np.uint8)[: 4 * rows + 4]
        yield ends
        yield np.frombuffer(buffers[2] or b"", np.uint8)[: int.from_bytes(ends[-4:].tobytes(), "little")]
    else:
        yield np.frombuffer(buffers[1], np.uint8)[: (rows * array.type.bit_width + 7) // 8]


def foreign(kind: Any) -> Callable[[Any], Iterator[Any]]:
    """Return what makes values of a column that was written by something else: Python's, and arrays of tensors."""
    if hasattr(kind, "storage_type") and hasattr(kind, "shape") and _is_plain(kind.value_type):
        return partial(_tensors, kind)
    return lambda array: _shared(array) if _is_shared(array) else iter(array.to_pylist())


def _is_shared(array: Any) -> bool:
    """Say whether an Arrow array is one of a dictionary, of values that do not change."""
    return pyarrow().types.is_dictionary(array.type) and is_text(array.type.value_type)


def is_text(kind: Any) -> bool:
    """Say whether values of an Arrow type are text or bytes of any length."""
    types = pyarrow().types
    return bool(
        types.is_string(kind) or types.is_binary(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    )


def _shared(array: Any) -> Iterator[Any]:
    """Return the values of such an array; those that are the same are one object: a row may name a megabyte."""
    indices = array.indices.cast("int64").fill_null(-1).to_numpy(zero_copy_only=False)
    used, places = np.unique(indices, return_inverse=True)
    gaps = int(np.searchsorted(used, 0))
    values = [None] * gaps + array.dictionary.take(pyarrow().array(used[gaps:])).to_pylist()
    return map(values.__getitem__, places.tolist())


def _is_plain(kind: Any) -> bool:
    types = pyarrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _tensors(kind: Any, array: Any) -> Iterator[Any]:
    if (
        array.null_count
        or array.storage.flatten().null_count
        or kind.permutation not in (None, [*range(len(kind.shape))])
    ):
        return iter(array.to_pylist())
    column = Column("", "array", np.dtype(kind.value_type.to_pandas_dtype()), tuple(kind.shape))
    return from_arrow(column, array)
