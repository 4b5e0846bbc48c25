"""Keep every kind of workers running for half an hour, in turn: ``python -m tests.soak``, or ``make soak``.

The environment says how: MINUTES (30), ONLY (a regular expression: of the kinds, those in whose names it is found).
Ctrl-C ends it after the turn that runs; what there is so far is printed all the same.
"""
# ruff: noqa: T201  # it prints its table

from __future__ import annotations

import os
import platform
import re
import signal
import sys
import threading
import time

from .figures import Estimate
from .line import KINDS
from .run import Figures, soak

HEADS = [
    "workers", "turns", "datapoints", "GB", "skipped", "raised", "abandoned", "killed", "lost", "descriptors",
    "threads", "MB", "MB more in 10 minutes", "datapoints/s", "beside a young one, %",
]  # fmt: skip


def main() -> int:
    """Print a table, and what was wrong; return 1 if anything was."""
    minutes = float(os.environ.get("MINUTES", "30"))
    chosen = [name for name in KINDS if re.search(os.environ.get("ONLY", ""), name)]
    if not chosen:
        sys.exit(f"ONLY is found in none of {', '.join(KINDS)}")
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    start = time.monotonic()
    figures = soak(chosen, minutes * 60, stop)
    print_table(figures)
    print(f"\n{time.monotonic() - start:.0f} s, {os.cpu_count()} cores, Python {platform.python_version()}.")
    problems = [problem for line in figures for problem in line.problems()]
    print("\n".join(problems), file=sys.stderr)
    return int(bool(problems))


def print_table(figures: list[Figures]) -> None:
    """Print Markdown: a line for each kind of workers."""
    print(f"| {' | '.join(HEADS)} |")
    print(f"|---|{'--:|' * (len(HEADS) - 1)}")
    for line in figures:
        print(f"| {line.name} | {' | '.join(cells(line))} |")


def cells(line: Figures) -> list[str]:
    """Return what the table says of a line."""
    if not line.turns:
        return ["yes" if head == "lost" else "" for head in HEADS[1:]]
    done, most, memory = line.done, line.most, line.turns[-1].usage.megabytes
    return [
        f"{len(line.turns)}", f"{done['received']:,}", f"{done['bytes'] / 1e9:,.0f}", f"{done['skipped']:,}",
        f"{done['faults']}", f"{2 * len(line.turns)}", f"{done['kills']}", "yes" if line.failure else "0",
        "{}, {}".format(*most["descriptors"]), "{}, {}".format(*most["threads"]), f"{memory:,.0f}",
        shown(line.growth, "+.2f"), f"{line.rate:,.0f}", shown(line.drift, "+.1f"),
    ]  # fmt: skip


def shown(found: Estimate, form: str) -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


if __name__ == "__main__":
    sys.exit(main())
