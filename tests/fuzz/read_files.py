"""Read damaged files of some formats, watched; a program of its own: see ``campaign``.

``python -m tests.fuzz.read_files FOLDER STOP STEP NAME START [NAME START ...]`` reads the files START, START + STEP
and so on below STOP of each format. It prints a line of JSON before each, and one that says what became of it.
"""
# ruff: noqa: T201  # a line is how it talks

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import sys
import warnings

from dataflow.errors import CorruptDataError, UsageError

from . import guard
from .damage import damaged
from .formats import FORMATS, Format

SECONDS = 10.0
MEMORY = 1 << 30
RESIDENT = 64 * guard.MIB


def main(folder: str, stop: int, step: int, jobs: dict[str, int]) -> None:
    warnings.simplefilter("ignore")
    with contextlib.suppress(ModuleNotFoundError):
        import pyarrow.compute  # noqa: F401  # pyarrow does so where a flipped bit makes tensors of a column: no file's code
    guard.install()
    for name, start in jobs.items():
        guard.limit_memory(None)
        read_all(FORMATS[name], pathlib.Path(folder, name), range(start, stop, step))


def read_all(kind: Format, folder: pathlib.Path, numbers: range) -> None:
    """Damage a file in many ways, and read it each time."""
    folder.mkdir(exist_ok=True)
    whole = folder / kind.file
    if not whole.exists():
        kind.save(str(whole))
    expected = kind.load(str(whole))  # which also imports what reading takes
    if len(expected) < len(kind.rows):
        raise AssertionError(f"{len(expected)} datapoints of {len(kind.rows)}")
    data = whole.read_bytes()
    spans = kind.spans(data)
    beside = {entry.name: entry.read_bytes() for entry in folder.glob(f"{kind.file}.*")}
    guard.limit_memory(MEMORY)
    for number in numbers:
        sort, changed = damaged(data, spans, number)
        path = folder / str(number) / kind.file
        path.parent.mkdir()
        for name, content in {**beside, kind.file: changed}.items():
            path.with_name(name).write_bytes(content)
        line = {"name": kind.name, "number": number, "damage": sort}
        print(json.dumps(line), flush=True)
        print(json.dumps({**line, "what": read(kind, path, expected)}), flush=True)
        for entry in path.parent.iterdir():
            entry.unlink()
        path.parent.rmdir()


def read(kind: Format, path: pathlib.Path, expected: list[bytes]) -> str:
    """Return "as it was", "refused", "unnoticed" where the format knows no better, or what went wrong."""
    with guard.resident_peak() as peak, guard.watched() as seen, guard.limited_time(SECONDS):
        what = _read(kind, path, expected)
    if seen:
        return f"ran {seen}"
    if peak[0] > RESIDENT + 64 * os.path.getsize(path):
        return f"took {peak[0]:,} bytes"
    return what


def _read(kind: Format, path: pathlib.Path, expected: list[bytes]) -> str:
    try:
        rows = kind.load(str(path))
    except (CorruptDataError, UsageError, OSError) as error:
        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        return "refused" if path.name in text else f"did not name the file: {text}"
    except (Exception, guard.ForbiddenError) as error:
        return f"{type(error).__name__}: {error}"
    if rows == expected:
        return "as it was"
    same = {
        "all": False,
        "values": {*rows} <= {*expected},
        "count": len(rows) in (len(expected), 0),
        "nothing": True,
    }
    if same[kind.checks]:
        return "unnoticed"
    return "changed" if len(rows) == len(expected) else f"{len(rows)} datapoints of {len(expected)}"


if __name__ == "__main__":
    _, folder, stop, step, *jobs = sys.argv
    main(folder, int(stop), int(step), dict(zip(jobs[::2], map(int, jobs[1::2]), strict=True)))
