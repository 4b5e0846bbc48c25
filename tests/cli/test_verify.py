"""`dataflow verify`: every damaged record, found by a process that the file may crash."""

from __future__ import annotations

import json
import os
import pathlib
import pickle
import re
import signal
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from dataflow import DataFromList, LMDBSerializer, TarSerializer, save
from dataflow.cli import main, verify, verify_child

ROWS = [[np.full(5000, number, "u1"), number] for number in range(20)]


@pytest.fixture
def files(folder):
    for suffix in ("lmdb", "tfrecord"):
        save(DataFromList(ROWS, shuffle=False), f"x.{suffix}")
    return folder


def flip(name, *records):
    """Damage an array in the middle of some records."""
    content = bytearray(pathlib.Path(name).read_bytes())
    for number in records:
        content[content.index(bytes([number]) * 5000) + 2500] ^= 1
    pathlib.Path(name).write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord"])
def test_a_whole_file_is_one_line_and_exit_code_0(files, suffix, capfd):
    assert main(["verify", f"x.{suffix}"]) == 0
    assert capfd.readouterr() == (f"x.{suffix}: all 20 records can be read\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord"])
def test_every_damaged_record_is_a_line_and_the_exit_code_is_1(files, suffix, capfd):
    flip(f"x.{suffix}", 3, 7, 19)
    assert main(["verify", f"x.{suffix}"]) == 1
    out, err = capfd.readouterr()
    assert [line.partition(":")[0] for line in out.splitlines()] == ["record 3", "record 7", "record 19"]
    assert out.count("its bytes and their checksum do not agree") == 3
    assert err == f"dataflow: 'x.{suffix}' is damaged: 3 faults, 20 records read\n"


def test_records_in_a_row_with_one_fault_are_one_line():
    shown = []
    with verify._Faults(shown.append) as faults:
        for number, why in [(1, "a"), (2, "a"), (3, "a"), (4, "b"), (6, "b"), (7, "b")]:
            faults.add(number, why)
    assert shown == ["records 1 to 3: a", "record 4: b", "records 6 to 7: b"]
    assert faults.count == 6


def test_a_fault_of_the_file_is_a_line_without_a_number_between_those_of_records():
    shown = []
    with verify._Faults(shown.append) as faults:
        for number, why in [(0, "a"), (1, "a"), (None, "cut short"), (2, "a"), (None, "a")]:
            faults.add(number, why)
    assert shown == ["records 0 to 1: a", "cut short", "record 2: a", "a"]
    assert faults.count == 5


