"""`dataflow inspect`: what a data file is."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from dataflow import DataFromList, LMDBSerializer, save
from dataflow.cli import main
from dataflow.cli.inspect import FIRST

ROWS = [[np.full((2, 3), number % 9, "u1"), 7] for number in range(1000)]


@pytest.fixture
def file(folder):
    save(DataFromList(ROWS, shuffle=False), "x.lmdb")
    return "x.lmdb"


def test_tells_format_count_checksums_and_the_first_datapoint(file, capsys):
    assert main(["inspect", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["x.lmdb", "  format        LMDB", "  codec         dataflow"]
    assert lines[3] == "  datapoints    1,000"
    assert lines[5:] == [
        "  checksums     every record",
        "  first key     00000000",
        "  list of keys  yes",
        "  first datapoint",
        "    0: ndarray:uint8 of shape (2, 3) in range [0, 0]",
        "    1: int with value 7",
    ]


@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord", "npz", "tar", "h5"])
def test_json_is_one_object_for_every_format(folder, suffix, capsys):
    save(DataFromList(ROWS, shuffle=False), f"x.{suffix}")
    assert main(["inspect", f"x.{suffix}", "--json"]) == 0
    out = capsys.readouterr().out
    told = json.loads(out)
    assert out.count("\n") == 1
    assert (told["file"], told["datapoints"]) == (f"x.{suffix}", 1000)
    assert {"format", "codec", "bytes", "checksums"} < told.keys()
    assert told["first datapoint"] == ["0: ndarray:uint8 of shape (2, 3) in range [0, 0]", "1: int with value 7"]
    assert main(["inspect", f"x.{suffix}"]) == 0
    assert "{" not in capsys.readouterr().out


@pytest.mark.slow
def test_svmlight(folder, capsys):
    (folder / "x.svm").write_text("1 1:2\n0 3:4\n")
    assert main(["inspect", "x.svm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": "x.svm",
        "format": "SVMlight",
        "codec": "text",
        "datapoints": 2,
        "bytes": 12,
        "checksums": "none",
        "features": 3,
        "values": 2,
        "first datapoint": [
            "0: ndarray:float64 of shape (3,) in range [0.0000, 2.0000]",
            "1: float64 with value 1.0",
        ],
    }


def test_what_is_known_comes_before_an_error_in_the_first_datapoint(folder, capsys):
    LMDBSerializer.save(DataFromList(ROWS[:2], shuffle=False), "x.lmdb", serializer="pickle")
    assert main(["inspect", "x.lmdb"]) == 1
    out, err = capsys.readouterr()
    assert "  codec         pickle\n  datapoints    2\n" in out
    assert "first datapoint" not in out
    assert "pass --allow-pickle; in 'x.lmdb', record 0" in err
    assert err.count("\n") == 1
    assert main(["inspect", "x.lmdb", "--allow-pickle"]) == 0
    assert "    1: int with value 7" in capsys.readouterr().out


def test_an_hdf5_file_of_another_program_is_read_by_the_names_of_its_datasets(folder, capsys):
    with h5py.File("x.h5", "w") as file:
        file["images"] = np.zeros((5, 2, 3))
        file["labels"] = np.arange(5)
    assert main(["inspect", "x.h5"]) == 0
    out, err = capsys.readouterr()
    assert "\n    labels: dtype int64, " in out
    assert (FIRST in out, err) == (False, "")
    assert main(["inspect", "x.h5", "--data-paths", "labels,images"]) == 0
    assert "    0: int64 with value 0\n    1: ndarray:float64 of shape (2, 3)" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_first_row_of_a_table_of_another_program_is_shown(folder, suffix, capsys):
    pyarrow = pytest.importorskip("pyarrow")
    feather, parquet = pytest.importorskip("pyarrow.feather"), pytest.importorskip("pyarrow.parquet")
    write = {"arrow": feather.write_feather, "parquet": parquet.write_table}[suffix]
    write(pyarrow.table({"x": [1, 2, 3]}), f"x.{suffix}")
    assert main(["inspect", f"x.{suffix}"]) == 0
    assert "  first datapoint\n    x: int with value 1\n" in capsys.readouterr().out


def test_values_of_variable_length_are_refused_with_the_call_that_allows_them(folder, capsys):
    with h5py.File("x.h5", "w") as file:
        file.create_dataset("text", data=["a", "b"], dtype=h5py.string_dtype())
    assert main(["inspect", "x.h5", "--data-paths", "text"]) == 1
    said = "Pass allow_variable=True (to dataflow.load, in Python) if you trust it\n"
    out, err = capsys.readouterr()
    assert out.endswith(said)
    assert err.endswith(said)


def test_arrays_of_numpy_are_no_datapoints(folder, capsys):
    np.savez("x.npz", images=np.zeros((5, 2)))
    assert main(["inspect", "x.npz"]) == 0
    out, err = capsys.readouterr()
    assert "  codec       arrays\n" in out
    assert "images" in out
    assert (FIRST in out, err) == (False, "")


def test_values_that_are_no_datapoints_are_of_unknown_codec(folder, capsys):
    import lmdb

    env = lmdb.open("x.lmdb", subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"key", b"\x08\x03")
    env.close()
    assert main(["inspect", "x.lmdb"]) == 0
    out = capsys.readouterr().out
    assert "  codec         unknown\n" in out
    assert "first datapoint" not in out


@pytest.mark.parametrize(
    ("file", "code", "message"),
    [
        ("nothing.lmdb", 2, "dataflow: no such file: 'nothing.lmdb'.\n"),
        ("notes.txt", 2, "dataflow: cannot tell the format of 'notes.txt': the name of a data file ends in "),
        ("train.py:make_flow", 2, "dataflow: 'train.py:make_flow' is code and no data file"),
        ("text.lmdb", 1, "dataflow: 'text.lmdb' is no LMDB file"),
        ("my_package", 1, "dataflow: FileNotFoundError: [Errno 2] a folder without an LMDB file in it"),
    ],
)
def test_what_is_no_data_file_is_one_line(folder, file, code, message, capsys):
    (folder / "text.lmdb").write_text("no database\n" * 1000)
    assert main(["inspect", file]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1
