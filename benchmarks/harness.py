"""Run the contenders of a benchmark, each in a process of its own, and print their tables.

A script describes its tables and hands them to ``main``::

    table = Table("chain", unit="million datapoints/s", versus={"fused": "of the limit"})

    @table.row("one fused loop")
    def fused() -> float:
        return measured

    if __name__ == "__main__":
        main([table])

In each round every contender runs once (A B C A B C ...), so that what disturbs the machine for a while disturbs all
of them. A figure is the median over the rounds; ratios and differences are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The checkout that this file is in is measured, installed or not.
sys.path.insert(0, str(ROOT))
# One core a contender: BLAS and OpenCV threads would measure the machine. 1 is OpenCV's word for none.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")
# A folder that the contenders of one run share.
FOLDER = "DATAFLOW_BENCHMARK_FOLDER"

# What a contender returns: the figure, or {"value": the figure, "an extra column": ...}.
Measured = float | Mapping[str, float]
Contender = Callable[[], Measured]
Result = dict[str, Any]


class Table:
    """A question, and the contenders that answer it.

    Args:
        name: what the JSON and the blocks in docs/performance.md call it.
        unit: what the figures are.
        versus: contenders that every row is divided by, each with the head of its column.
        steps: rows build upon one another, so show the difference to the row above.
        form: how to print a figure.
    """

    def __init__(
        self, name: str, unit: str, versus: Mapping[str, str], steps: bool = False, form: str = ",.2f"
    ) -> None:
        self.name, self.unit, self.steps, self.form = name, unit, steps, form
        self.versus = {f"{name}.{other}": head for other, head in versus.items()}
        self.rows: dict[str, tuple[str, Contender]] = {}

    def row(self, label: str) -> Callable[[Contender], Contender]:
        """Add the decorated function as a contender."""

        def add(contender: Contender) -> Contender:
            self.rows[f"{self.name}.{contender.__name__}"] = label, contender
            return contender

        return add

    def markdown(self, results: Mapping[str, list[Result]]) -> str:
        """Return the table of what was measured."""
        figures = {key: results[key] for key in self.rows if all("value" in one for one in results.get(key, [{}]))}
        extras = list(dict.fromkeys(name for runs in figures.values() for name in runs[0] if name != "value"))
        steps = ["more than the row above"] * self.steps
        heads = ["contender", self.unit, "min..max", *steps, *self.versus.values(), *extras]
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
        above: list[Result] = []
        for key, (label, _) in self.rows.items():
            if key in figures:
                lines.append([label, *self._cells(key, figures, above), *_extra(figures[key], extras)])
                above = figures[key]
            elif key in results:
                lines.append([label, failure(results[key]), *[""] * (len(heads) - 2)])
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def others(self, key: str) -> Iterable[str]:  # noqa: ARG002  # for tables in which rows differ in that
        """Return the contenders that a row is divided by, one for each of ``versus``."""
        return self.versus

    def _cells(self, key: str, figures: Mapping[str, list[Result]], above: list[Result]) -> Iterator[str]:
        values = [one["value"] for one in figures[key]]
        yield f"{median(values):{self.form}}"
        yield f"{min(values):{self.form}}..{max(values):{self.form}}"
        if self.steps:
            more = [value - one["value"] for value, one in zip(values, above, strict=False)]
            yield f"{median(more):+{self.form}}" if more else ""
        for other in self.others(key):
            ratios = [value / one["value"] for value, one in zip(values, figures.get(other, ()), strict=False)]
            yield f"{median(ratios):.2f}" if ratios else ""


def _extra(runs: list[Result], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"{median(one[name] for one in runs):,.4g}" if name in runs[0] else ""


def failure(runs: Sequence[Result]) -> str:
    """Say why a contender has no figures."""
    missing = next((one["missing"] for one in runs if "missing" in one), None)
    return f"{missing} is not installed" if missing else next(one["failed"] for one in runs if "failed" in one)


def main(tables: Sequence[Table], packages: Sequence[str] = (), rounds: int = 5) -> None:
    """Run the benchmark that this process was started as, or one contender of it.

    Args:
        tables: what to measure.
        packages: peers whose versions to print.
        rounds: how often each contender runs, if the command does not say.
    """
    script = Path(sys.argv[0]).resolve()
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often each contender runs")
    parser.add_argument("--only", default="", help="run contenders whose name contains this")
    parser.add_argument("--write", type=Path, help="replace the tables between the markers in this Markdown file")
    parser.add_argument("--contender", help="run this one in this process")
    parser.add_argument("--json", action="store_true", help="print the figures of the contender as JSON")
    options = parser.parse_args()

    contenders = {key: run for table in tables for key, (_, run) in table.rows.items()}
    if options.contender:
        result = measure(contenders[options.contender])
        print(json.dumps(result) if options.json else result)
    else:
        machine = facts(packages)
        chosen = [key for key in contenders if options.only in key or key.endswith(f".{options.only}")]
        with tempfile.TemporaryDirectory(dir=os.environ.get(FOLDER)) as folder:
            results = run_rounds(script, folder, chosen, options.rounds)
        report(script.stem, tables, machine, results, options.write)


def measure(contender: Contender) -> Result:
    """Run a contender here."""
    try:
        value = contender()
    except Exception as error:
        for cause in (error, error.__cause__):  # dataflow says in its own words what is not installed
            if isinstance(cause, ModuleNotFoundError):
                return {"missing": cause.name}
        traceback.print_exc()
        return {"failed": f"failed: {type(error).__name__}: {error}"}
    return dict(value) if isinstance(value, Mapping) else {"value": value}


def run_rounds(script: Path, folder: str, names: Sequence[str], count: int) -> dict[str, list[Result]]:
    """Run every contender once a round, and collect what each measured."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for number in range(1, count + 1):
        for name in names:
            print(f"round {number} of {count}: {name}", file=sys.stderr)
            results[name].append(child(script, folder, name))
    return results


