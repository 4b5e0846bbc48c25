"""Look into an HDF5 file: what it holds, and what of it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Any

from ..errors import UsageError
from ..sources.hdf5_file import Column, layout_of
from ..utils.open_file import checked_path, size_of
from ..utils.open_hdf5 import Allowed, HDF5File


def inspect(path: Any) -> dict[str, Any]:
    """See ``HDF5Serializer.inspect``."""
    file = HDF5File(checked_path(path=path), Allowed())
    layout = layout_of(file)
    found: dict[str, Any] = {}
    checked: set[bool] = set()
    sums = {} if layout is None else {component.path: component.sums for component in layout.components}
    for name in file.paths():
        if name in sums.values():
            continue
        try:
            dataset = file.dataset(name)
        except (UsageError, ValueError) as error:
            found[name] = {"refused": str(error)}
            continue
        has_sums = bool(dataset.fletcher32 or sums.get(name))
        checked.add(has_sums)
        found[name] = {
            "dtype": str(dataset.dtype),
            "shape": list(dataset.shape),
            "chunks": dataset.chunks and list(dataset.chunks),
            "compression": dataset.compression,
            "checksums": has_sums,
        }
    sizes = {each["shape"][0] for each in found.values() if "shape" in each}
    same = next(iter(sizes)) if len(sizes) == 1 else None
    return {
        "format": "HDF5",
        "codec": "datasets" if layout is None else f"datasets, of {layout.container}s",
        "datapoints": same if layout is None else layout.size,
        "bytes": size_of(file.path),
        "checksums": {(True,): "every chunk", (False, True): "some datasets"}.get(tuple(sorted(checked)), "none"),
        "datasets": found,
    }


def damages(path: Any, *, on_record: Callable[[], None] | None = None) -> Iterator[tuple[int, str]]:
    """See ``HDF5Serializer.damages``."""
    file = HDF5File(checked_path(path=path), Allowed())
    layout = layout_of(file)
    if layout is None:
        columns = [Column(file, path) for path in file.paths()]
    else:
        columns = [Column(file, component.path, component) for component in layout.components]
    for number, faults in enumerate(zip_longest(*[column.faults() for column in columns])):
        for fault in filter(None, faults):
            yield number, fault
        if on_record is not None:
            on_record()
    if layout is not None:
        for column in columns:
            if column.size != layout.size:
                why = f"dataset {column.path!r} has {column.size:,} rows, and {layout.size:,} were written"
                yield min(column.size, layout.size), why
