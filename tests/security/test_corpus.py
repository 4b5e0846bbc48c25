"""No byte that a stranger made runs anything, crashes, hangs or takes memory out of proportion."""

from __future__ import annotations

import json
import pathlib
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from .cases import Case, cases

ROOT = pathlib.Path(__file__).parents[2]
MIB = 1 << 20
CASES = [*cases()]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What became of each case; a child that a case kills is followed by another."""
    folder = tmp_path_factory.mktemp("corpus")
    found: dict[str, dict[str, Any]] = {}
    first = 0
    while first < len(CASES):
        child = [sys.executable, "-m", "tests.security.attack", str(folder), str(first)]
        done = subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {line["name"]: line for line in lines if "name" in line}
        if done.returncode == 0:
            break
        assert done.returncode < 0, done.stderr
        assert lines, done.stderr
        died = lines[-1]["number"]
        found[CASES[died].name] = {"ends": signal.Signals(-done.returncode).name, "says": done.stderr}
        first = died + 1
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_bytes_end_in_a_clean_error_and_run_nothing(case: Case, outcomes: dict[str, dict[str, Any]]):
    found = outcomes[case.name]
    assert re.fullmatch(case.ends, found["ends"]), found
    assert re.search(case.says, found["says"], re.DOTALL)
    assert re.search(case.runs, str(found["ran"])) if case.runs else not found["ran"]
    assert found["took"] < 64 * MIB


def test_the_corpus_is_large():
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
