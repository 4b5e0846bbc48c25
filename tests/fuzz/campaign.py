"""Have child processes decode payloads and read files, and go on behind those that one dies of.

::

    campaign --- payloads n, n + 1, ... ---> child: decode_payloads, which may crash
        |  <--- lines: what went wrong ------+
        +------ ledger, a mapped file: counts, and the payload at work when it died

    campaign --- files n, n + 1, ... ------> child: read_files
        +  <--- two lines a file: it begins, and what became of it
"""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .formats import FORMATS
from .ledger import Ledger

ROOT = pathlib.Path(__file__).parents[2]


ALLOWED = ("as it was", "refused", "unnoticed")


@dataclass
class Result:
    """What became of many payloads."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    longest: int = 0


def decode_payloads(total: int, children: int = 1) -> Result:
    """Decode the payloads 0, 1, ... in as many processes at a time."""
    with ThreadPoolExecutor(children) as pool:
        parts = [*pool.map(lambda start: _follow(start, total, children), range(children))]
    result = Result()
    for part in parts:
        result.counts += part.counts
        result.failures += part.failures
        result.slowest = max(result.slowest, part.slowest)
        result.longest = max(result.longest, part.longest)
    return result


def _follow(start: int, stop: int, step: int) -> Result:
    """Run one child after the other until the last payload is done."""
    result = Result()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = pathlib.Path(folder, "ledger")
        ledger = Ledger(path)
        while start < stop:
            done = _child("decode_payloads", str(path), *map(str, (start, stop, step)))
            for line in done.stdout.splitlines():
                said = json.loads(line)
                result.failures.append(f"payload {said['payload']}: {said['what']}")
            if done.returncode == 0:
                break
            if done.returncode > 0:
                raise RuntimeError(f"the child has a fault of its own:\n{done.stderr}")
            result.failures.append(f"payload {ledger.number}: {signal.Signals(-done.returncode).name}\n{done.stderr}")
            start = ledger.number + step
        result.counts.update(ledger.counts())
        result.slowest, result.longest = ledger.slowest, ledger.longest
    return result


def read_files(names: Sequence[str], total: int, children: int = 1) -> dict[str, Result]:
    """Damage a file of each format in as many ways, and read what is left; counts are by damage and outcome."""
    results = {name: Result() for name in names}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder, ThreadPoolExecutor(children) as pool:
        for lines in pool.map(lambda start: _read(names, folder, start, total, children), range(children)):
            for line in lines:
                _judge(results[line["name"]], line)
    return results


def _judge(result: Result, line: dict[str, Any]) -> None:
    """Count a file, and say whether it did what none may do."""
    kind, damage, what = FORMATS[line["name"]], line["damage"], line["what"]
    elsewhere = damage == "elsewhere"
    crashed = what.startswith("SIG")
    overlooked = what == "unnoticed" and kind.checks == "values" and not elsewhere
    if (crashed and not (kind.crashes and elsewhere)) or (what not in ALLOWED and not crashed) or overlooked:
        result.failures.append(f"{kind.name}, file {line['number']}, {damage}: {what}")
    result.counts[damage, what if what in ALLOWED else "crashed" if crashed else "other"] += 1


def _read(names: Sequence[str], folder: str, start: int, stop: int, step: int) -> list[dict[str, Any]]:
    """Return what became of the files; a child that one kills is followed by another."""
    found: list[dict[str, Any]] = []
    jobs = dict.fromkeys(names, start)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        while jobs:
            arguments = [str(part) for job in jobs.items() for part in job]
            done = _child("read_files", own, str(stop), str(step), *arguments)
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            found += [line for line in lines if "what" in line]
            if done.returncode == 0:
                break
            if done.returncode > 0 or not lines:
                raise RuntimeError(f"the child has a fault of its own:\n{done.stderr}")
            died = lines[-1]
            found.append({**died, "what": signal.Signals(-done.returncode).name})
            jobs = {name: jobs[name] for name in [*jobs][[*jobs].index(died["name"]) :]}
            jobs[died["name"]] = died["number"] + step
    return found


def _child(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"tests.fuzz.{module}", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
