"""Run the whole table of faults many times: ``python -m tests.faults``, or ``make faults``.

The environment says how: REPEATS (20), JOBS at the same time (one a processor), ONLY (a regular expression: of
the cases, whose names are FAULT-KIND-METHOD, those in which it is found).
"""
# ruff: noqa: T201  # it prints its table

from __future__ import annotations

import os
import re
import sys
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .table import Case, Verdict, attempt, cases

WORDS = ("hang", "leftover", "silent loss", "wrong")


def main() -> int:
    """Print a line a fault, and what was wrong; return 1 if anything was."""
    repeats = int(os.environ.get("REPEATS", "20"))
    jobs = int(os.environ.get("JOBS", os.cpu_count() or 1))
    chosen = [case for case in cases() if re.search(os.environ.get("ONLY", ""), str(case))]
    start = time.monotonic()
    verdicts: dict[str, list[Verdict]] = defaultdict(list)
    with ThreadPoolExecutor(jobs) as pool:
        runs = chosen * repeats
        try:
            for case, verdict in zip(runs, pool.map(partial(attempt, part=True), runs), strict=True):
                verdicts[case.fault].append(verdict)
                if verdict.what:
                    print(f"{verdict.what.upper()} {verdict.why}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:  # no more of them; what runs is followed to its end
            pool.shutdown(cancel_futures=True)
    count = sum(map(len, verdicts.values()))
    print_table(chosen, verdicts)
    print(f"\n{count} of {len(runs)} runs, {jobs} at a time, {time.monotonic() - start:.0f} s")
    return int(any(verdict.what for found in verdicts.values() for verdict in found))


def print_table(chosen: list[Case], verdicts: dict[str, list[Verdict]]) -> None:
    """Print Markdown: a line a fault, and their sum."""
    several = Counter(case.fault for case in chosen)
    print("| fault | cases | runs | hangs | leftovers | silent losses | other failures | slowest, s |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for fault, found in [*verdicts.items(), ("**all**", [v for found in verdicts.values() for v in found])]:
        counts = Counter(verdict.what for verdict in found)
        cells = [several.get(fault, len(chosen)), len(found), *(counts[word] for word in WORDS)]
        print(f"| {fault.replace('_', ' ')} | {' | '.join(map(str, cells))} | {max(v.seconds for v in found):.1f} |")


if __name__ == "__main__":
    sys.exit(main())
