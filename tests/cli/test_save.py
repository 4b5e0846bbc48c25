"""`dataflow save`: one pass of a flow in a file."""

from __future__ import annotations

import os
import re

import pytest

from dataflow import LMDBSerializer, load
from dataflow.cli import main


def test_writes_the_datapoints_in_order_and_says_how_many(folder, capsys):
    assert main(["save", "train.py:make_flow", "ten.lmdb"]) == 0
    assert capsys.readouterr().out.startswith("ten.lmdb: 10 datapoints, ")
    with LMDBSerializer.load("ten.lmdb", shuffle=False) as df:
        assert list(df) == [[i, i / 10] for i in range(10)]


@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord", "npz", "tar", "h5"])
def test_the_suffix_tells_the_format(folder, suffix, capsys):
    assert main(["save", "train.py:make_flow", f"ten.{suffix}"]) == 0
    assert re.fullmatch(rf"ten\.{suffix}: 10 datapoints, ([\d,]+ bytes|[\d.]+ MB)\n", capsys.readouterr().out)
    with load(f"ten.{suffix}") as df:
        assert list(df) == [[i, i / 10] for i in range(10)]


def test_one_datapoint_is_not_said_to_be_several(folder, capsys):
    (folder / "one.py").write_text("def make_flow(): return [[1]]")
    assert main(["save", "one.py:make_flow", "one.npz"]) == 0
    assert capsys.readouterr().out.startswith("one.npz: 1 datapoint, ")


def test_a_folder_gets_an_lmdb_file(folder, capsys):
    (folder / "ten").mkdir()
    assert main(["save", "train.py:make_flow", "ten"]) == 0
    assert capsys.readouterr().out == "ten: 10 datapoints, 20,480 bytes\n"


def test_an_error_while_saving_is_told_without_the_progress_bar(folder, capsys):
    (folder / "locks.py").write_text("import threading\ndef make_flow(): return [[1, {'lock': threading.Lock()}]]\n")
    assert main(["save", "locks.py:make_flow", "x.lmdb"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dataflow: TypeError: cannot serialize component 1['lock']: a value of type _thread.lock")
    assert err.count("\n") == 1


def test_an_empty_flow_has_no_datapoint_to_name(folder, capsys):
    assert main(["save", "train.py:empty", "x.lmdb"]) == 1
    assert capsys.readouterr().err == "dataflow: 'train.py:empty' is empty: there is no datapoint to save\n"


def test_what_was_saved_is_a_target(folder, capsys):
    assert main(["save", "train.py:make_flow", "ten.lmdb"]) == 0
    assert main(["save", "ten.lmdb", "copy.lmdb"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("copy.lmdb: 10 datapoints, ")


@pytest.mark.parametrize(
    ("target", "file", "code", "message"),
    [
        ("train.py:make_flow", "train.xyz", 2, "the format of 'train.xyz': the name of a data file ends in .arrow"),
        ("train.py:make_flow", "train.xyz", 2, ".hdf5, .lmdb, .mdb, "),
        ("train.py:make_flow", "train.svm", 2, "files like 'train.svm' are only read here: choose another suffix"),
        ("train.py:make_flow", "train", 2, "cannot tell the format of 'train'"),
        ("train.py:nothing", "x.lmdb", 2, "'train.py' has no 'nothing'"),
        ("train.py:make_flow", "no/folder/x.lmdb", 1, "no such folder to write to: 'no/folder'"),
        ("train.py:make_flow", "old.lmdb", 1, "there is a file already; remove it first, or choose another name"),
        ("train.py:empty", "x.lmdb", 1, "'train.py:empty' is empty: there is no datapoint to save"),
        ("train.py:empty", "x.tfrecord", 1, "'train.py:empty' is empty: there is no datapoint to save"),
        ("train.py:empty", "x-%03d.tar", 1, "'train.py:empty' is empty: there is no datapoint to save"),
        ("train.py:make_flow", "x-{0..2}.tar", 1, "put a number into the name"),
        ("train.py:make_flow", "out.lmdb/", 2, "leave the slash at its end out"),
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
