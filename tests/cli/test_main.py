"""The command line as a whole: help, version, exit codes, interruption."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from importlib import metadata

import pytest

import dataflow
from dataflow.cli import COMMANDS, main


@pytest.fixture
def start(folder):
    """Start the command line in a process of its own, which ends with the test."""
    env = {**os.environ, "PYTHONPATH": str(pathlib.Path(dataflow.__file__).parent.parent)}
    processes = []

    def start(*args: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "dataflow", *args]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        with process:
            pass


def test_help_names_every_command_and_gives_examples(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n    {name} " not in shown] == []
    assert "dataflow speed train.py:make_flow" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_gives_examples(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"examples:\n  dataflow {command}" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("dataflow ")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        pytest.param([], "required: COMMAND", id="no command"),
        pytest.param(["sing"], "invalid choice: 'sing'", id="unknown command"),
        pytest.param(["inpect"], "there is no command 'inpect'; did you mean 'inspect'?", id="misspelt command"),
        pytest.param(["speed"], "required: TARGET", id="no target"),
        pytest.param(["speed", "x", "--size", "0"], "an integer of at least 1, got '0'", id="number too small"),
        pytest.param(["peek", "x", "--num", "few"], "an integer of at least 1, got 'few'", id="no number"),
    ],
)
def test_wrong_usage_is_exit_code_2(args, message, capsys):
    assert main(args) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["speed", "peek"])
def test_a_wrong_target_is_one_line_and_exit_code_2(command, folder, capsys):
    assert main([command, "train.py:mkae_flow"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "dataflow: 'train.py' has no 'mkae_flow'; did you mean 'make_flow'?\n"


@pytest.mark.parametrize("command", ["speed", "peek"])
def test_an_empty_flow_is_one_line_and_exit_code_1(command, folder, capsys):
    assert main([command, "train.py:empty"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dataflow: ")
    assert "'train.py:empty' is empty" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "last"),
    [
        pytest.param("train.py:fails_at_once", "ValueError: no data today", id="factory"),
        pytest.param("train.py:fails_later", "ValueError: two is [...]; in MapData(", id="map function"),
        pytest.param("needs_more.py:make", "ModuleNotFoundError: No module named 'a_package_that_is_", id="import"),
        pytest.param("wrong.py:make", "SyntaxError: ", id="syntax"),
        pytest.param("train.py:leaves", "SystemExit: 0", id="sys.exit"),
    ],
)
@pytest.mark.parametrize("command", ["speed", "peek"])
def test_a_flow_that_fails_is_a_traceback_and_exit_code_1(command, target, last, folder, capsys):
    assert main([command, target]) == 1
    err = capsys.readouterr().err
    assert "dataflow/" not in err
    assert err.startswith(("Traceback (most recent call last):\n", '  File "'))
    assert err.splitlines()[-1].startswith(f"dataflow: {last}")


def test_the_installed_command_is_this_one():
    try:
        scripts = metadata.distribution("dataflow-toolkit").entry_points
    except metadata.PackageNotFoundError:
        pytest.skip("dataflow-toolkit is not installed, only on the path")
    assert scripts["dataflow"].load() is main


def test_python_m_dataflow_hands_on_the_exit_code(start):
    process = start("speed", "nothing.lmdb")
    assert process.wait(30) == 2
    assert process.stderr.read().startswith("dataflow: no such file: 'nothing.lmdb'")


def test_a_reader_that_leaves_is_no_error(start):
    process = start("peek", "train.py:endless", "--num", "1000000000")
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == ""


def test_a_pipe_of_the_user_that_breaks_is_an_error(start):
    process = start("peek", "train.py:breaks_a_pipe")
    assert process.wait(30) == 1
    assert process.stderr.read().endswith("dataflow: BrokenPipeError: a pipe of the user\n")


def test_interruption_is_exit_code_130_without_a_traceback(start):
    process = start("speed", "train.py:begun", "--size", "1000000000")
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read() == ""
