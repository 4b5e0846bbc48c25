"""What a flow costs before it does anything: time to import, and memory.

Every figure is of a fresh interpreter that does nothing else; compiled bytecode and the disk cache are warm.
"""

from __future__ import annotations

import os
import subprocess
import sys

from harness import ROOT, Table, main

FLOWS = 1000
imports = Table("import", unit="ms", versus={"numpy": "x numpy"}, form=",.1f")
memory = Table("memory", unit="MiB", versus={"memory_numpy": "x numpy"}, form=",.1f")

# Memory that is this process's own, and its part of what it shares; all pages in use where Linux does not tell.
MEMORY = """
def kib():
    try:
        return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:"))
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
FIVE_STAGES = """
rows = [[i, i] for i in range(100)]
def identity(dp): return dp
def flow():
    source = MapData(DataFromList(rows, shuffle=False), identity)
    return BatchData(MapDataComponent(LocallyShuffleData(source, 10), identity, 0), 10)
"""


def alone(program: str) -> list[float]:
    """Return the numbers that ``program`` prints, run by an interpreter that has loaded nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        error = done.stderr.rstrip().rpartition("\n")[2]
        if error.startswith("ModuleNotFoundError: "):
            raise ModuleNotFoundError(error, name=error.split("'")[1])
        raise RuntimeError(done.stderr)
    return [float(number) for number in done.stdout.rpartition("=")[2].split()]


def import_time(statement: str) -> dict[str, float]:
    """Time ``statement``, and count the modules that it loads."""
    milliseconds, modules = alone(
        "import sys, time; before = len(sys.modules); start = time.perf_counter()\n"
        f"{statement}\n"
        "print('=', (time.perf_counter() - start) * 1e3, len(sys.modules) - before)"
    )
    return {"value": milliseconds, "modules": modules}


def memory_of(statement: str, flows: bool = False) -> dict[str, float]:
    """Measure the process after ``statement``, and what each of many flows adds if it defines ``flow``."""
    program = f"{MEMORY}{statement}\nbuilt = kib()\n"
    if flows:
        program += f"first = flow(); one = kib(); kept = [flow() for _ in range({FLOWS})]\n"
        program += f"print('=', one / 1024, (kib() - one) / {FLOWS})"
        value, each = alone(program)
        return {"value": value, "KiB for each further flow": each}
    return {"value": alone(f"{program}print('=', built / 1024)")[0]}


@imports.row("numpy")
def numpy() -> dict[str, float]:
    return import_time("import numpy")


@imports.row("dataflow, with numpy")
def dataflow() -> dict[str, float]:
    return import_time("import dataflow")


@imports.row("tensorpack.dataflow")
def tensorpack() -> dict[str, float]:
    return import_time("import tensorpack.dataflow")


@imports.row("webdataset")
def webdataset() -> dict[str, float]:
    return import_time("import webdataset")


@imports.row("grain")
def grain() -> dict[str, float]:
    return import_time("import grain")


@imports.row("torch.utils.data")
def torch() -> dict[str, float]:
    return import_time("import torch.utils.data")


@memory.row("numpy")
def memory_numpy() -> dict[str, float]:
    return memory_of("import numpy")


@memory.row("dataflow, with numpy")
def memory_dataflow() -> dict[str, float]:
    return memory_of("import dataflow")


@memory.row("dataflow and a flow of five stages")
def memory_flow() -> dict[str, float]:
    return memory_of(f"from dataflow import *\n{FIVE_STAGES}", flows=True)


@memory.row("dataflow and a flow of five stages that has begun")
def memory_begun() -> dict[str, float]:
    begin = "build = flow\ndef flow():\n    it = iter(build())\n    next(it)\n    return it"
    return memory_of(f"from dataflow import *\n{FIVE_STAGES}\n{begin}", flows=True)


@memory.row("tensorpack.dataflow and a flow of five stages")
def memory_tensorpack() -> dict[str, float]:
    return memory_of(f"from tensorpack.dataflow import *\n{FIVE_STAGES}", flows=True)


if __name__ == "__main__":
    main([imports, memory], packages=("tensorpack", "torch", "webdataset", "grain"), rounds=11)
