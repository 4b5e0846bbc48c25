"""Kill saves at many points, and give them other trouble: ``python -m tests.saving``, or with ``make faults``.

The environment says how much: POINTS a format (300), JOBS at the same time (one a processor), ONLY (a regular
expression: of the formats, those in whose names it is found).
"""
# ruff: noqa: T201  # it prints its tables

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..fuzz.campaign import ROOT
from ..fuzz.formats import SAVED
from .trouble import SKIPPED


def main() -> int:
    """Print a table, and what was wrong; return 1 if anything was."""
    points = os.environ.get("POINTS", "300")
    chosen = [name for name in SAVED if re.search(os.environ.get("ONLY", ""), name)]
    start = time.monotonic()
    with ThreadPoolExecutor(int(os.environ.get("JOBS", os.cpu_count() or 1))) as pool:
        killed = [*pool.map(lambda name: _lines("kill", points, name)[0], chosen)]
        troubled = [line for lines in pool.map(lambda name: _lines("trouble", name), chosen) for line in lines]
    wrong = [f"{line['name']}: {what}" for line in killed for what in line["wrong"]]
    wrong += [f"{line['name']}, {line['trouble']}: {line['wrong']}" for line in troubled if line["wrong"]]
    print("| format | system calls | killed | found nothing | found all of it | refused | found part of it |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for line in killed:
        counts = " | ".join(str(line["found"].get(what, 0)) for what in ("nothing", "all of it", "refused", "wrong"))
        print(f"| {line['name']} | {line['calls']} | {line['points']} | {counts} |")
    troubles = sorted({line["trouble"].replace("_", " ") for line in troubled})
    print(f"\n{', '.join(troubles)}: {len(troubled)} runs; {time.monotonic() - start:.0f} s")
    print("\n".join(wrong), file=sys.stderr)
    return int(any(SKIPPED not in what for what in wrong))


def _lines(program: str, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.saving.{program}", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
