"""`dataflow convert`: one data file into another."""

from __future__ import annotations

import os
import pickle

import lmdb
import pytest

from dataflow import DataFromList, LMDBSerializer, load, save
from dataflow.cli import main
from dataflow.testing import same

ROWS = [[("a", number), {"n": number / 3}] for number in range(10)]


@pytest.fixture
def ten(folder):
    save(DataFromList(ROWS, shuffle=False), "ten.lmdb")
    return "ten.lmdb"


@pytest.fixture
def pickled(folder):
    LMDBSerializer.save(DataFromList(ROWS, shuffle=False), "pickled.lmdb", serializer="pickle")
    return "pickled.lmdb"


@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord", "npz", "tar"])
def test_what_comes_back_is_what_was_there_in_its_order(ten, suffix, capsys):
    assert main(["convert", ten, f"new.{suffix}"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"new.{suffix}: 10 datapoints, ")
    assert ", from 20,480 bytes" in out
    assert main(["convert", f"new.{suffix}", "back.lmdb"]) == 0
    assert same(list(load("back.lmdb")), ROWS)


def test_shards_are_written_and_read(ten, capsys):
    assert main(["convert", ten, "new-%06d.tar"]) == 0
    assert capsys.readouterr().out == "new-%06d.tar: 10 datapoints, 20,480 bytes, from 20,480 bytes\n"
    for number, shards in enumerate(["new-{000000..000000}.tar", "new-%06d.tar"]):
        assert main(["convert", shards, f"{number}.lmdb"]) == 0
        assert same(list(load(f"{number}.lmdb")), ROWS)


def test_a_folder_is_read_as_the_lmdb_file_in_it(folder, capsys):
    os.mkdir("ten")
    save(DataFromList(ROWS, shuffle=False), "ten")
    assert main(["convert", "ten", "new.tfrecord"]) == 0
    assert ", from 20,480 bytes" in capsys.readouterr().out


@pytest.mark.slow
def test_svmlight_is_read(folder, capsys):
    (folder / "x.svm").write_text("1 1:2\n0 3:4\n")
    assert main(["convert", "x.svm", "new.lmdb"]) == 0
    assert [x.tolist() for x, _ in load("new.lmdb")] == [[2, 0, 0], [0, 0, 4]]


def test_pickles_are_loaded_when_that_is_allowed(pickled, capsys):
    assert main(["convert", pickled, "new.lmdb"]) == 1
    assert "if you trust where it comes from, pass --allow-pickle; in 'pickled.lmdb'" in capsys.readouterr().err
    assert not os.path.exists("new.lmdb")
    assert main(["convert", pickled, "new.lmdb", "--allow-pickle"]) == 0
    assert same(list(load("new.lmdb")), ROWS)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ten.lmdb"], "required: B"),
        (["tne.lmdb", "new.npz"], "no such file: 'tne.lmdb'; did you mean 'ten.lmdb'?"),
        (["train.py:make_flow", "new.npz"], "'train.py:make_flow' is code and no data file; `dataflow save TARGET"),
        (["train.py", "new.npz"], "'train.py' is code and no data file"),
        (["notes.txt", "new.npz"], "cannot tell the format of 'notes.txt'"),
        (["ten.lmdb", "new"], "cannot tell the format of 'new': the name of a data file ends in .arrow"),
        (["ten.lmdb", "new.svm"], "files like 'new.svm' are only read here: choose another suffix, such as .lmdb"),
        (["x.svm", "new.npz", "--allow-pickle"], "files like 'x.svm' take no --allow-pickle: leave it out"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(ten, folder, args, message, capsys):
    (folder / "x.svm").write_text("1 1:2\n")
    before = sorted(os.listdir())
    assert main(["convert", *args]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert sorted(os.listdir()) == before


def test_a_damaged_record_is_one_line_and_leaves_no_file(ten, capsys):
    env = lmdb.open(ten, subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"00000003", pickle.dumps([3]))
    env.close()
    before = sorted(os.listdir())
    assert main(["convert", ten, "new.tfrecord"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("dataflow: 'ten.lmdb', record 3 (key b'00000003'): ")
    assert err.count("\n") == 1
    assert sorted(os.listdir()) == before
