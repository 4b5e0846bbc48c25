"""Kill saves at many points, and see what is left; a program of its own: ``python -m tests.saving.kill POINTS [NAME]``.

It prints a line of JSON for each format.
"""
# ruff: noqa: T201  # a line is how it talks

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from dataflow.errors import CorruptDataError, UsageError

from ..fuzz.formats import SAVED, Format
from .stop import kill_after, kill_before

# Of the points, the part that is spent on the last system calls, which make the file appear.
LAST = 0.4
# How many more calls there may be than were counted: what the allocator asks for varies.
MORE = 20
# After each so manieth point the save is done again.
EVERY = 10
# A save of fewer system calls than points is given more to write, up to this many datapoints.
MOST_ROWS = 2000

CLEAN = ("nothing", "all of it", "refused")


def main(points: int, *names: str) -> None:
    for name in names or SAVED:
        print(json.dumps({"name": name, **kill_at_points(SAVED[name], points)}), flush=True)


def kill_at_points(kind: Format, points: int) -> dict[str, Any]:
    """Return how often what was left, and what should not have been."""
    with tempfile.TemporaryDirectory(prefix="saving-") as folder:
        path = pathlib.Path(folder, kind.file)
        save = partial(Format.save, path=str(path))
        while True:
            start = time.monotonic()
            save(kind)  # here too, so that a child has nothing to import
            seconds = time.monotonic() - start
            expected, names = kind.load(str(path)), sorted(os.listdir(folder))
            _clear(folder)
            calls = kill_before(-1, partial(save, kind)) or 0
            _clear(folder)
            if calls >= points or len(expected) >= MOST_ROWS:
                break
            kind = replace(kind, rows=[*kind.rows, *kind.rows])
        found: Counter[str] = Counter()
        wrong: list[str] = []
        for number, where in enumerate(_killed(partial(save, kind), folder, calls, points, seconds)):
            what = left(kind, path, expected)
            found[what if what in CLEAN else "wrong"] += 1
            if what not in CLEAN:
                wrong.append(f"killed {where}: {what}")
            if what == "nothing" and number % EVERY == 0:  # the next one succeeds, and clears up
                save(kind)
                if kind.load(str(path)) != expected or sorted(os.listdir(folder)) != names:
                    wrong.append(f"after it was killed {where}: {sorted(os.listdir(folder))}")
            _clear(folder)
    return {"calls": calls, "points": sum(found.values()), "found": found, "wrong": wrong}


def _killed(save: Callable[[], None], folder: str, calls: int, points: int, seconds: float) -> Iterator[str]:
    """Kill a save again and again, and say where; where it makes fewer calls than points, also at other moments."""
    done = 0
    for number in chosen(calls, points):
        if kill_before(number, save) is not None:  # it was through already
            _clear(folder)
            break
        done += 1
        yield f"before system call {number} of {calls}"
    for number in range(points - done):
        moment = seconds * number / (points - done)
        kill_after(moment, save)
        yield f"after {moment * 1000:.1f} ms"


def chosen(calls: int, points: int) -> list[int]:
    """Return numbers of system calls: the last ones, a few more, and of the others as many as there may be, evenly."""
    last = min(calls, int(points * LAST))
    others = min(points - last, calls - last)
    spread = [number * (calls - last) // others for number in range(others)] if others else []
    return [*spread, *range(calls - last, calls + MORE)]


def left(kind: Format, path: pathlib.Path, expected: list[bytes]) -> str:
    """Return what somebody finds who loads the file."""
    try:
        rows = kind.load(str(path))
    except FileNotFoundError:
        return "nothing"
    except (CorruptDataError, UsageError) as error:
        return "refused" if path.name in str(error) else f"an error that does not name the file: {error}"
    return "all of it" if rows == expected else f"{len(rows)} of {len(expected)} datapoints"


def _clear(folder: str) -> None:
    for entry in pathlib.Path(folder).iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
