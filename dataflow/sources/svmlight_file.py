"""SVMlight files, also called LIBSVM files: a line of text for each datapoint."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from ..base import RNGDataFlow
from ..errors import CorruptDataError
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.deps import need
from ..utils.open_file import existing_path, open_binary, size_of
from ..utils.progress import progress
from ..utils.rng import checked_seed
from .memory import numbers

logger = logging.getLogger(__name__)

# What a dense row may take, unless `n_features` allows more.
MOST_ROW_BYTES = 1 << 30
UNPACK: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open}
# A packed file may unpack to this size, and beyond it to so many times its own. Text packs 3 to 30 times.
MOST_UNPACKED, MOST_RATIO = 1 << 24, 100


class _Table(NamedTuple):
    """A sparse matrix in compressed rows, and a label for each row."""

    starts: Any
    columns: Any
    values: Any
    labels: Any
    width: int


class SVMLightData(RNGDataFlow):
    r"""Yield ``[x, y]`` for each line of an SVMlight file: its features, dense, and its label.

    ``x`` is a float64 array of shape (features,), ``y`` a ``numpy.float64``.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "x.svm")
    ...     _ = file.write_text("1 1:0.5 3:2\n-1 2:1\n")
    ...     [[x.tolist(), float(y)] for x, y in SVMLightData(file, shuffle=False)]
    [[[0.5, 0.0, 2.0], 1.0], [[0.0, 1.0, 0.0], -1.0]]

    Its length is exact, and to know it the file is read. That happens once, by scikit-learn; what it holds stays in
    memory, sparse, until ``close()``. Features are numbered from 1, or from 0 where one has the number 0. A ``qid`` is
    passed over. The format has no checksum: of a file that was cut off, nothing but the end of a line is missed,
    and that is a warning and no error, since many programs write none behind the last line.

    Args:
        filename: the file, also as ``.gz`` or ``.bz2``, or its URL.
        shuffle: yield the lines in a new random order in each pass.
        n_features: length of ``x``; if not given, the largest number in the file tells. Two files of one data set may
            need it.
        seed: seed of the order, instead of the root seed.

    Raises:
        FileNotFoundError: at construction, if there is no such file.
        ValueError: at construction, if ``n_features`` is below 1.
        CorruptDataError: from ``len`` and ``iter``, with file and line, if a line is not of this format; if the
            number of a feature is not below ``n_features``, or so large that a row would take more than 1 GiB.
        MissingPackageError: from ``len`` and ``iter``, if scikit-learn is not installed.
    """

    _transient = (*RNGDataFlow._transient, "_table")
    _table: _Table | None = None

    def __init__(
        self, filename: Any, shuffle: bool = True, *, n_features: int | None = None, seed: int | None = None
    ) -> None:
        self.filename = existing_path("SVMlight file", filename=filename)
        check.flag(shuffle=shuffle)
        if n_features is not None:
            check.integer(1, n_features=n_features)
        self._shuffle = shuffle
        self.n_features = n_features
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self._read().labels)

    def close(self) -> None:
        """End the running pass and free the memory that the data takes; see ``DataFlow.close``."""
        super().close()
        self._table = None

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; all of it is read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if a line is not of this format.
        """
        flow = SVMLightData(path)
        _, _, values, labels, width = flow._read()
        return {
            "format": "SVMlight",
            "codec": "text",
            "datapoints": len(labels),
            "bytes": size_of(flow.filename),
            "checksums": "none",
            "features": width,
            "values": len(values),
        }

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int | None, str]]:
        """Read every line of a file, and yield the number, from 0, and the fault of each that is of another format.

        None for a number: the file itself is at fault, which cannot be unpacked, say.

        Args:
            path: path or URL.
            allow_pickle: is for other formats; nothing in a text is a pickle.
            on_record: is called after each line.

        Raises:
            FileNotFoundError: if there is no such file.
        """
        check.flag(allow_pickle=allow_pickle)
        lines = _Lines(SVMLightData(path).filename, on_record)
        while True:
            try:
                _load(lines, None)
                return
            except CorruptDataError as error:
                of_line = isinstance(error.__cause__, ValueError | OverflowError)  # by scikit-learn, see _load
                yield lines.number - 1 if of_line else None, str(error)

    def _walk(self, at: Place, run: Run) -> Walk:
        starts, columns, values, labels, width = self._read()

        def row(number: int) -> list[Any]:
            of_row = slice(starts[number], starts[number + 1])
            x = np.zeros(width)
            x[columns[of_row]] = values[of_row]  # the reader has made sure that no column comes twice
            return [x, labels[number]]

        order, place = numbers(self, at, run, len(labels), self._shuffle)
        return map(row, order), place

    def _read(self) -> _Table:
        if self._table is None:
            self._table = _load(_Lines(self.filename), self.n_features)
        return self._table


