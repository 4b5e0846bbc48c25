"""Write a flow to an HDF5 file, and read it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..sources.hdf5_file import HDF5Records, checked_paths
from ..sources.hdf5_layout import ATTRIBUTE, Layout
from ..utils import check
from ..utils.deps import need
from ..utils.open_hdf5 import Allowed
from . import hdf5_check
from .hdf5_write import Sink, Writer
from .saving import saving

# Since HDF5 1.10, which has checksums on what describes the data; the data has its own, see `hdf5_write`.
_VERSION = ("v110", "v110")


class HDF5Serializer:
    """Save a flow to an HDF5 file, and load it again.

    Each component becomes a dataset, with a row for each datapoint, that other programs read, too. So a component has
    one shape and dtype in all datapoints, and is an array, a numpy scalar, a bool, an int of up to 64 bits, a float or
    a complex. Text, bytes, None, objects and what is nested are refused, as are dtypes that HDF5 does not have, such as
    datetime64; LMDBSerializer, TFRecordSerializer and NumpySerializer hold most of it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     HDF5Serializer.save(DataFromList([[1, 0.5], [2, 1.5]], shuffle=False), f"{folder}/x.h5", ["a", "b"])
    ...     list(HDF5Serializer.load(f"{folder}/x.h5", shuffle=False))
    [[1, 0.5], [2, 1.5]]
    """

    @staticmethod
    def save(df: Any, path: Any, data_paths: Any = None) -> None:
        """Write one pass of a flow, after a ``reset_state``, to a new file.

        The file is there when it is complete and on the disk, or not at all. Rows are written in blocks, each chunk
        with a checksum, so the flow may be larger than the memory. The file notes what the datapoints were, so that
        ``load`` gives back lists, tuples, dicts and Python numbers. Arrays come back in C order.

        Args:
            df: a finite flow of lists, tuples or dicts of the same components.
            path: a file on this machine that does not exist.
            data_paths: the path of the dataset for each component of lists. If not given, "0", "1" and so on; for
                dicts it is always their keys.

        Raises:
            FileExistsError: if the file exists.
            OSError: with ``path`` in it, if it cannot be written, such as PermissionError or one for a full disk.
            UsageError: if the flow never ends.
            TypeError: if a component cannot be held, or is not like that of the first datapoint, in its shape, say;
                the message says which, and a note in which datapoint.
            ValueError: if ``data_paths`` has not one name for each component, or paths are not different names.
        """
        given = None if data_paths is None else checked_paths(data_paths)
        with saving(df, path, by="HDF5Serializer.save") as job, Sink(job.temporary) as sink:
            writer = None
            h5py = need("h5py", by="HDF5Serializer")
            with h5py.File(sink, "w", libver=_VERSION) as file:
                for dp in job.rows():
                    if writer is None:
                        writer = Writer(file, dp, given, job.total, sink.confirm)
                    writer.put(dp)
                layout = Layout("list", [], 0) if writer is None else writer.finish(job.count)
                file.attrs[ATTRIBUTE] = np.bytes_(layout.text())
            sink.confirm()

    @staticmethod
    def load(
        path: Any, data_paths: Any = None, shuffle: bool = True, *, allow_external: bool = False,
        allow_variable: bool = False, max_bytes: int = Allowed().max_bytes, seed: int | None = None,
    ) -> HDF5Records:  # fmt: skip
        """Return a flow of the datapoints that ``save`` wrote to a file; of other HDF5 files it is ``HDF5Data``.

        Args:
            path: the file.
            data_paths: read only these datasets, as lists of components. If not given, all that ``save`` has noted, as
                the datapoints that they were.
            shuffle: yield the datapoints in a new random order in each pass.
            allow_external: follow what leads out of the file; see ``HDF5Data``.
            allow_variable: read values of variable length, which are not of ``save``; see ``HDF5Data``.
            max_bytes: memory that a row may take in any case; see ``HDF5Data``.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: from ``len`` and ``iter``, if it is no HDF5 file, or a damaged one, or has lost rows;
                while iterating, with file, record and dataset, if a row is damaged.
            MissingKeyError: from ``len`` and ``iter``, if one of ``data_paths`` is not there.
            UsageError: from ``len`` and ``iter``, if there are no ``data_paths``, and ``save`` has not noted any; or if
                the file wants more than it may.
        """
        return HDF5Records(
            path, data_paths, shuffle, allow_external=allow_external, allow_variable=allow_variable,
            max_bytes=max_bytes, seed=seed,
        )  # fmt: skip

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what a file is, in a JSON-able dict; no data is read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no HDF5 file, or a damaged one.
        """
        return hdf5_check.inspect(path)

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, str]]:
        """Read every row of a file, and yield the number and the fault of each that is damaged.

        Args:
            path: the file.
            allow_pickle: is for other formats; nothing in an HDF5 file is a pickle.
            on_record: is called after each record.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no HDF5 file, or so damaged that it does not open.
            UsageError: if a dataset leads out of the file, or holds values of variable length.
        """
        check.flag(allow_pickle=allow_pickle)
        return hdf5_check.damages(path, on_record=on_record)
