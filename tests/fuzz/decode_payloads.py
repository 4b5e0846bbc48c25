"""Decode payloads START, START + STEP, ... below STOP, watched; a program of its own: see ``campaign``.

It prints a line of JSON for each payload that did what none may do, and keeps count in the ledger.
"""
# ruff: noqa: T201  # a line is how it talks

from __future__ import annotations

import json
import pathlib
import sys
from time import thread_time_ns
from typing import Any

import numpy as np

from dataflow.codec import loads
from dataflow.errors import CorruptDataError, UsageError

from . import guard
from .ledger import Ledger
from .payloads import Payload, payload

SECONDS = 1.0
# What any payload may take beyond 64 times its size.
MEMORY = 64 * guard.MIB
LONGEST = 1 << 17


def main(path: str, start: int, stop: int, step: int) -> None:
    ledger = Ledger(pathlib.Path(path))
    for number in range(200):  # what the first calls import and cache is not of a payload
        decode(payload(number))
    guard.install()
    guard.limit_memory(MEMORY + 64 * LONGEST)
    for number in range(start, stop, step):
        ledger.begin(number)
        what = payload(number)
        ledger.longest = len(what.data)
        with guard.watched() as seen, guard.limited_time(SECONDS):
            begun = thread_time_ns()
            outcome = decode(what)
            elapsed = thread_time_ns() - begun
        if seen or outcome not in ("value", "CorruptDataError", "UsageError"):
            print(json.dumps({"payload": number, "what": seen or outcome}), flush=True)
        else:
            ledger.end(what.kind, outcome, elapsed)


def decode(what: Payload) -> str:
    """Return "value", or the name of the error; one that may not be comes with its text."""
    data = memoryview(what.data) if what.view else what.data
    try:
        touch(loads(data, copy=what.copy, verify=what.verify))
    except (CorruptDataError, UsageError) as error:
        return type(error).__name__
    except (Exception, guard.ForbiddenError) as error:
        return f"{type(error).__name__}: {error}"
    return "value"


def touch(value: Any) -> None:
    """Read every byte of a value: a shape that lies ends in a crash here, and not in the program of somebody."""
    if isinstance(value, np.ndarray | np.generic):
        value.tobytes()
        if value.dtype.hasobject:
            raise AssertionError("an array of pointers")
    elif isinstance(value, dict):
        for key, item in value.items():
            hash(key)
            touch(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            touch(item)
    elif isinstance(value, str):
        value.encode("utf-8", "surrogatepass")
    elif not isinstance(value, type(None) | bool | int | float | complex | bytes | bytearray):
        raise AssertionError(f"a {type(value).__qualname__}, which no format holds")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
