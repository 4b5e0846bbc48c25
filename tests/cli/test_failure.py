"""What is told of a flow that fails: the user's part of the traceback, and one line at its end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dataflow import BatchData, DataFromList, MapData, MultiProcessRunnerZMQ
from dataflow.cli.failure import explain


def failure_of(df):
    with pytest.raises(Exception) as caught:
        list(df)
    return explain(caught.value).splitlines()


def broken(dp):
    raise ValueError(f"cannot use {dp}\nat all")


def test_the_traceback_is_that_of_the_user_and_the_last_line_says_it():
    lines = failure_of(MapData(DataFromList([[1]], shuffle=False), broken))
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.split('"')[1] for line in lines if line.startswith("  File")] == [__file__, __file__]
    assert lines[-1] == (
        "dataflow: ValueError: cannot use [1] [...]; in MapData(ds=DataFromList, func=broken), datapoint 0"
    )


def test_an_error_of_ours_in_code_of_ours_is_one_line():
    with pytest.raises(Exception) as caught:
        list(BatchData(DataFromList([[1], ["a"]], shuffle=False), 2))
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # the frame of this test
    assert explain(caught.value).startswith("dataflow: cannot stack component 0: kinds differ (1 of int, 1 of str).")
    assert "\n" not in explain(caught.value)


def test_an_error_of_the_standard_library_alone_is_one_line():
    with pytest.raises(Exception) as caught:
        list(MapData(DataFromList(["{"], shuffle=False), json.loads))
    caught.value.__traceback__ = caught.value.__traceback__.tb_next  # the frame of this test
    assert explain(caught.value) == (
        "dataflow: JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1); "
        "in MapData(ds=DataFromList, func=loads), datapoint 0"
    )


def test_the_traceback_of_a_process_is_told_without_our_part_of_it():
    with MultiProcessRunnerZMQ(MapData(DataFromList([[1]], shuffle=False), broken)) as df:
        lines = failure_of(df)
    assert lines[0] == "Traceback (most recent call last):"
    assert [line.split('"')[1] for line in lines if line.startswith("  File")] == [__file__]
    assert "ValueError: cannot use [1]" in lines
    assert lines[-1].startswith(
        "dataflow: ValueError: cannot use [1] [...]; in MapData(ds=DataFromList, func=broken), datapoint 0; in MultiPro"
    )


def test_the_cause_is_told_too():
    def chained(dp):
        try:
            broken(dp)
        except ValueError as error:
            raise LookupError("no way") from error

    lines = failure_of(MapData(DataFromList([[1]], shuffle=False), chained))
    assert "ValueError: cannot use [1]" in lines
    assert "The above exception was the direct cause of the following exception:" in lines
    assert lines[-1].startswith("dataflow: LookupError: no way; in MapData")


def test_where_no_code_of_the_user_may_have_run_there_is_only_the_line():
    with pytest.raises(ValueError, match="cannot use") as caught:
        broken([1])
    assert explain(caught.value).startswith("Traceback")
    assert explain(caught.value, code=False) == "dataflow: ValueError: cannot use [1] [...]"


WITHOUT_AIOHTTP = """
import sys
sys.modules["aiohttp"] = None  # as if it were not installed
from dataflow.cli import main
url = "http://localhost:9/x.tfrecord"
for command in (["peek", url], ["inspect", url], ["save", "train.py:make_flow", url]):
    assert main(command) == 1
"""


@pytest.mark.slow
def test_a_kind_of_url_that_needs_a_package_is_one_line_with_a_way_out(folder):
    pytest.importorskip("fsspec")
    command = [sys.executable, "-c", WITHOUT_AIOHTTP]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line.startswith("dataflow: ImportError: ")
        assert line.endswith('"aiohttp" to be installed; install it with pip, or copy the file to this machine')


def test_an_exception_without_words_is_named():
    assert explain(KeyboardInterrupt()) == "dataflow: KeyboardInterrupt"
