"""What Parquet and Arrow files are made of while they are written: groups of rows as columns, and checksums."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from ..codec.columns import Column, new_column, pyarrow, to_arrow
from ..sources.parquet_note import SEAL, UNSEALED, Note, seal_of
from ..utils import check
from ..utils.deps import need
from .saving import Saving

# A group ends behind so many rows, whatever their bytes.
MOST_ROWS = 1 << 16


class _Block:
    """Arrays of one column and one group, behind each other; new memory for each group would take as long as they."""

    def __init__(self, first: np.ndarray[Any, Any], most_bytes: int) -> None:
        self.shape, self.dtype, self.rows = first.shape, first.dtype, 0
        self.is_plain = first.nbytes > 0 and not first.dtype.hasobject and first.ndim < 32  # of numpy 1, with one more
        room = min(MOST_ROWS, most_bytes // first.nbytes + 1) if self.is_plain else 0
        self.arrays = np.empty((room, *first.shape), first.dtype) if self.is_plain else first


class Columns:
    """The datapoints of a ``save``, on their way into columns."""

    def __init__(self, job: Saving, by: str, tensors: bool) -> None:
        self._job, self._by, self._tensors = job, by, tensors
        self._layout: type[Any] = list
        self._names: list[Any] = []
        self._columns: list[Column] = []
        self._done = 0
        self._most_bytes = 0
        self._blocks: dict[int, _Block] = {}  # the arrays of each column

    def groups(self, most_bytes: int) -> Iterator[tuple[list[list[Any]], bool]]:
        """Yield the rows of one group after another, and whether it is the last."""
        rows: list[list[Any]] = []
        size = 0
        self._most_bytes = most_bytes
        for dp in self._job.rows():
            if len(rows) == MOST_ROWS or size >= most_bytes:
                yield rows, False
                self._done += len(rows)
                rows, size = [], 0
                for block in self._blocks.values():
                    block.rows = 0
            rows.append(self._row(dp))
            size += sum(map(_size, rows[-1]))
        if rows:
            yield rows, True

    def _row(self, dp: Any) -> list[Any]:
        if not self._names:
            if type(dp) not in (list, dict) or not dp or (type(dp) is dict and not all(map(_is_name, dp))):
                raise TypeError(
                    "a row of a table is a list or a dict with keys of str, without surrogates, and not empty; got "
                    f"{check.seen(dp)}. Make it one with MapData, or save it with LMDBSerializer"
                )
            self._layout, self._names = type(dp), [*dp] if type(dp) is dict else [*range(len(dp))]
        same = type(dp) is self._layout and len(dp) == len(self._names)
        if not same or (type(dp) is dict and dp.keys() != {*self._names}):
            raise TypeError(
                f"every row of a table has the same components, and this one is no {self._layout.__name__} with "
                f"{', '.join(map(repr, self._names))}. Make them alike with MapData, or save them with LMDBSerializer"
            )
        values = dp if type(dp) is list else [dp[name] for name in self._names]
        return [self._kept(index, value) if type(value) is np.ndarray else value for index, value in enumerate(values)]

    def _kept(self, index: int, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Copy an array, as a generator may fill it again: to the others of its column, if it is like them."""
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block(array, self._most_bytes)
        if array.shape == block.shape and array.dtype == block.dtype and array.flags.c_contiguous and block.is_plain:
            kept = block.arrays[block.rows, ...]
            kept[...] = array
            block.rows += 1
            return kept
        return array.copy("A")

    def batch(self, rows: list[list[Any]]) -> Any:
        """Return rows as an Arrow batch."""
        values = [[*column] for column in zip(*rows, strict=True)]
        fails = [self._failing(name) for name in self._names]
        if not self._columns:
            self._columns = [*map(new_column, map(str, self._names), values, fails)]
        arrays = [
            to_arrow(column, part, self._tensors, fail, self._together(index, column, len(part)))
            for index, (column, part, fail) in enumerate(zip(self._columns, values, fails, strict=True))
        ]
        return pyarrow().record_batch(arrays, [column.name for column in self._columns])

    def _together(self, index: int, column: Column, rows: int) -> Any:
        """Return the bytes of all arrays of a column, if they are in one block: then they are what the column is."""
        block = self._blocks.get(index)
        if block is None or (block.rows, block.shape, block.dtype) != (rows, column.shape, column.dtype):
            return None
        return None if column.by_columns else block.arrays[:rows].reshape(-1).view(np.uint8)

    def _failing(self, name: Any) -> Callable[[int, str], TypeError]:
        def fail(index: int, why: str) -> TypeError:
            error = TypeError(f"cannot store dp[{name!r}]: {why}. LMDBSerializer and TFRecordSerializer hold anything")
            error.add_note(f"in {self._by}, datapoint {self._done + index}")
            return error

        return fail

    def raw(self, batch: Any) -> list[Any]:
        """Return the bytes of each column of arrays in a batch."""
        return [batch.column(column.name).buffers()[1] for column in self._columns if column.has_bytes]

    def texts(self) -> list[str]:
        """Name the columns that may repeat themselves."""
        return [column.name for column in self._columns if column.kind == "str"]

    def note(self, groups: list[list[int]]) -> Note:
        """Return what the file notes."""
        return Note(self._layout.__name__, tuple(self._columns), groups)


class Summed:
    """What pyarrow writes to: knows how much it was, and the checksum of the part that is being written.

    It also finds where the arrays of a part are: they lie in it as they are, at the end of a page, if nothing
    compresses them and they are few enough for one page.
    """

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = self._real = file
        self._extend = need("google_crc32c", by="the checksum of a group").extend
        self._start = self._at = self._crc = 0
        self._arrays: list[Any] = []
        self._places: list[int] = []

    def begin(self, arrays: list[Any]) -> None:
        """Begin a part, and look out for the bytes of these arrays in it, which come in this order."""
        self._start, self._crc = self._at, 0
        self._arrays, self._places = arrays, []

    def write(self, data: Any) -> int:
        found = len(self._places)
        if found < len(self._arrays) and data.endswith(self._arrays[found]):
            self._places.append(self._at + len(data) - len(self._arrays[found]))
        self._file.write(data)
        self._crc = self._extend(self._crc, data)
        self._at += len(data)
        return len(data)

    def noted(self, rows: int) -> list[int]:
        """Return what the file notes of the part, which is a group of so many rows; see ``Note.groups``."""
        places = self._places if len(self._places) == len(self._arrays) else []
        return [self._start, self._at - self._start, self._crc, rows, *places]

    def hold(self) -> None:
        """Keep what comes from now on: the end of the file, or what nobody wants after an error."""
        self._file = io.BytesIO()

    def seal(self) -> None:
        """Write what was kept, with its checksum in it."""
        end = cast(io.BytesIO, self._file).getvalue()
        # The last one: the names of columns, which stand before it, may be anything.
        before, seal, behind = end.rpartition(SEAL + UNSEALED)
        self._real.write(before + seal.replace(UNSEALED, seal_of(end)) + behind)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is closed."""

    def close(self) -> None:
        """Do nothing: who has opened the file closes it."""

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False


def _is_name(key: Any) -> bool:
    return type(key) is str and not any("\ud800" <= character <= "\udfff" for character in key)


def _size(value: Any) -> int:
    if type(value) is np.ndarray:
        return int(value.nbytes)
    return len(value) if type(value) in (bytes, str) else 8
