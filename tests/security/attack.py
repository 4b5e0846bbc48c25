"""Read the corpus, from a case on, watched; a program of its own: ``python -m tests.security.attack FOLDER [FIRST]``.

It prints a line of JSON before and after each case.
"""
# ruff: noqa: T201  # a line is how it talks

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile
import warnings
from typing import Any

from dataflow import DataFromList

from ..fuzz import guard
from ..fuzz.decode_payloads import touch
from ..fuzz.formats import FORMATS
from .cases import Case, cases

SECONDS = 10.0
MEMORY = 1 << 30
# What an attack may take beyond 64 MiB; packed text may be a hundred times as long, and is there twice for a moment.
TIMES_ITS_SIZE = 256


def main(folder: str, first: int = 0) -> None:
    warnings.simplefilter("ignore")
    _warm_up(pathlib.Path(tempfile.mkdtemp(dir=folder)))
    guard.install()
    made: list[tuple[int, Case, Any]] = []
    for number, case in enumerate(cases()):
        if number >= first:
            place = pathlib.Path(folder, f"{first}-{number}")
            place.mkdir()
            made.append((number, case, case.make(place)))
    guard.limit_memory(MEMORY)
    for number, case, target in made:
        print(json.dumps({"number": number}), flush=True)
        print(json.dumps({"number": number, "name": case.name, **attack(case, target)}), flush=True)


def _warm_up(folder: pathlib.Path) -> None:
    """Write and read honest files, shuffled: what is imported then is not of an attack."""
    list(DataFromList([[1], [2]]))
    for kind in FORMATS.values():
        kind.save(str(folder / kind.file))
        kind.load(str(folder / kind.file))


def attack(case: Case, target: Any) -> dict[str, Any]:
    """Return what became of a case. What its folder holds beside the file is of others, and must not be read."""
    canaries = [*target.parent.glob("canary*")] if isinstance(target, pathlib.Path) else []
    for canary in canaries:
        os.utime(canary, (0, os.stat(canary).st_mtime))
    size = len(target) if isinstance(target, bytes) else os.path.getsize(target) if os.path.isfile(target) else 0
    error: BaseException | None = None
    with guard.resident_peak() as peak, guard.watched() as seen, guard.limited_time(SECONDS):
        try:
            touch(case.read(target))
        except (Exception, guard.ForbiddenError) as raised:
            error = raised
    return {
        "ends": "a value" if error is None else type(error).__name__,
        "says": "\n".join([str(error), *getattr(error, "__notes__", ())]),
        "ran": [*seen, *(f"read {canary.name}" for canary in canaries if os.stat(canary).st_atime)],
        "took": max(0, peak[0] - TIMES_ITS_SIZE * size),
    }


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
