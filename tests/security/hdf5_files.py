"""HDF5 files that were made to do harm: they name other files, filters and types, and claim what they do not hold."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import h5py
import numpy as np

from dataflow import HDF5Data, HDF5Serializer

from .payloads import BOMB

SECRET = b"this is of somebody else"
VARIABLE = h5py.vlen_dtype(np.uint8)


def file_of(fill: Callable[[h5py.File, pathlib.Path], None], folder: pathlib.Path) -> pathlib.Path:
    path = folder / "x.h5"
    (folder / "canary").write_bytes(SECRET)
    with h5py.File(folder / "canary.h5", "w") as other:
        other["data"] = np.frombuffer(SECRET, "u1")
    with h5py.File(path, "w", libver="latest") as file:
        fill(file, folder)
    return path


def data(path: pathlib.Path) -> list[Any]:
    return list(HDF5Data(str(path), ["data"], False))


def data_anywhere(path: pathlib.Path) -> list[Any]:
    return list(HDF5Data(str(path), ["data"], False, allow_external=True))


def shuffled(path: pathlib.Path) -> list[Any]:
    return list(HDF5Data(str(path), ["data"]))


def loaded(path: pathlib.Path) -> list[Any]:
    return list(HDF5Serializer.load(path))


def external_link(file: h5py.File, folder: pathlib.Path) -> None:
    file["data"] = h5py.ExternalLink(str(folder / "canary.h5"), "data")


def link_to_an_external_link(file: h5py.File, folder: pathlib.Path) -> None:
    file["away"] = h5py.ExternalLink(str(folder / "canary.h5"), "/")
    file["data"] = h5py.SoftLink("/away/data")


def external_storage(name: str, file: h5py.File, folder: pathlib.Path) -> None:
    place = name.replace("FOLDER", str(folder))
    file.create_dataset("data", (len(SECRET),), "u1", external=[(place, 0, len(SECRET))])


def virtual(file: h5py.File, folder: pathlib.Path) -> None:
    layout = h5py.VirtualLayout((len(SECRET),), "u1")
    layout[:] = h5py.VirtualSource(str(folder / "canary.h5"), "data", (len(SECRET),))
    file.create_virtual_dataset("data", layout)


def circle(file: h5py.File, folder: pathlib.Path) -> None:
    file["data"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/data")


def group_in_itself(file: h5py.File, folder: pathlib.Path) -> None:
    group = file.create_group("a")
    group["a"] = group
    group["data"] = np.arange(3)


def references(file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("data", (2,), h5py.ref_dtype)[0] = file.ref


def regions(file: h5py.File, folder: pathlib.Path) -> None:
    file["other"] = np.arange(3)
    file.create_dataset("data", (2,), h5py.regionref_dtype)[0] = file["other"].regionref[:2]


def variable(kind: Any, file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("data", (2,), kind)


def opaque(name: bytes, file: h5py.File, folder: pathlib.Path) -> None:
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
    kind.set_tag(name)
    h5py.h5d.create(file.id, b"data", kind, h5py.h5s.create_simple((1,)))


def claimed(shape: tuple[int, ...], chunks: tuple[int, ...] | None, file: h5py.File, folder: pathlib.Path) -> None:
    file.create_dataset("data", shape, "u1", chunks=chunks)


def bomb(file: h5py.File, folder: pathlib.Path) -> None:
    """Store a chunk of 128 MiB that is a few hundred kilobytes long."""
    data = file.create_dataset("data", (1, 1 << 27), "u1", chunks=(1, 1 << 27), compression="gzip")
    data[0] = 0


def plugin(file: h5py.File, folder: pathlib.Path) -> None:
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((2,))
    how.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 0))
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"data", h5py.h5t.NATIVE_UINT8, space, how).write(space, space, np.arange(4, dtype="u1"))


def scalar(file: h5py.File, folder: pathlib.Path) -> None:
    file["data"] = 5


def note(text: Any, file: h5py.File, folder: pathlib.Path) -> None:
    file["data"] = np.arange(3)
    file["1"] = np.arange(3)
    file.attrs["dataflow_layout"] = text


def described(**changes: Any) -> np.bytes_:
    said = {"version": 1, "datapoint": "list", "components": [[None, "data", "int"]], "count": 3, **changes}
    return np.bytes_(json.dumps(said).encode())


CORRUPT, USAGE = "CorruptDataError", "UsageError"
IN_FILE = r"x\.h5', dataset 'data'"
OUT = f"{IN_FILE}.*allow_external=True"

FILES = {
    "HDF5: an external link": (partial(file_of, external_link), data, USAGE, OUT),
    "HDF5: a soft link through an external link": (partial(file_of, link_to_an_external_link), data, USAGE, OUT),
    "HDF5: stored in another file": (partial(file_of, partial(external_storage, "FOLDER/canary")), data, USAGE, OUT),
    "HDF5: stored in /etc/passwd": (partial(file_of, partial(external_storage, "/etc/passwd")), data, USAGE, OUT),
    "HDF5: stored at ../x": (partial(file_of, partial(external_storage, "../x")), data, USAGE, OUT),
    "HDF5: a virtual dataset": (partial(file_of, virtual), data, USAGE, OUT),
    "HDF5: the filter of a plugin": (partial(file_of, plugin), data, USAGE, f"{IN_FILE}.*plugin"),
    "HDF5: soft links in a circle": (partial(file_of, circle), data, CORRUPT, f"{IN_FILE}.*circle"),
    "HDF5: a group in itself": (partial(file_of, group_in_itself), loaded, f"a value|{CORRUPT}|{USAGE}", ""),
    "HDF5: references to objects": (partial(file_of, references), data, USAGE, f"{IN_FILE}.*references"),
    "HDF5: references to regions": (partial(file_of, regions), data, USAGE, f"{IN_FILE}.*references"),
    "HDF5: rows of variable length": (
        partial(file_of, partial(variable, VARIABLE)), data, USAGE, "allow_variable=True"
    ),
    "HDF5: strings of variable length": (
        partial(file_of, partial(variable, h5py.string_dtype())), data, USAGE, "allow_variable=True"
    ),
    "HDF5: variable length in a compound": (
        partial(file_of, partial(variable, np.dtype([("a", VARIABLE)]))), data, USAGE, f"{IN_FILE}.*variable length"
    ),
    "HDF5: a type that calls itself an object": (
        partial(file_of, partial(opaque, b"NUMPY:|O")), data, USAGE, f"{IN_FILE}.*calls itself"
    ),
    "HDF5: a type that calls itself by a comma list": (
        partial(file_of, partial(opaque, b"NUMPY:i4,O")), data, USAGE, f"{IN_FILE}.*calls itself"
    ),
    "HDF5: a dataset of 2**40 rows that are not there": (
        partial(file_of, partial(claimed, (2**40,), (1024,))), data, CORRUPT, f"{IN_FILE}.*it claims shape"
    ),
    "HDF5: rows of 2**40 bytes that are not there": (
        partial(file_of, partial(claimed, (3, 2**40), (1, 1024))), data, CORRUPT, f"{IN_FILE}.*it claims shape"
    ),
    "HDF5: chunks of 2 GiB that are not there": (
        partial(file_of, partial(claimed, (2**31, 2), (2**30, 2))), data, CORRUPT, f"{IN_FILE}.*it claims shape"
    ),
    "HDF5: a chunk of 128 MiB in 130 KB": (partial(file_of, bomb), data, CORRUPT, f"{IN_FILE}.*max_bytes"),
    "HDF5: the same, shuffled": (partial(file_of, bomb), shuffled, CORRUPT, f"{IN_FILE}.*max_bytes"),
    "HDF5: a single value": (partial(file_of, scalar), data, CORRUPT, f"{IN_FILE}.*no rows"),
    "HDF5: a note that is a pickle": (partial(file_of, partial(note, np.bytes_(BOMB))), loaded, CORRUPT, r"x\.h5"),
    "HDF5: a note of 1,000 levels": (
        partial(file_of, partial(note, np.bytes_(b"[" * 10_000))), loaded, CORRUPT, r"x\.h5"
    ),
    "HDF5: a note of variable length": (partial(file_of, partial(note, "text")), loaded, CORRUPT, r"x\.h5"),
    "HDF5: a note that claims more datapoints": (
        partial(file_of, partial(note, described(count=2**62))), loaded, CORRUPT, r"x\.h5"
    ),
    "HDF5: a note of another path": (
        partial(file_of, partial(note, described(components=[[None, "../../etc/passwd", "int"]]))), loaded,
        f"{CORRUPT}|MissingKeyError", r"x\.h5"
    ),
    "HDF5: a note of another kind": (
        partial(file_of, partial(note, described(components=[[None, "data", "os.system"]]))), loaded, CORRUPT, r"x\.h5"
    ),
    "HDF5: a note of a path twice under one key": (
        partial(file_of, partial(note, described(datapoint="dict", components=[["a", "data", "int"]] * 2))), loaded,
        CORRUPT, r"x\.h5"
    ),
}  # fmt: skip
