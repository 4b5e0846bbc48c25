"""A save that is killed, or has no room, or company, leaves all of a file or none of it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
POINTS = "20"
FORMATS = [
    "LMDB", "npz", "TFRecord", "TFRecord, streamed", "HDF5", "tar of records", "tar of files", "Parquet", "Arrow",
]  # fmt: skip
TROUBLES = ["a_file_that_may_not_grow", "a_full_disk", "an_old_file", "two_writers", "a_reader_during_a_rewrite"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it needs ptrace and mount of Linux"),
]


@cache
def lines(program: str, *arguments: str) -> list[dict[str, Any]]:
    """Return what a program says of all formats, which it has to load only once."""
    child = [sys.executable, "-m", f"tests.saving.{program}", *arguments, *FORMATS]
    done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", FORMATS)
def test_a_killed_save_leaves_all_or_nothing_and_the_next_one_succeeds(name: str):
    (line,) = (line for line in lines("kill", POINTS) if line["name"] == name)
    assert line["wrong"] == []
    assert line["points"] >= int(POINTS)
    assert line["found"]["nothing"] > 0
    assert line["found"]["all of it"] > 0


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("name", FORMATS)
def test_trouble_is_a_clean_error_or_none(name: str, trouble: str):
    (line,) = (line for line in lines("trouble") if (line["name"], line["trouble"]) == (name, trouble))
    if "may mount" in line["wrong"]:
        pytest.skip(line["wrong"])
    assert line["wrong"] == ""
