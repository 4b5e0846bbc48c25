"""A small part of ``make fuzz``, and that its guard sees what it is there to see."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .campaign import ROOT, Result, decode_payloads, read_files
from .damage import damaged
from .formats import FORMATS
from .payloads import KINDS, payload


def child(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has a guard."""
    program = f"from tests.fuzz import guard\nguard.install()\nguard.limit_memory(64 << 20)\n{program}"
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_10000_payloads_end_in_a_clean_error_or_a_value():
    result = decode_payloads(10_000)
    assert result.failures == []
    assert sum(result.counts.values()) == 10_000
    assert all(result.counts[kind, "value"] > 0 for kind in KINDS if kind != "pickle")
    assert result.counts["pickle", "UsageError"] > 100


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return read_files([*FORMATS], 30, children=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_are_refused_or_read_as_they_were(name: str, results: dict[str, Result]):
    result = results[name]
    assert result.failures == []
    assert sum(result.counts.values()) == 30
    assert result.counts["cuts", "refused"] > 0


def test_a_number_always_makes_the_same_payload_and_the_same_damage():
    assert [payload(number) for number in range(50)] == [payload(number) for number in range(50)]
    data = bytes(range(256))
    assert [damaged(data, [], number) for number in range(50)] == [damaged(data, [], number) for number in range(50)]
    assert all(damaged(data, [([10], 5)], number)[1] != data for number in range(50))


@pytest.mark.parametrize(
    "attempt",
    [
        pytest.param("import os; os.system('true')", id="shell"),
        pytest.param("import subprocess; subprocess.run(['true'])", id="process"),
        pytest.param("import os; os.fork()", id="fork"),
        pytest.param("import socket; socket.create_connection(('127.0.0.1', 9))", id="connection"),
        pytest.param("open('/dev/null', 'w')", id="write"),
        pytest.param("import os; os.open('/dev/null', os.O_RDWR)", id="write by descriptor"),
        pytest.param("import pickle; pickle.loads(b'cos\\nsystem\\n.')", id="pickle"),
        pytest.param("exec('1 + 1')", id="exec"),
    ],
)
def test_the_guard_stops_and_lists_what_runs(attempt):
    done = child(
        f"import os, pickle, socket, subprocess\nwith guard.watched() as seen:\n"
        f"    try:\n        {attempt}\n    except BaseException as error:\n        print(type(error).__name__)\n"
        "print(len(seen))"
    )
    assert done.stdout.split() == ["ForbiddenError", "1"], done.stderr


def test_the_guard_lets_code_read_and_import():
    done = child("with guard.watched() as seen:\n    import colorsys\n    open('/dev/null').read()\nprint(seen)")
    assert done.stdout == "[]\n", done.stderr


def test_the_guard_refuses_memory():
    done = child("try:\n    bytes(80 << 20)\nexcept MemoryError:\n    print('refused')")
    assert done.stdout == "refused\n", done.stderr


def test_the_guard_ends_what_hangs():
    assert child("with guard.limited_time(0.05):\n    while True: pass").returncode == -14


def test_the_guard_measures_memory():
    done = child("with guard.resident_peak() as peak:\n    bytes(b'1') * (30 << 20)\nprint(peak[0] >> 20)")
    assert int(done.stdout) in range(25, 40)
