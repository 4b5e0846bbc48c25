"""`dataflow save`: one pass of a flow in a file."""

from __future__ import annotations

import os

import pytest

from dataflow import LMDBSerializer
from dataflow.cli import main


def test_writes_the_datapoints_in_order_and_says_how_many(folder, capsys):
    assert main(["save", "train.py:make_flow", "ten.lmdb"]) == 0
    assert capsys.readouterr().out.startswith("ten.lmdb: 10 datapoints, ")
    with LMDBSerializer.load("ten.lmdb", shuffle=False) as df:
        assert list(df) == [[i, i / 10] for i in range(10)]


def test_what_was_saved_is_a_target(folder, capsys):
    assert main(["save", "train.py:make_flow", "ten.lmdb"]) == 0
    assert main(["save", "ten.lmdb", "copy.lmdb"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("copy.lmdb: 10 datapoints, ")


@pytest.mark.parametrize(
    ("target", "file", "code", "message"),
    [
        ("train.py:make_flow", "train.h5", 2, "the format of 'train.h5': a data file ends in .lmdb"),
        ("train.py:nothing", "x.lmdb", 2, "'train.py' has no 'nothing'"),
        ("train.py:make_flow", "no/folder/x.lmdb", 1, "no such folder to write to: 'no/folder'"),
        ("train.py:make_flow", "old.lmdb", 1, "there is a file already; remove it first, or choose another name"),
        ("train.py:empty", "x.lmdb", 1, "'train.py:empty' is empty: there is no datapoint to save"),
        ("train.py:endless", "x.lmdb", 1, "never ends, so no file can hold it"),
        ("train.py:fails_later", "x.lmdb", 1, "ValueError: two is [...]; in MapData"),
    ],
)
def test_what_cannot_be_saved_is_said_in_the_last_line_and_leaves_no_file(target, file, code, message, folder, capsys):
    (folder / "old.lmdb").write_text("precious")
    before = sorted(os.listdir())
    assert main(["save", target, file]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err.splitlines()[-1]
    assert sorted(os.listdir()) == before
    assert (folder / "old.lmdb").read_text() == "precious"
