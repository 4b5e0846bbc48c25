"""Which class reads and writes a file, by the suffix of its name."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from ..base import DataFlow
from ..errors import UsageError
from ..utils.open_file import checked_path, is_url
from .tfrecord import TFRecordSerializer, has_index

_LMDB = (".lmdb", "LMDBSerializer")
_TFRECORD = (".tfrecord", "TFRecordSerializer")
_HDF5 = (".hdf5", "HDF5Serializer")
_ARROW = (".parquet", "ArrowSerializer")
_SVMLIGHT = ("..sources.svmlight_file", "SVMLightData")

# Suffix -> module, as seen from here, and class. Of a format that is only read the class is the flow itself.
FORMATS = {
    ".arrow": _ARROW,
    ".feather": _ARROW,
    ".h5": _HDF5,
    ".hdf5": _HDF5,
    ".libsvm": _SVMLIGHT,
    ".lmdb": _LMDB,
    ".mdb": _LMDB,
    ".npz": (".npz", "NumpySerializer"),
    ".parquet": (".parquet", "ParquetSerializer"),
    ".svm": _SVMLIGHT,
    ".svmlight": _SVMLIGHT,
    ".tar": (".tar", "TarSerializer"),
    ".tfrecord": _TFRECORD,
    ".tfrecords": _TFRECORD,
}


def load(path: Any, *, shuffle: bool = False, **options: Any) -> DataFlow:
    """Return a flow of the datapoints of a data file, whose format its suffix tells.

    They come in the order of the file unless ``shuffle`` is set. A TFRecord file is read by its index, if there is
    one beside it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.lmdb")
    ...     list(load(f"{folder}/x.lmdb"))
    [['a', 1], ['b', 2]]

    Args:
        path: path or URL of a file, a folder with an LMDB file in it, or what ``TarSerializer.load`` takes.
        shuffle: yield the datapoints in a new random order in each pass.
        **options: more for ``load`` of the class that reads this format, such as ``LMDBSerializer``.

    Raises:
        ValueError: if the suffix is of no known format.
    """
    kind = serializer_of(path)
    if kind is TFRecordSerializer and not {"index", "size"} & options.keys():
        options["index"] = has_index(path)
    df: DataFlow = getattr(kind, "load", kind)(path, shuffle=shuffle, **options)
    return df


def save(df: Any, path: Any, **options: Any) -> None:
    """Write one pass of a flow to a new data file, whose format its suffix tells.

    Args:
        df: a finite flow of lists or dicts.
        path: path of a file that does not exist or, for the formats that can, its URL; of a folder for an LMDB file.
        **options: more for ``save`` of the class that writes this format, such as ``LMDBSerializer``.

    Raises:
        ValueError: if the suffix is of no known format, or the path stands for several files.
        UsageError: if files of this format are only read.
    """
    kind = serializer_of(path, writes=True)
    if not hasattr(kind, "save"):
        raise UsageError(f"files like {path!r} are only read here; write one of {', '.join(_suffixes(True))}")
    kind.save(df, path, **options)


def serializer_of(path: Any, *, writes: bool = False) -> Any:
    """Return the class that reads and writes files with the suffix of ``path``, or of the first of several paths.

    Args:
        path: path or URL; or a list of these, to read.
        writes: say in an error what could be written, and not what could be read.

    Raises:
        TypeError: if it is no path.
        ValueError: if the suffix is of no known format, or the list is empty.
    """
    if isinstance(path, list | tuple) and not writes:
        if not path:
            raise ValueError("path must be a path, or a list of the paths of tar files, got an empty list")
        path = path[0]
    first = checked_path(path=path)
    name, suffix = os.path.splitext(first.lower())
    if suffix in (".gz", ".bz2") and FORMATS.get(os.path.splitext(name)[1]) == _SVMLIGHT:
        suffix = os.path.splitext(name)[1]
    if not is_url(first) and os.path.isdir(first):
        suffix = ".lmdb"
    elif first.endswith("/"):
        raise ValueError(
            f"{first!r} is no folder that exists: leave the slash at its end out, or make the folder first"
        )
    if suffix not in FORMATS:
        call = "save(df, path)" if writes else "load(path)"
        raise ValueError(
            f"cannot tell the format of {first!r}: the name of a data file ends in {', '.join(_suffixes(writes))}. "
            f"Rename it, or call the class that knows it, as in LMDBSerializer.{call}"
        )
    module, kind = FORMATS[suffix]
    return getattr(import_module(module, __package__), kind)


def _suffixes(writes: bool) -> list[str]:
    """List the suffixes that can be read, or those that can be written, too."""
    return [suffix for suffix in FORMATS if not writes or FORMATS[suffix] != _SVMLIGHT]
