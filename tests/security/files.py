"""Files that were made to do harm to whoever reads them, by name."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

from . import column_files, hdf5_files, lmdb_files, npz_files, tar_files, tfrecord_files

Make = Callable[[pathlib.Path], pathlib.Path]
Entry = tuple[Make, Callable[[pathlib.Path], Any], str, str]

FILES: dict[str, Entry] = {}
for module in (lmdb_files, column_files, tfrecord_files, hdf5_files, npz_files, tar_files):
    FILES |= module.FILES
