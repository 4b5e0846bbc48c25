"""The corpus as cases: what is made, who reads it, and what must come of it."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from dataflow import loads

from . import hdf5_files, payloads
from .files import FILES

CORRUPT, USAGE, VALUE = "CorruptDataError", "UsageError", "a value"


class Case(NamedTuple):
    """One attack.

    Attributes:
        name: what it is, and of which format.
        make: makes the file in a folder, or just bytes.
        read: reads it as a user would.
        ends: the error, or "a value".
        says: what the message says, as a regular expression.
        runs: what the watch must see, as a regular expression; where it is "", that is nothing.
    """

    name: str
    make: Callable[[pathlib.Path], Any]
    read: Callable[[Any], Any]
    ends: str
    says: str = ""
    runs: str = ""


def _decode(data: bytes) -> list[Any]:
    """Decode in every way that there is; all end in the same, or the first error is it."""
    return [loads(data, copy=copy, verify=verify) for copy in (True, False) for verify in (True, False)]


def cases() -> Iterator[Case]:
    """Yield the whole corpus."""
    for kind, table, ends, says in (
        ("record", payloads.RECORDS, CORRUPT, ""),
        ("msgpack", payloads.MSGPACK, CORRUPT, "neither a record of dataflow nor one msgpack value"),
        ("pickle", payloads.PICKLES, USAGE, r"this is a pickle, .*allow_pickle=True"),
        ("harmless", payloads.HARMLESS, VALUE, ""),
    ):
        for name, data in table.items():
            yield Case(f"{kind}: {name}", partial(_give, data), _decode, ends, says)
    for name, (make, read, ends, says) in FILES.items():
        yield Case(name, make, read, ends, says)
    yield from _allowed()


def _allowed() -> Iterator[Case]:
    """Yield what runs because it was asked to: if the watch saw nothing here, it would be blind."""
    load = partial(loads, allow_pickle=True)
    for name, data in payloads.PICKLES.items():
        yield Case(f"allowed: {name}", partial(_give, data), load, "ForbiddenError", runs="pickle.find_class")
    linked = partial(hdf5_files.file_of, hdf5_files.external_link)
    yield Case("allowed: an external link", linked, hdf5_files.data_anywhere, VALUE, runs=r"read canary\.h5")


def _give(data: bytes, folder: pathlib.Path) -> bytes:
    return data
