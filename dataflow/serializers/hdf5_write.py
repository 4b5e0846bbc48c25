"""Write datapoints to the datasets of an HDF5 file, a column for each component, in blocks of whole chunks."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ..codec import checksum
from ..codec.dtypes import describe
from ..codec.leaves import NUMPY_SCALARS
from ..codec.refuse import place, unheld
from ..sources.hdf5_layout import ARRAY, CONTAINERS, NUMPY, SCALARS, Component, Layout
from ..utils.write_behind import WriteBehind

# A chunk is what is read for one row in random order; it must not be so small that each costs more than its bytes.
_CHUNK_BYTES = 1 << 17
# HDF5 holds chunks below 4 GiB, and a reader all of one in memory.
_MOST_CHUNK_BYTES = 1 << 26
# What of a column is written at once.
_BUFFER_BYTES = 1 << 20
# Chunks of at most so many rows get a checksum of ours, a number in a list; larger ones that of HDF5, which takes
# longer than the disk.
_MOST_CHECKED = 256
_SUMS = "dataflow_checksums"

_OTHERS = "or save to another format, such as .lmdb"
_KINDS = {kind: name for name, (kind, _) in SCALARS.items()}


class Sink(WriteBehind):
    """The file that the HDF5 library writes to.

    The library cannot close a file that it could not write to the end, and crashes the process when that exits. So a
    write that fails looks to it like one that succeeds, and ``confirm`` says that it was none.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, "r+")
        self._failure: OSError | None = None

    def confirm(self) -> None:
        """Raise what the operating system said to the first write that failed."""
        if self._failure is not None:
            raise OSError(self._failure.errno, os.strerror(self._failure.errno or 0))

    def write(self, data: Any) -> int:
        """Write all of ``data``, or nothing after a failure."""
        left = memoryview(data).cast("B")
        try:
            while left and self._failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self._failure = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length of the file."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read what has been written, and zeros where it has not."""
        view = memoryview(buffer).cast("B")
        got = 0
        while got < len(view) and (more := super().readinto(view[got:])):
            got += more
        view[got:] = bytes(len(view) - got)
        return len(view)


class Writer:
    """The datasets of a file, made for the components of the first datapoint."""

    def __init__(
        self, file: Any, first: Any, data_paths: list[str] | None, total: int | None, confirm: Callable[[], None]
    ) -> None:
        self._container = type(first)
        if self._container not in CONTAINERS:
            raise TypeError(
                f"cannot save a datapoint of type {self._container.__name__} to HDF5. Make it a list or a dict"
            )
        self._keys: list[Any] = list(first) if self._container is dict else list(range(len(first)))
        if not self._keys:
            raise TypeError(f"cannot save a datapoint without components to HDF5. Put something into it, {_OTHERS}")
        paths = _paths(self._keys, self._container is dict, data_paths)
        self._columns = [
            _Column(file, path, (key,), first[key], total, confirm) for key, path in zip(self._keys, paths, strict=True)
        ]

    def put(self, dp: Any) -> None:
        """Add a datapoint."""
        if type(dp) is not self._container:
            raise TypeError(
                f"the first datapoint is of type {self._container.__name__}, and this one of type {type(dp).__name__}. "
                f"Make them alike, {_OTHERS}"
            )
        if len(dp) != len(self._keys):
            raise TypeError(
                f"the number of components is {len(dp)}, and in the first datapoint {len(self._keys)}. "
                f"Make them alike, {_OTHERS}"
            )
        if self._container is dict:
            if missing := [key for key in self._keys if key not in dp]:
                raise TypeError(
                    f"the first datapoint has a component {missing[0]!r}, and here is none. Add it, {_OTHERS}"
                )
            dp = map(dp.__getitem__, self._keys)
        for column, value in zip(self._columns, dp, strict=True):
            column.put(value)

    def finish(self, count: int) -> Layout:
        """Write what is left, and return what is to be noted about it all."""
        components = [
            Component(key if type(key) is str else None, column.path, column.kind, column.finish(f"{_SUMS}/{number}"))
            for number, (key, column) in enumerate(zip(self._keys, self._columns, strict=True))
        ]
        return Layout(self._container.__name__, components, count)


