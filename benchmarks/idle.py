"""What a flow costs while it does nothing: time to import, memory, and what idle workers use.

Every figure is of a fresh interpreter that does nothing else; compiled bytecode and the disk cache are warm.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from harness import ROOT, Table, main

from dataflow import (
    DataFromList,
    MapData,
    MultiProcessMapData,
    MultiProcessRunner,
    MultiProcessRunnerZMQ,
    MultiThreadRunner,
)

FLOWS = 1000
WORKERS, AHEAD = 2, 20
# Seconds in which workers fill their buffers, and then in which their time is taken.
FILLING, QUIET = 1.0, 3.0
imports = Table("import", unit="ms", versus={"numpy": "x numpy"}, form=",.1f")
memory = Table("memory", unit="MiB", versus={"memory_numpy": "x numpy"}, form=",.1f")
workers = Table("idle workers", unit="% of a core", versus={}, form=".3f")

# Memory that is this process's own, and its part of what it shares; all pages in use where Linux does not tell.
MEMORY = """
def kib():
    try:
        return next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:"))
    except OSError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
"""
# tensorpack loads it where it is installed, which takes seconds.
NO_TENSORFLOW = "import sys; sys.modules['tensorflow'] = None\n"
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


@imports.row("tensorpack.dataflow, without TensorFlow")
def tensorpack() -> dict[str, float]:
    return import_time(f"{NO_TENSORFLOW}import tensorpack.dataflow")


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


@memory.row("tensorpack.dataflow, without TensorFlow, and a flow of five stages")
def memory_tensorpack() -> dict[str, float]:
    return memory_of(f"{NO_TENSORFLOW}from tensorpack.dataflow import *\n{FIVE_STAGES}", flows=True)


def share_of(flow: Iterable[object]) -> dict[str, float]:
    """Receive a datapoint, and measure this process and all below it while it asks for no other."""
    it = iter(flow)
    next(it)
    time.sleep(FILLING)
    processes = family(os.getpid())
    before = sum(map(cpu_time, processes))
    time.sleep(QUIET)
    used = sum(map(cpu_time, processes)) - before
    return {"value": 100 * used / QUIET, "processes": len(processes)}


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, as Linux lists them."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found += family(int(child))
    return found


def cpu_time(pid: int) -> float:
    """Return the seconds that a process has used, to the nanosecond: Linux makes this number of its clock."""
    return time.clock_gettime(~pid << 3 | 2)


def numbers() -> DataFromList:
    return DataFromList([[n] for n in range(1000)], shuffle=False)


def same(dp: list[int]) -> list[int]:
    return dp


@workers.row("dataflow: MultiThreadRunner")
def thread_runner() -> dict[str, float]:
    with MultiThreadRunner(lambda: MapData(numbers(), same), AHEAD, WORKERS) as df:
        return share_of(df)


@workers.row("dataflow: MultiProcessRunner")
def process_runner() -> dict[str, float]:
    with MultiProcessRunner(MapData(numbers(), same), AHEAD, WORKERS) as df:
        return share_of(df)


@workers.row("dataflow: MultiProcessRunnerZMQ")
def zmq_runner() -> dict[str, float]:
    with MultiProcessRunnerZMQ(MapData(numbers(), same), WORKERS, AHEAD) as df:
        return share_of(df)


@workers.row("dataflow: MultiProcessMapData")
def zmq_map() -> dict[str, float]:
    with MultiProcessMapData(numbers(), WORKERS, same, buffer_size=AHEAD) as df:
        return share_of(df)


@workers.row("tensorpack: MultiProcessRunnerZMQ")
def tensorpack_runner() -> dict[str, float]:
    from tensorpack.dataflow import DataFromList, MapData, MultiProcessRunnerZMQ

    df = MapData(DataFromList([[n] for n in range(1000)], shuffle=False), same)
    df = MultiProcessRunnerZMQ(df, WORKERS, AHEAD)
    df.reset_state()
    return share_of(df)


@workers.row("tensorpack: MultiProcessMapDataZMQ")
def tensorpack_map() -> dict[str, float]:
    from tensorpack.dataflow import DataFromList, MultiProcessMapDataZMQ

    ds = DataFromList([[n] for n in range(1000)], shuffle=False)
    df = MultiProcessMapDataZMQ(ds, WORKERS, same, buffer_size=AHEAD)
    df.reset_state()
    return share_of(df)


@workers.row("torch: DataLoader")
def torch_loader() -> dict[str, float]:
    from torch.utils.data import DataLoader

    return share_of(DataLoader([[n] for n in range(1000)], batch_size=None, num_workers=WORKERS))


@workers.row("grain: mp_prefetch")
def grain_prefetch() -> dict[str, float]:
    import grain

    dataset = grain.MapDataset.source([[n] for n in range(1000)]).map(same).to_iter_dataset()
    return share_of(dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=WORKERS)))


if __name__ == "__main__":
    main([imports, memory, workers], packages=("tensorpack", "torch", "webdataset", "grain"), rounds=11)
