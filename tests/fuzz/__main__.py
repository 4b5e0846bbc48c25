"""Fuzz everything that reads bytes of strangers: ``python -m tests.fuzz``, or ``make fuzz``.

The environment says how much: PAYLOADS (1,000,000), FILES a format (1,000), JOBS at the same time (one a processor),
ONLY (a regular expression: of the formats, those in whose names it is found; "codec" is one).
"""
# ruff: noqa: T201  # it prints its tables

from __future__ import annotations

import os
import re
import sys
import time

from .campaign import Result, decode_payloads, read_files
from .damage import KINDS as DAMAGE
from .formats import FORMATS
from .ledger import OUTCOMES
from .payloads import KINDS

OUTCOMES_OF_FILES = ("refused", "as it was", "unnoticed", "crashed", "other")


def main() -> int:
    """Print a table of payloads and one of files, and what failed; return 1 if anything did."""
    payloads, files = int(os.environ.get("PAYLOADS", "1000000")), int(os.environ.get("FILES", "1000"))
    jobs = int(os.environ.get("JOBS", os.cpu_count() or 1))
    chosen = [name for name in ("codec", *FORMATS) if re.search(os.environ.get("ONLY", ""), name)]
    if not chosen:
        sys.exit(f"ONLY is found in none of {', '.join(('codec', *FORMATS))}")
    start = time.monotonic()
    failures: list[str] = []
    if "codec" in chosen:
        result = decode_payloads(payloads, jobs)
        print_payloads(result)
        failures += result.failures
    results = read_files([name for name in chosen if name != "codec"], files, jobs)
    if results:
        print_files(results)
        failures += [failure for result in results.values() for failure in result.failures]
    print(f"\n{len(failures)} failures; {jobs} processes, {time.monotonic() - start:.0f} s")
    print("\n".join(failures), file=sys.stderr)
    return int(bool(failures))


def print_payloads(result: Result) -> None:
    """Print Markdown: a line for each kind of payload."""
    print("| made from | payloads | CorruptDataError | UsageError | values | anything else |")
    print("|---|--:|--:|--:|--:|--:|")
    for kind in KINDS:
        value, corrupt, usage = (result.counts[kind, outcome] for outcome in OUTCOMES)
        print(f"| {kind} | {value + corrupt + usage:,} | {corrupt:,} | {usage:,} | {value:,} | 0 |")
    total = {outcome: sum(result.counts[kind, outcome] for kind in KINDS) for outcome in OUTCOMES}
    value, corrupt, usage = total.values()
    bad = len(result.failures)
    print(f"| **all** | {value + corrupt + usage + bad:,} | {corrupt:,} | {usage:,} | {value:,} | {bad} |")
    print(f"\nLongest payload {result.longest:,} bytes, slowest {result.slowest * 1000:.1f} ms of processor time.\n")


def print_files(results: dict[str, Result]) -> None:
    """Print Markdown: a line for each format and kind of damage."""
    print("| format | damage | files | refused | as it was | unnoticed | crashed | anything else |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    for name, result in results.items():
        for damage in DAMAGE:
            counts = [result.counts[damage, what] for what in OUTCOMES_OF_FILES]
            if any(counts):
                print(f"| {name} | {damage} | {sum(counts)} | {' | '.join(map(str, counts))} |")


if __name__ == "__main__":
    sys.exit(main())