@pytest.mark.slow
def test_a_file_that_crashes_its_reader_is_damage_at_a_record(files, capfd):
    content = pathlib.Path("x.lmdb").read_bytes()
    # A node of LMDB: lower and upper half of the size of its value, flags, size of the key, key. The pages of earlier
    # transactions are still in the file.
    lying = re.sub(rb"(?s)(..)..(..)(\x08\x0000000005)", b"\\1\xff\x7f\\2\\3", content)
    assert lying != content
    pathlib.Path("x.lmdb").write_bytes(lying)
    assert main(["verify", "x.lmdb"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err in [
        f"dataflow: 'x.lmdb' is damaged at record 5: the process that read it was ended by {name}. "
        "What follows was not read\n"
        for name in ("SIGSEGV", "SIGBUS")
    ]


@pytest.mark.slow
def test_a_file_without_checksums_is_said_to_be_one(files, capfd):
    LMDBSerializer.save(DataFromList(ROWS, shuffle=False), "old.lmdb", serializer="pickle")
    assert main(["verify", "old.lmdb"]) == 1
    err = capfd.readouterr().err
    assert err.startswith("dataflow: 'old.lmdb' holds pickles, ")
    assert err.endswith("if you trust where it comes from, pass --allow-pickle\n")
    assert main(["verify", "old.lmdb", "--allow-pickle"]) == 0
    assert capfd.readouterr().out == (
        "old.lmdb: all 20 records can be read; it has no checksums that would tell a changed value\n"
    )


@pytest.mark.slow
def test_a_tfrecord_file_without_an_index_is_said_not_to_tell_what_is_missing(files, capfd):
    path = files / "x.tfrecord"
    os.truncate(path, path.stat().st_size // 20)
    assert main(["verify", path.name]) == 1
    assert capfd.readouterr().out.startswith("'x.tfrecord' is cut short: ")
    (files / "x.tfrecord.index").unlink()
    assert main(["verify", path.name]) == 0
    assert capfd.readouterr().out == (
        "x.tfrecord: the 1 record can be read; without an index nothing tells whether it was cut between two records, "
        "or records were removed\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord", "tar"])
def test_pickles_are_no_damage_in_any_format(folder, suffix, capfd):
    if suffix == "tar":
        rows = [{"__key__": "a", "pyd": pickle.dumps([1])}]
        TarSerializer.save(DataFromList(rows, shuffle=False), "x.tar", encode=False)
    else:
        save(DataFromList([[1]], shuffle=False), f"x.{suffix}", serializer="pickle")
    assert main(["verify", f"x.{suffix}"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"dataflow: 'x.{suffix}' holds pickles, ")
    assert err.endswith("if you trust where it comes from, pass --allow-pickle\n")
    assert main(["verify", f"x.{suffix}", "--allow-pickle"]) == 0


@pytest.mark.slow
def test_a_way_out_that_is_no_option_is_said_to_be_one_of_python(files, capfd):
    flip("x.tfrecord", 3)
    assert main(["verify", "x.tfrecord"]) == 1
    assert capfd.readouterr().out.endswith(', or read on with verify="off" (to dataflow.load, in Python)\n')


@pytest.mark.slow
def test_one_record_is_not_said_to_be_several(folder, capfd):
    save(DataFromList([[1]], shuffle=False), "x.npz")
    assert main(["verify", "x.npz"]) == 0
    assert capfd.readouterr().out == "x.npz: the 1 record can be read\n"


@pytest.mark.slow
def test_lines_of_svmlight_that_are_wrong_are_found(folder, capfd):
    (folder / "x.svm").write_text("1 1:2\nx 1:2\n0 3:4\n0 y:4\n1 1:1\n")
    assert main(["verify", "x.svm"]) == 1
    out, err = capfd.readouterr()
    assert [line.partition(": ")[0] for line in out.splitlines()] == ["record 1", "record 3"]
    assert err == "dataflow: 'x.svm' is damaged: 2 faults, 5 records read\n"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tar", "tfrecord"])
def test_a_file_of_another_format_has_no_damaged_record(folder, capfd, suffix):
    (folder / f"text.{suffix}").write_text("no archive\n" * 1000)
    assert main(["verify", f"text.{suffix}"]) == 1
    out, err = capfd.readouterr()
    assert "record 0" not in out
    assert f"no {'tar' if suffix == 'tar' else 'TFRecord'} file" in out
    assert err == f"dataflow: 'text.{suffix}' is damaged: 1 fault, 0 records read\n"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["tar", "tfrecord", "lmdb", "npz", "h5"])
def test_a_file_that_is_cut_short_is_a_fault_of_the_file(folder, capfd, suffix):
    path = folder / f"x.{suffix}"
    save(DataFromList(ROWS, shuffle=False), path.name)
    os.truncate(path, path.stat().st_size // 2 - 7)
    (folder / "x.tfrecord.index").unlink(missing_ok=True)
    assert main(["verify", path.name]) == 1
    out, err = capfd.readouterr()
    assert len([*out.splitlines(), *err.splitlines()]) == 1 + (suffix in ("tar", "tfrecord"))
    assert not re.search("record [0-9]", out + err)


@pytest.mark.slow
def test_datapoints_of_tensorpack_are_counted(folder, capfd):
    rows = np.empty(2, object)
    rows[:] = [[1, "a"], [2, "b"]]
    np.savez("tp.npz", buffer=rows)
    assert main(["verify", "tp.npz", "--allow-pickle"]) == 0
    assert capfd.readouterr().out == "tp.npz: all 2 records can be read\n"


@pytest.mark.slow
def test_a_file_that_is_none_is_one_line(folder, capfd):
    (folder / "text.lmdb").write_text("no database\n" * 1000)
    assert main(["verify", "text.lmdb"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("dataflow: 'text.lmdb' is no LMDB file")
    assert err.count("\n") == 1


@pytest.mark.parametrize("file", ["nothing.lmdb", "notes.txt", "train.py:make_flow"])
def test_a_wrong_name_is_exit_code_2_and_no_process(folder, file, monkeypatch, capsys):
    monkeypatch.setattr(verify, "_child", None)
    assert main(["verify", file]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_module_of_the_user_named_like_one_of_ours_is_not_run(files, capfd):
    for name in ("json", "dataflow", "signal"):
        (files / f"{name}.py").write_text("raise SystemExit('the file of the user was run')")
    assert main(["verify", "x.lmdb"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_an_interruption_ends_the_process_too(files, monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **options: started.append(popen(*args, **options)) or started[0]
    )

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(verify.json, "loads", interrupt)
    assert main(["verify", "x.lmdb"]) == 130
    assert started[0].returncode in (-signal.SIGKILL, 0)


@pytest.mark.slow
def test_the_process_tells_each_event_in_a_line(files):
    flip("x.lmdb", 1)
    command = [sys.executable, "-m", verify_child.__name__, "x.lmdb"]
    done = subprocess.run(command, capture_output=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    lines = done.stdout.splitlines()
    assert json.loads(lines[0]) == {"datapoints": 20, "checksums": "every record", "counts": True}
    assert lines[1:3] == [b"", b""]
    assert json.loads(lines[3])["number"] == 1
    assert lines[4:-1] == [b""] * 18
    assert json.loads(lines[-1]) == {"end": True}


@pytest.mark.slow
def test_what_a_pickle_prints_does_not_come_between(folder, capfd):
    env = lmdb.open("x.lmdb", subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"0", b"cbuiltins\nprint\n(S'a word from the file'\ntR.")
        txn.put(b"1", b"\x80\x04cbuiltins\nprint\n(S'a word from the file'\ntR.")
    env.close()
    assert main(["verify", "x.lmdb", "--allow-pickle"]) == 1
    out, err = capfd.readouterr()
    assert out.startswith("record 0: key b'0': ")
    assert "a word from the file\n" in err
