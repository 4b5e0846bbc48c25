"""Read the rows of datasets in an HDF5 file, side by side.

::

    images   | 0 .. 3 | 4 .. 7 | 8 ..      in chunks, which are read, checked and uncompressed as a whole
    labels   | 0 .. 8191           |
                  |
                  v
    [images[5], labels[5]]                 datapoint 5

In order, each dataset is read in blocks of whole chunks. Shuffled, a row is read when it is due: the HDF5 library keeps
the chunks that it has read lately, and a short column of numbers is read once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, repeat, tee
from typing import Any, NamedTuple

import numpy as np

from ..codec import checksum
from ..errors import CorruptDataError, MissingKeyError, UsageError
from ..utils import check
from ..utils.open_file import checked_path, refuse_url
from ..utils.open_hdf5 import Allowed, HDF5File
from .hdf5_layout import ATTRIBUTE, Component, Layout
from .indexed import IndexedData

# Rows of blocks up to this size are views, so that one that is kept keeps its block; rows of larger ones are copied.
# Blocks of a quarter of it take twice as long to read.
_BLOCK_BYTES = 1 << 20
_MOST_BYTES = 1 << 26
# Of each dataset that is read in random order, in each process.
_CACHE_BYTES = 1 << 26
_SHORT = 1 << 17


class Column:
    """A dataset whose rows are components of datapoints.

    Args:
        file: the file, which stays open as long as this object is held.
        path: where in it the dataset is.
        component: what HDF5Serializer has noted about it.
        restore: make the components that were saved of rows, and not what h5py reads.
    """

    def __init__(self, file: HDF5File, path: str, component: Component | None = None, *, restore: bool = True) -> None:
        self.path, self._file = path, file
        self._dataset = dataset = file.dataset(path)
        self.size: int = dataset.shape[0]
        self._restore: Callable[[Any], list[Any]] = list
        self._chunks: CheckedChunks | None = None
        if component is not None:
            try:
                if restore:
                    self._restore = component.restorer(dataset.dtype, dataset.ndim)
                if component.sums is not None:
                    self._chunks = CheckedChunks(dataset, file.dataset(component.sums))
            except (ValueError, OSError, MissingKeyError) as error:
                # A copy that is stored otherwise, perhaps, which h5py reads all the same.
                if restore or isinstance(error, OSError):
                    raise CorruptDataError(f"{file.path!r}, dataset {path!r}: {error}") from error
        row = max(1, math.prod(dataset.shape[1:]) * dataset.dtype.itemsize)
        chunk = dataset.chunks[0] if dataset.chunks else 1
        self._block = max(1, min(max(chunk, _BLOCK_BYTES // row // chunk * chunk), _MOST_BYTES // row))
        if self._chunks is not None:
            self._block = chunk
        self._is_short = dataset.ndim == 1 and dataset.dtype.kind in "biufc" and self.size <= _SHORT

    def rows(self, start: int, stop: int) -> list[Any]:
        """Return some components.

        Raises:
            CorruptDataError: if one of them is damaged.
        """
        try:
            block = self._dataset[start:stop] if self._chunks is None else self._chunks.rows(start, stop)
        except Exception as error:  # whatever h5py raises, it is about the bytes
            raise CorruptDataError(f"dataset {self.path!r}: {error}. Copy the file again, or write it anew") from error
        rows = self._restore(block)
        return [row.copy() for row in rows] if block.ndim > 1 and block.nbytes > _BLOCK_BYTES else rows

    def in_order(self, start: int) -> Iterator[Any]:
        """Iterate the components from number ``start`` on; a damaged one is an error when it is due."""
        return chain.from_iterable(self._blocks(start))

    def _blocks(self, start: int) -> Iterator[list[Any]]:
        while start < self.size:
            stop = min(self.size, start - start % self._block + self._block)
            try:
                rows = self.rows(start, stop)
            except CorruptDataError:
                yield from map(self.rows, range(start, stop), range(start + 1, stop + 1))
            else:
                yield rows
            start = stop

    def faults(self) -> Iterator[str | None]:
        """Read all components, and yield what is wrong with each."""
        for start in range(0, self.size, self._block):
            stop = min(self.size, start + self._block)
            if self._fault(start, stop) is None:
                yield from repeat(None, stop - start)
            else:
                yield from map(self._fault, range(start, stop), range(start + 1, stop + 1))

    def _fault(self, start: int, stop: int) -> str | None:
        try:
            self.rows(start, stop)
        except CorruptDataError as error:
            return str(error)
        return None

    def getter(self) -> Callable[[int], Any]:
        """Return a function that reads the component with a number."""
        if self._is_short:
            try:
                return list(self.in_order(0)).__getitem__
            except CorruptDataError:
                pass  # only parts of it may be damaged
        return lambda number: self.rows(number, number + 1)[0]


class CheckedChunks:
    """The chunks of a dataset that ``HDF5Serializer`` wrote, read around the library's cache, and checked.

    Args:
        dataset: with chunks of whole rows, as they are in memory.
        sums: the dataset with the crc32c of the rows in each chunk.

    Raises:
        ValueError: if it is another dataset.
    """

    def __init__(self, dataset: Any, sums: Any) -> None:
        if (
            dataset.chunks is None
            or dataset.id.get_create_plist().get_nfilters() != 0
            or dataset.chunks[1:] != dataset.shape[1:]
            or dataset.dtype.hasobject
            or dataset.dtype.itemsize != dataset.id.get_type().get_size()
            or sums.shape != (-(-dataset.shape[0] // dataset.chunks[0]),)
            or sums.dtype != np.uint32
        ):
            raise ValueError("it is not stored as its checksums say")
        self._id, self._size, self._rows = dataset.id, dataset.shape[0], dataset.chunks[0]
        self._shape, self._dtype = dataset.shape[1:], dataset.dtype
        self._row_bytes = math.prod(self._shape) * self._dtype.itemsize
        self._sums = sums[:].tolist()

    def rows(self, start: int, stop: int) -> Any:
        """Return rows of one chunk as an array.

        Raises:
            CorruptDataError: if the chunk is damaged.
        """
        number, first = divmod(start, self._rows)
        begin = number * self._rows
        count = min(self._rows, self._size - begin)
        stored = np.empty(self._rows * self._row_bytes, np.uint8)
        mask, read = self._id.read_direct_chunk((begin, *[0] * len(self._shape)), out=stored)
        data = stored[: count * self._row_bytes]
        if mask or len(read) != len(stored) or checksum(data) != self._sums[number]:
            raise CorruptDataError(
                "the rows of a chunk and their checksum do not agree: damaged, or changed by another program"
            )
        rows = data.view(self._dtype).reshape(count, *self._shape)[first : stop - begin]
        return rows if len(rows) == count else rows.copy()  # one that is kept does not keep the chunk


class _Opened(NamedTuple):
    columns: list[Column]
    size: int
    build: Callable[[tuple[Any, ...]], Any]  # a datapoint of its components


class HDF5Data(IndexedData):
    """Zip datasets of an HDF5 file: row ``i`` of each is a component of datapoint ``i``.

    A component is what h5py reads: a numpy scalar, or an array. Rows are read when they are due, in order by whole
    chunks. In random order, a row takes as long as the chunks that it lies in; 64 MiB of a dataset's chunks are kept in
    memory, but not of arrays that HDF5Serializer wrote, in chunks of 128 KiB. For large shuffled data in large or
    compressed chunks, an LMDB file is faster.

    >>> import h5py, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/x.h5", "w") as file:
    ...         file["points"], file["labels"] = [[0.0, 0.5], [1.0, 1.5]], [7, 8]
    ...     df = HDF5Data(f"{folder}/x.h5", ["points", "labels"], shuffle=False)
    ...     [[point.tolist(), int(label)] for point, label in df]
    [[[0.0, 0.5], 7], [[1.0, 1.5], 8]]

    Unless it is told that it may, it reads nothing but the file, and nothing on which the HDF5 library may hang. The
    library is written in C, and a file that was made to do harm may still crash it.

    Args:
        filename: a file on this machine.
        data_paths: list of the paths of datasets in it, of one length.
        shuffle: read the rows in a new random order in each pass.
        allow_external: follow links to other files, read datasets that are stored in others or put together of others,
            and filters that the HDF5 library must load as plugins.
        allow_variable: read strings and arrays of variable length.
        max_bytes: memory that a row, a chunk, or the order of the rows may take, even if it is more than 100 times what
            is stored.
        seed: seed of the order, instead of the root seed.

    Raises:
        FileNotFoundError: at construction, if there is no such file.
        TypeError: at construction, if ``data_paths`` is no list of str.
        ValueError: at construction, if ``data_paths`` is empty; from ``len`` and ``iter``, if lengths differ.
        MissingKeyError: from ``len`` and ``iter``, if there is no such dataset.
        UsageError: from ``len`` and ``iter``, if the file wants more than it may.
        CorruptDataError: from ``len`` and ``iter``, if it is no HDF5 file, or a damaged one; while iterating, with
            file, record and dataset, if a row is damaged.
    """

    def __init__(
        self, filename: Any, data_paths: Any, shuffle: bool = True, *, allow_external: bool = False,
        allow_variable: bool = False, max_bytes: int = Allowed().max_bytes, seed: int | None = None,
    ) -> None:  # fmt: skip
        self.filename = checked_path(filename=filename)
        check.flag(allow_external=allow_external, allow_variable=allow_variable)
        check.integer(1, max_bytes=max_bytes)
        super().__init__(self.filename, shuffle, seed)
        refuse_url(self.filename, "HDF5")
        os.stat(self.filename)
        self.data_paths = self._checked(data_paths)
        self._allowed = Allowed(allow_external, allow_variable, int(max_bytes))

    @staticmethod
    def _checked(data_paths: Any) -> list[str] | None:
        return checked_paths(data_paths)

    def _open(self) -> _Opened:
        file = HDF5File(self.filename, self._allowed, _CACHE_BYTES if self._shuffle else None)
        columns, build = self._described(file)
        sizes = {column.path: column.size for column in columns}
        if len(set(sizes.values())) > 1:
            seen = ", ".join(f"{size:,} in {path!r}" for path, size in sizes.items())
            raise ValueError(f"the datasets of {self.filename!r} have different numbers of rows: {seen}")
        return _Opened(columns, columns[0].size if columns else 0, build)

    def _described(self, file: HDF5File) -> tuple[list[Column], Callable[[tuple[Any, ...]], Any]]:
        """Return the columns, and what makes a datapoint of their rows."""
        noted = _noted(layout_of(file))
        return [Column(file, path, noted.get(_name(path)), restore=False) for path in self.data_paths or ()], list

    def _size(self) -> int:
        size: int = self._opened().size
        return size

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        columns, _, build = self._opened()
        if self._shuffle:
            each = tee(numbers, len(columns))
            components = [map(column.getter(), numbers) for column, numbers in zip(columns, each, strict=True)]
        else:
            start = next(numbers, None)
            components = [] if start is None else [column.in_order(start) for column in columns]
        return map(build, zip(*components, strict=False))


class HDF5Records(HDF5Data):
    """Read the datapoints that ``HDF5Serializer`` wrote; ``HDF5Serializer.load`` makes these and explains them."""

    def __init__(
        self, path: Any, data_paths: Any = None, shuffle: bool = True, *, allow_external: bool = False,
        allow_variable: bool = False, max_bytes: int = Allowed().max_bytes, seed: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            path, data_paths, shuffle, allow_external=allow_external, allow_variable=allow_variable,
            max_bytes=max_bytes, seed=seed,
        )  # fmt: skip

    @staticmethod
    def _checked(data_paths: Any) -> list[str] | None:
        return None if data_paths is None else checked_paths(data_paths)

    def _described(self, file: HDF5File) -> tuple[list[Column], Callable[[tuple[Any, ...]], Any]]:
        layout = layout_of(file)
        if layout is None:
            if self.data_paths is None:
                names = ", ".join(map(repr, file.paths()[:8]))
                raise UsageError(
                    f"{file.path!r} was not written by HDF5Serializer. Say what to read: data_paths=[...], of {names}"
                )
            return super()._described(file)
        known = _noted(layout)
        columns = []
        for path in known if self.data_paths is None else self.data_paths:
            columns.append(Column(file, path, known.get(_name(path))))
            if _name(path) in known and columns[-1].size != layout.size:
                raise CorruptDataError(
                    f"{file.path!r}, dataset {path!r} has {columns[-1].size:,} rows, and {layout.size:,} were written"
                )
        if self.data_paths is not None or layout.container == "list":
            return columns, list
        if layout.container == "tuple":
            return columns, tuple
        return columns, partial(_as_dict, [str(component.key) for component in layout.components])


def checked_paths(data_paths: Any) -> list[str]:
    """Return ``data_paths`` as a list.

    Raises:
        TypeError: if it is no list or tuple of str.
        ValueError: if it is empty.
    """
    check.instance(
        (list, tuple), "a list of paths inside of the file, such as ['images', 'labels']", data_paths=data_paths
    )
    for path in data_paths:
        check.instance(str, "a list of str", data_paths=path)
    if not data_paths:
        raise ValueError("data_paths must name at least one dataset, got []")
    return list(data_paths)


def layout_of(file: HDF5File) -> Layout | None:
    """Return what ``HDF5Serializer`` has noted in a file, or None if it has not.

    Raises:
        CorruptDataError: if the note is damaged.
    """
    note = file.note(ATTRIBUTE)
    try:
        return None if note is None else Layout.parse(note)
    except ValueError as error:
        raise CorruptDataError(f"{file.path!r}, attribute {ATTRIBUTE!r}: {error}") from error


def _name(path: str) -> str:
    """Return the one way to write the path of a dataset."""
    return "/".join(name for name in path.split("/") if name not in ("", "."))


def _noted(layout: Layout | None) -> dict[str, Component]:
    return {} if layout is None else {_name(component.path): component for component in layout.components}


def _as_dict(keys: list[str], components: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(keys, components, strict=True))