def child(script: Path, folder: str, name: str) -> Result:
    """Run a contender in a process of its own; the last line of its output is the answer."""
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), FOLDER: folder}
    command = [sys.executable, "-W", "ignore", str(script), "--contender", name, "--json"]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
    except subprocess.SubprocessError as error:
        return {"failed": f"failed: {type(error).__name__}"}
    return dict(json.loads(done.stdout.rstrip().rpartition("\n")[2]))


def facts(packages: Sequence[str]) -> str:
    """Describe the machine, and what is compared."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", info)
    versions = [f"{name} {version}" for name in ("numpy", *packages) if (version := version_of(name))]
    return (
        f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, {platform.system()}, load "
        f"{os.getloadavg()[0]:.1f} at the start; Python {platform.python_version()}, {', '.join(versions)}. "
        f"`{shlex.join(['python', *(word.removeprefix(f'{ROOT}/') for word in sys.argv)])}`"
    )


def version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def report(
    name: str, tables: Sequence[Table], machine: str, results: Mapping[str, list[Result]], document: Path | None
) -> None:
    """Print the tables, keep them in results/, and put them into a document."""
    for table in tables:
        table.rows = {key: row for key, row in table.rows.items() if key in results}
    blocks = {table.name: table.markdown(results) for table in tables if table.rows}
    text = "\n".join([f"{machine}\n", *(f"## {title}\n\n{block}" for title, block in blocks.items())])
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.md").write_text(text)
    (folder / f"{name}.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1))
    print(text)
    if document is not None:
        page = document.read_text()
        for title, block in {**blocks, f"{name} machine": f"{machine}\n"}.items():
            begin, end = f"<!-- begin: {title} -->\n", f"<!-- end: {title} -->"
            before, found, rest = page.partition(begin)
            page = before + found + (block + rest[rest.index(end) :] if found else rest)
        document.write_text(page)
    if broken := [key for key, runs in results.items() if any("failed" in one for one in runs)]:
        sys.exit(f"failed: {', '.join(broken)}")
