"""`dataflow speed`: one report of a flow, as text or as JSON."""

from __future__ import annotations

import json
import os
import threading

import pytest

from dataflow.cli import main

WORKERS = pytest.mark.parametrize("option", ["--num-proc", "--num-thread"])


def test_reports_rates_times_and_memory(folder, capsys):
    assert main(["speed", "train.py:make_flow", "--size", "6", "--warmup", "4"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("6 datapoints in ")
    assert all(word in out for word in ("datapoints/s", "B/s", "median", "99 %", "peak memory"))
    assert err == ""


def test_a_flow_that_ends_early_is_measured_as_far_as_it_goes(folder, capsys):
    assert main(["speed", "train.py:make_flow"]) == 0
    assert "10 datapoints in" in capsys.readouterr().out


def test_json_is_all_there_is_on_stdout(folder, capsys):
    assert main(["speed", "train.py:chatty", "--size", "5", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["datapoints"] == 5
    assert report["complete"] is True
    assert out.count("\n") == 1
    assert err.splitlines() == ["a word from the factory", *["a word from the map function"] * 5]


def test_an_endless_flow_is_measured(folder, capsys):
    assert main(["speed", "train.py:endless", "--size", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["datapoints"] == 100


def test_a_warmup_that_takes_it_all_is_told_from_an_empty_flow(folder, capsys):
    assert main(["speed", "train.py:make_flow", "--warmup", "10"]) == 1
    assert capsys.readouterr().err == (
        "dataflow: 'train.py:make_flow' has no more than the 10 datapoints of --warmup: there is nothing to measure\n"
    )


@WORKERS
def test_a_flow_is_measured_in_workers_that_end(option, folder, capsys):
    threads = {*threading.enumerate()}
    assert main(["speed", "train.py:endless", "--size", "100", "--warmup", "20", "--json", option, "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["datapoints"], report["complete"]) == (100, True)
    assert {*threading.enumerate()} == threads
    with pytest.raises(ChildProcessError):  # not even a zombie
        os.waitpid(-1, os.WNOHANG)


@WORKERS
def test_workers_are_as_long_as_the_flow(option, folder, capsys):
    assert main(["speed", "train.py:make_flow", option, "2"]) == 0
    assert "10 datapoints in" in capsys.readouterr().out


@WORKERS
def test_an_error_in_a_worker_is_told_with_the_line_of_the_user(option, folder, capsys):
    assert main(["speed", "train.py:fails_later", option, "1"]) == 1
    err = capsys.readouterr().err
    assert "in broken" in err
    assert "dataflow: ValueError: two is [...]; in MapData(ds=DataFromList, func=broken), datapoint 2; in Mu" in err


@WORKERS
def test_a_file_is_read_in_workers(option, folder, capsys):
    assert main(["save", "train.py:make_flow", "some.lmdb"]) == 0
    assert main(["speed", "some.lmdb", option, "2"]) == 0
    assert "10 datapoints in" in capsys.readouterr().out


def test_the_code_of_the_user_is_loaded_once_for_all_threads(folder, capsys):
    (folder / "loud.py").write_text("print('loaded')\n\n\ndef make_flow():\n    return [[1], [2]]\n")
    assert main(["speed", "loud.py:make_flow", "--num-thread", "3"]) == 0
    assert capsys.readouterr().out.count("loaded") == 1


def test_threads_do_not_share_one_flow(folder, capsys):
    assert main(["speed", "train.py:flow", "--num-thread", "2"]) == 2
    assert capsys.readouterr().err == (
        "dataflow: 'train.py:flow' is one flow, and each thread needs its own: name a function that makes it, "
        "or use --num-proc\n"
    )


def test_processes_have_copies_of_one_flow(folder, capsys):
    assert main(["speed", "train.py:flow", "--num-proc", "2"]) == 0
    assert "3 datapoints in" in capsys.readouterr().out


def test_threads_and_processes_exclude_each_other(folder, capsys):
    assert main(["speed", "train.py:make_flow", "--num-proc", "2", "--num-thread", "2"]) == 2
    assert "--num-thread: not allowed with argument --num-proc" in capsys.readouterr().err


@WORKERS
def test_no_worker_is_wrong_usage(option, folder, capsys):
    assert main(["speed", "train.py:make_flow", option, "0"]) == 2
    assert "must be an integer of at least 1, got '0'" in capsys.readouterr().err


SLOW = """
import time
from dataflow import DataFromList, MapData, MultiThreadMapData, ProxyDataFlow

ds = DataFromList([[i] for i in range(40)], shuffle=False)

def wait(dp):
    time.sleep(0.002)
    return dp

def slow_source():
    return MultiThreadMapData(MapData(ds, wait), 2, list, strict=True)

def slow_function():
    return MultiThreadMapData(ds, 1, wait, strict=True)

def slow_behind():
    return MapData(MultiThreadMapData(ds, 2, list, strict=True), wait)

class Lingers(ProxyDataFlow):
    def __iter__(self):
        yield from self.ds

    def close(self):
        time.sleep(0.2)
        super().close()

def slow_to_close():
    return Lingers(slow_function())
"""


@pytest.mark.parametrize(
    ("name", "slowest"),
    [
        ("slow_source", "ds is the bottleneck"),
        ("slow_function", "the workers are the bottleneck"),
        ("slow_behind", "what comes behind them is the bottleneck"),
        ("slow_to_close", "the workers are the bottleneck"),
    ],
)
def test_the_buffers_tell_what_is_slow(folder, capsys, name, slowest):
    (folder / "slow.py").write_text(SLOW)
    assert main(["speed", f"slow.py:{name}"]) == 0
    out = capsys.readouterr().out
    assert "of 200 datapoints ready on average" in out
    assert out.endswith(f"{slowest}\n")


@WORKERS
def test_the_buffer_of_the_workers_is_part_of_the_json(option, folder, capsys):
    assert main(["speed", "train.py:endless", "--size", "100", "--json", option, "2"]) == 0
    (buffer,) = json.loads(capsys.readouterr().out)["buffers"]
    assert buffer["flow"].startswith("Multi")
    assert buffer["size"] == 100
    assert 0 <= buffer["full"] <= 1
    assert 0 <= buffer["reading"] + buffer["waiting"] <= 1
