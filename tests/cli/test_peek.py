"""`dataflow peek`: what the first datapoints consist of."""

from __future__ import annotations

from dataflow import LMDBSerializer
from dataflow.cli import main


def test_prints_three_datapoints(folder, capsys):
    assert main(["peek", "train.py:make_flow"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Contents of DataFlow (DataFromList):",
        "datapoint 0/3 with 2 components consists of",
        "  0: int with value 0",
        "  1: float with value 0.0",
        "datapoint 1/3 with 2 components consists of",
        "  0: int with value 1",
        "  1: float with value 0.1",
        "datapoint 2/3 with 2 components consists of",
        "  0: int with value 2",
        "  1: float with value 0.2",
    ]


def test_options_choose_how_much_is_shown(folder, capsys):
    (folder / "nested.py").write_text("def make(): return [[[1, 2, 3], [[4]]]] * 9")
    assert main(["peek", "nested.py:make", "--num", "1", "--max-list", "2", "--max-depth", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "datapoint 0/1 with 2 components consists of",
        "  0: list of len 3",
        "    ...",
        "  1: list of len 1",
        "    ...",
    ]


def test_reads_no_more_than_it_shows(folder, capsys):
    assert main(["peek", "train.py:fails_later", "--num", "2"]) == 0
    assert main(["peek", "train.py:fails_later", "--num", "3"]) == 1


def test_a_flow_that_is_shorter_is_shown_to_its_end(folder, capsys):
    assert main(["peek", "train.py:make_list", "--num", "20"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "  0: int with value 3"


def test_pickles_are_loaded_when_that_is_allowed(folder, capsys):
    LMDBSerializer.save([[7]], "x.lmdb", serializer="pickle")
    for command in ("peek", "speed"):
        assert main([command, "x.lmdb"]) == 1
        assert "if you trust where it comes from, pass --allow-pickle; in 'x.lmdb'" in capsys.readouterr().err
        assert main([command, "x.lmdb", "--allow-pickle"]) == 0
        assert capsys.readouterr().err == ""


def test_a_flow_of_the_user_that_meets_a_pickle_is_told_of_the_argument(folder, capsys):
    LMDBSerializer.save([[7]], "x.lmdb", serializer="pickle")
    (folder / "old.py").write_text("import dataflow\ndef make_flow(): return dataflow.load('x.lmdb')\n")
    assert main(["peek", "old.py:make_flow"]) == 1
    assert "pass allow_pickle=True" in capsys.readouterr().err