def _load(lines: _Lines, n_features: int | None) -> _Table:
    """Read lines until they end, or until one is not of this format."""
    load = need("sklearn.datasets", by="SVMLightData").load_svmlight_file
    try:
        matrix, labels = load(lines)
    except CorruptDataError:
        raise
    except (ValueError, OverflowError) as error:
        why = str(error).rstrip(".")
        raise CorruptDataError(f"{lines.path!r}, line {lines.number}: {why}. Correct or remove it") from error
    width = _checked_width(lines.path, matrix.shape[1], n_features)
    return _Table(matrix.indptr, matrix.indices, matrix.data, labels, width)


class _Lines:
    """The lines of a file, as scikit-learn asks for them; who asks again gets those that are left.

    Attributes:
        path: the file.
        number: of the line that was asked for last, from 1.
    """

    def __init__(self, path: str, on_line: Callable[[], None] | None = None) -> None:
        self.path = path
        self.number = 0
        self._on_line = on_line
        self._left = self._all()

    def __iter__(self) -> Iterator[bytes]:
        return self._left

    def read(self, size: int = -1) -> bytes:
        """Scikit-learn takes what has this method for a file, and then iterates it."""
        raise io.UnsupportedOperation(f"read({size})")

    def _all(self) -> Iterator[bytes]:
        unpack = UNPACK.get(os.path.splitext(self.path)[1].lower())
        with open_binary(self.path) as file:
            if unpack is None:
                yield from self._counted(file)
                return
            most = max(MOST_UNPACKED, MOST_RATIO * size_of(self.path))
            try:
                with unpack(file) as unpacked:
                    yield from self._counted(_bounded(unpacked, most, self.path))
            except (OSError, EOFError, zlib.error) as error:
                raise CorruptDataError(f"{self.path!r} cannot be unpacked ({error}). Copy it again") from error

    def _counted(self, lines: Any) -> Iterator[bytes]:
        line = b"\n"
        bar = progress(None, f"read {os.path.basename(self.path)}", " lines", rows=lines)
        for self.number, line in enumerate(bar, 1):
            yield line
            if self._on_line is not None:
                self._on_line()
        if not line.endswith(b"\n"):
            logger.warning("%s does not end at the end of a line: it may have been cut off", self.path)


def _bounded(file: BinaryIO, most: int, path: str) -> Iterator[bytes]:
    """Yield lines, until they have more than ``most`` bytes."""
    while line := file.readline(most + 1):
        most -= len(line)
        if most < 0:
            raise CorruptDataError(
                f"{path!r} unpacks to more than {MOST_RATIO} times its size. If you trust it, unpack it first"
            )
        yield line


def _checked_width(path: str, found: int, n_features: int | None) -> int:
    """Return how long a dense row is."""
    largest = f"{path!r} has {found:,} features by the largest number of one"
    if n_features is None:
        if found * np.float64().itemsize > MOST_ROW_BYTES:
            raise CorruptDataError(
                f"{largest}, and a row would take {found * np.float64().itemsize / 2**30:,.1f} GiB. "
                f"Correct that number, or allow it by n_features={found}"
            )
        return found
    if n_features < found:
        raise CorruptDataError(f"{largest}, more than n_features={n_features}. Give at least n_features={found}")
    return int(n_features)