class _Column:
    """A dataset that grows by a row for each datapoint."""

    def __init__(
        self, file: Any, path: str, where: tuple[Any, ...], first: Any, total: int | None, confirm: Callable[[], None]
    ) -> None:
        self.path, self._file, self._where, self._confirm = path, file, where, confirm
        self._type = type(first)
        self.kind, dtype, self._shape = _stored_as(where, first)
        chunk = self._chunk = _chunk(self._shape, dtype.itemsize, total)
        row = max(1, math.prod(self._shape) * dtype.itemsize)
        self._has_sums = chunk[1:] == self._shape and chunk[0] <= _MOST_CHECKED
        self._size = 0  # of the dataset, which takes 50 us to change
        try:
            self._dataset = file.create_dataset(
                path, (0, *self._shape), dtype, maxshape=(None, *(size or None for size in self._shape)), chunks=chunk,
                fletcher32=not self._has_sums,
            )  # fmt: skip
        except TypeError as error:
            raise self._no_dtype(dtype) from error
        if self._dataset.dtype.type is not dtype.type or describe(self._dataset.dtype) != describe(dtype):
            raise self._no_dtype(dtype)
        chunks = max(1, _BUFFER_BYTES // (chunk[0] * row))
        if total is not None:
            chunks = min(chunks, -(-max(1, total) // chunk[0]))
        # Zeros, so that nothing that was in memory before gets into the file between the fields of a structure.
        self._buffer = np.zeros((chunks * chunk[0], *self._shape), dtype)
        self._filled = self._written = 0
        self._sums: list[int] = []

    def _no_dtype(self, dtype: np.dtype[Any]) -> TypeError:
        return unheld(
            self._where, f"a value of dtype {dtype}, which HDF5 does not have", f"Convert it first, {_OTHERS}"
        )

    def put(self, value: Any) -> None:
        """Add a component."""
        if type(value) is not self._type:
            raise unheld(
                self._where,
                f"a value of type {type(value).__name__}, and in the first datapoint one of type {self._type.__name__}",
                f"Make them alike, {_OTHERS}",
            )
        if self.kind == NUMPY:
            value = np.asarray(value)  # from the scalar itself numpy copies what happens to lie behind a long double
        if self.kind in (ARRAY, NUMPY) and (value.dtype != self._buffer.dtype or value.shape != self._shape):
            raise TypeError(
                f"cannot save {place(self._where)}: shape {value.shape} of {value.dtype}, where the first datapoint "
                f"has {self._shape} of {self._buffer.dtype}. Make them alike with MapDataComponent, {_OTHERS}"
            )
        try:
            self._buffer[self._filled] = value
        except OverflowError:
            raise unheld(self._where, "an int of more than 64 bits", f"Turn it into a float, {_OTHERS}") from None
        self._filled += 1
        if self._filled == len(self._buffer):
            self.flush()

    def flush(self) -> None:
        """Write what is in the buffer."""
        end = self._written + self._filled
        if end > self._size:
            self._size = max(end, 2 * self._size)
            self._dataset.resize(self._size, axis=0)
        if self._has_sums:
            self._write_chunks()
        else:
            self._dataset[self._written : end] = self._buffer[: self._filled]
        self._confirm()
        self._written, self._filled = end, 0

    def _write_chunks(self) -> None:
        """Write what is in the buffer around the library's cache of chunks, and note the checksum of each."""
        rows, used = self._chunk[0], self._buffer[: self._filled].nbytes
        data = self._buffer.reshape(-1).view(np.uint8)
        size = len(data) // len(self._buffer) * rows
        data[used : used + -used % size] = 0  # and not all, which may be memory that nothing has touched
        corner = [0] * len(self._shape)
        for number, start in enumerate(range(0, used, size)):
            chunk = data[start : start + size]
            self._sums.append(checksum(chunk[: used - start]))
            self._dataset.id.write_direct_chunk((self._written + number * rows, *corner), chunk)

    def finish(self, sums: str) -> str | None:
        """Write what is left, and the checksums; return ``sums``, the path for them, if there are any."""
        self.flush()
        self._dataset.resize(self._written, axis=0)
        if not self._has_sums:
            return None
        self._file.create_dataset(sums, data=np.array(self._sums, np.uint32), fletcher32=True)
        return sums


def _stored_as(where: tuple[Any, ...], value: Any) -> tuple[str, np.dtype[Any], tuple[int, ...]]:
    """Return the kind of a component, and the dtype and shape of its rows."""
    kind = type(value)
    if kind in _KINDS:
        return _KINDS[kind], SCALARS[_KINDS[kind]][1], ()
    if kind is not np.ndarray and kind not in NUMPY_SCALARS:
        what = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        raise unheld(where, f"a value of type {what}, where HDF5 has arrays and numbers", f"Make it one, {_OTHERS}")
    try:
        describe(value.dtype)
    except TypeError as error:
        raise unheld(where, str(error), f"Convert it first, {_OTHERS}") from None
    return ARRAY if kind is np.ndarray else NUMPY, value.dtype, value.shape


def _chunk(shape: tuple[int, ...], item: int, total: int | None) -> tuple[int, ...]:
    """Return the shape of chunks for rows of some shape, of which there may be so many."""
    chunk = [max(1, size) for size in shape]
    for axis in range(len(chunk)):
        while chunk[axis] > 1 and math.prod(chunk) * item > _MOST_CHUNK_BYTES:
            chunk[axis] = -(-chunk[axis] // 2)
    rows = max(1, _CHUNK_BYTES // (math.prod(chunk) * item))
    return rows if total is None else min(rows, max(1, total)), *chunk


def _paths(keys: list[Any], is_dict: bool, data_paths: list[str] | None) -> list[str]:
    """Return the path of the dataset for each component."""
    if not is_dict:
        if data_paths is None:
            return list(map(str, keys))
        if len(data_paths) != len(keys):
            raise ValueError(
                f"data_paths names {len(data_paths)} datasets, and the first datapoint has {len(keys)} components. "
                "Give one for each"
            )
    elif data_paths is not None:
        raise ValueError(
            f"data_paths is for lists, and the first datapoint is a dict with the keys {keys}: leave it out"
        )
    paths = keys if data_paths is None else data_paths
    for path in paths:
        if type(path) is not str:
            raise unheld((path,), f"a key of type {type(path).__name__}", f"Rename it to a str, {_OTHERS}")
    parts = [path.strip("/").split("/") for path in paths]
    for path, names in zip(paths, parts, strict=True):
        if not all(names) or "." in names or "\0" in path or not path.isprintable():
            raise ValueError(f"{path!r} cannot be the path of a dataset: use names with '/' between them")
        if names[0] == _SUMS:
            raise ValueError(
                f"{path!r} cannot be the path of a dataset: {_SUMS!r} is where the checksums go. Rename it"
            )
    for names, following in pairwise(sorted(parts)):
        if following[: len(names)] == names:
            raise ValueError(
                f"{'/'.join(names)!r} cannot be the path of a dataset: another is the same, or begins with it"
            )
    return list(map("/".join, parts))
