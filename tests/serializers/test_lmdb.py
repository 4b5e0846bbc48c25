"""LMDBSerializer: what is saved comes back, whole or as an error that says what is wrong and where."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pathlib
import pickle
import signal
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from dataflow import (
    BatchData,
    DataFlow,
    DataFromGenerator,
    DataFromList,
    LMDBData,
    LMDBSerializer,
    MapData,
    RepeatedData,
    dumps,
    loads,
)
from dataflow.errors import CorruptDataError, MissingKeyError, UsageError
from dataflow.serializers import lmdb as module
from dataflow.serializers import old_names
from dataflow.testing import FailsAt, check_dataflow, numbers, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.lmdb")


@pytest.fixture
def images(path):
    LMDBSerializer.save(DataFromList(IMAGES, shuffle=False), path)
    return path


def raw(path):
    """Everything in a file, as LMDB itself sees it."""
    with lmdb.open(path, subdir=False, readonly=True, lock=False) as env, env.begin() as txn:
        return dict(txn.cursor())


def left_in(folder):
    return sorted(entry.name for entry in pathlib.Path(folder).iterdir())


# --- round trips ---


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: LMDBSerializer.load(path, shuffle=False), id="in order"),
        pytest.param(lambda path: LMDBSerializer.load(path), id="shuffled"),
        pytest.param(lambda path: LMDBSerializer.load(path, verify="off", seed=3), id="not verified"),
        pytest.param(lambda path: LMDBSerializer.load(path, False, verify="always"), id="always verified"),
        pytest.param(lambda path: BatchData(LMDBSerializer.load(path), 5, remainder=True), id="in batches"),
    ],
)
def test_keeps_the_contract(images, make):
    check_dataflow(lambda: make(images), new_process=False)


def test_views_keep_the_contract(images):
    list(LMDBSerializer.load(images, copy=False))  # from now on the file stays open
    check_dataflow(lambda: LMDBSerializer.load(images, copy=False), new_process=False)


@pytest.mark.slow
def test_keeps_the_contract_in_a_new_process(images):
    check_dataflow(lambda: LMDBSerializer.load(images))


@pytest.mark.parametrize("options", [{}, {"verify": "off"}, {"verify": "always"}, {"copy": False}], ids=str)
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(IMAGES, id="lists with arrays"),
        pytest.param([{"x": np.arange(3.0), "name": "a"}, {"x": np.arange(5), "name": None}], id="dicts"),
        pytest.param([[[1, {"a": (2, b"3")}], 1 << 70], [np.float32(0.5), True]], id="nested"),
        pytest.param([["x" * 5000, b"y" * 100_000]], id="large"),
        pytest.param([[]], id="no components"),
        pytest.param([], id="no datapoints"),
    ],
)
def test_datapoints_come_back_bit_by_bit(path, rows, options):
    LMDBSerializer.save(DataFromList(rows, shuffle=False), path)
    df = LMDBSerializer.load(path, shuffle=False, **options)
    for _ in range(2):
        assert same(list(df), rows)
    assert len(df) == len(rows)


@pytest.mark.parametrize("serializer", ["dataflow", "msgpack-numpy", "pickle"])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_layout_is_read(path, serializer, shuffle):
    LMDBSerializer.save(DataFromList(IMAGES, shuffle=False), path, serializer=serializer)
    df = LMDBSerializer.load(path, shuffle, allow_pickle=serializer == "pickle")
    assert same(sorted(df, key=lambda dp: dp[1]), IMAGES)
    assert len(df) == 12


def test_keys_are_numbers_and_are_listed(images):
    found = raw(images)
    assert sorted(found) == [*(b"%08d" % number for number in range(12)), b"__keys__"]
    assert loads(found[b"__keys__"]).tolist() == [b"%08d" % number for number in range(12)]
    assert same(loads(found[b"00000007"]), IMAGES[7])


@pytest.mark.parametrize(
    ("serializer", "load"),
    [
        pytest.param("pickle", pickle.loads, id="pickle"),
        pytest.param("msgpack-numpy", lambda data: __import__("msgpack").unpackb(data), id="msgpack"),
    ],
)
def test_other_layouts_list_their_keys_as_tensorpack_does(path, serializer, load):
    LMDBSerializer.save(numbers(3), path, serializer=serializer)
    assert load(raw(path)[b"__keys__"]) == [b"00000000", b"00000001", b"00000002"]


def test_a_folder_gets_a_data_file(tmp_path):
    LMDBSerializer.save(numbers(3), tmp_path)
    assert left_in(tmp_path) == ["data.mdb"]
    assert sorted(LMDBSerializer.load(tmp_path)) == [[0], [1], [2]]


def test_the_format_is_that_of_lmdb_0_9_whatever_the_environment_says(path, monkeypatch):
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    LMDBSerializer.save(numbers(3), path)
    with lmdb.open(path, subdir=False, readonly=True, lock=False, lib_version=0) as env:
        assert env.stat()["entries"] == 4


def test_a_pass_after_a_reset_is_saved(path):
    df = DataFromList([[number] for number in range(9)], seed=8)
    first = list(df)
    LMDBSerializer.save(df, path)
    assert list(LMDBSerializer.load(path, shuffle=False)) == first


def test_anything_that_is_a_flow_can_be_saved(path):
    LMDBSerializer.save(([number] for number in range(3)), path)
    assert list(LMDBSerializer.load(path, shuffle=False)) == [[0], [1], [2]]


def test_the_recipe_of_a_parallel_mapper_decodes(images):
    df = MapData(LMDBData(images, shuffle=False), lambda dp: loads(dp[1]))
    assert same(list(df), IMAGES)


def test_old_names_work(path):
    old_names.dump_dataflow_to_lmdb(numbers(3), path, write_frequency=2)
    assert list(old_names.LMDBDataPoint(path, shuffle=False)) == [[0], [1], [2]]
    assert list(old_names.LMDBDataPoint(LMDBData(path, shuffle=False))) == [[0], [1], [2]]


# --- ownership ---


def test_arrays_are_private_and_writable(images):
    df = LMDBSerializer.load(images, shuffle=False)
    for image, _ in df:
        image += 1
    assert same(list(df), IMAGES)


def test_views_are_read_only_and_outlive_everything(images, path):
    df = LMDBSerializer.load(images, shuffle=False, copy=False)
    it = iter(df)
    kept = [next(it), next(it)]
    assert not kept[0][0].flags.writeable
    df.close()
    del df, it
    gc.collect()
    os.remove(path)
    assert same(kept, IMAGES[:2])


# --- saving ---


@pytest.mark.parametrize("frequency", [1, 3, 12, 5000])
def test_any_write_frequency_saves_all(path, frequency):
    LMDBSerializer.save(DataFromList(IMAGES, shuffle=False), path, frequency)
    assert same(list(LMDBSerializer.load(path, shuffle=False)), IMAGES)


def test_a_transaction_ends_at_the_write_frequency_or_when_it_is_large():
    records = [b"x" * 10] * 5 + [b"x" * module.MOST_BYTES] + [b""] * 2
    assert [len(batch) for batch in module._batches(iter(records), 3, 8)] == [3, 3, 2]


@pytest.mark.parametrize("frequency", [1, 7, 5000])
def test_no_datapoint_is_lost_when_the_map_grows(path, frequency, monkeypatch):
    monkeypatch.setattr(module, "FIRST_MAP_BYTES", 1 << 15)
    rows = [[bytes([number]) * 3000, number] for number in range(100)]
    LMDBSerializer.save(DataFromList(rows, shuffle=False), path, frequency)
    assert list(LMDBSerializer.load(path, shuffle=False)) == rows


@pytest.mark.parametrize("folder", [False, True])
def test_a_file_that_exists_is_never_touched(tmp_path, folder):
    file = tmp_path / "data.mdb"
    file.write_text("precious")
    with pytest.raises(FileExistsError, match=r"remove it first, or choose another name: '.*data\.mdb'"):
        LMDBSerializer.save(numbers(3), tmp_path if folder else file)
    assert file.read_text() == "precious"
    assert left_in(tmp_path) == ["data.mdb"]


def test_a_file_that_another_process_has_made_meanwhile_is_never_touched(path):
    def rows():
        yield [1]
        pathlib.Path(path).write_text("precious")

    with pytest.raises(FileExistsError, match="remove it first"):
        LMDBSerializer.save(DataFromGenerator(rows), path)
    assert pathlib.Path(path).read_text() == "precious"


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder to write to: '.*nowhere'"):
        LMDBSerializer.save(numbers(3), tmp_path / "nowhere" / "x.lmdb")


def test_a_folder_that_may_not_be_written_to_is_an_error_with_the_path(path, monkeypatch):
    def refuse(name, *args):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"cannot write here \(Permission denied\): '.*x\.lmdb'"):
        LMDBSerializer.save(numbers(3), path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), MemoryError()], ids=repr)
@pytest.mark.parametrize("number", [0, 5, 11])
def test_an_error_in_the_flow_leaves_nothing_behind(tmp_path, path, error, number):
    with pytest.raises(type(error)):
        LMDBSerializer.save(FailsAt(DataFromList(IMAGES), number, error), path, write_frequency=2)
    assert left_in(tmp_path) == []


def test_what_cannot_be_held_is_an_error_that_says_which_datapoint(tmp_path, path):
    rows = [[1], [2], [{3: object()}]]
    with pytest.raises(TypeError, match=r"cannot serialize component 0\[3\]: .*object") as info:
        LMDBSerializer.save(DataFromList(rows, shuffle=False), path)
    assert "in LMDBSerializer.save, datapoint 2" in info.value.__notes__
    assert left_in(tmp_path) == []


def test_a_value_beyond_what_lmdb_holds_is_an_error_that_says_which_datapoint(path, monkeypatch):
    with module._Writer(path, path) as writer:
        writer.put([(b"00000000", b"1")])
        with pytest.raises(ValueError, match="datapoint 2 is too large: LMDB holds values of up to 4 GiB"):
            writer.put([(b"", b"x"), (b"00000001", b"large")])  # an empty key gives the same error as 4 GiB


def test_an_endless_flow_is_refused(tmp_path, path):
    with pytest.raises(UsageError, match=r"MapData\(ds=RepeatedData.*never ends.*FixedSizeData"):
        LMDBSerializer.save(MapData(RepeatedData(numbers(3), -1), list), path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"df": 7}, TypeError, "ds must be a DataFlow", id="no flow"),
        pytest.param({"path": 7}, TypeError, "path must be a path", id="no path"),
        pytest.param({"write_frequency": 0}, ValueError, "at least 1", id="frequency"),
        pytest.param({"serializer": "json"}, ValueError, "'dataflow', 'msgpack-numpy', 'pickle'", id="serializer"),
    ],
)
def test_wrong_arguments_are_refused(path, options, error, message):
    with pytest.raises(error, match=message):
        LMDBSerializer.save(**{"df": numbers(3), "path": path, **options})
    assert not os.path.exists(path)


def test_wrong_arguments_of_load_are_refused(images):
    with pytest.raises(ValueError, match="verify must be one of 'off', 'first', 'always'"):
        LMDBSerializer.load(images, verify=True)
    with pytest.raises(TypeError, match="copy must be True or False"):
        LMDBSerializer.load(images, copy=0)
    with pytest.raises(FileNotFoundError, match=r"no such LMDB file: '.*nothing'"):
        LMDBSerializer.load(images + ".nothing")


class Short(DataFlow):
    def __len__(self):
        return 100

    def __iter__(self):
        yield [1]


def test_a_flow_of_another_length_than_it_says_is_saved_and_logged(path, caplog):
    with caplog.at_level(logging.WARNING):
        LMDBSerializer.save(Short(), path)
    assert "holds 1 datapoints, and the length of the flow is 100" in caplog.text
    assert len(LMDBSerializer.load(path)) == 1


def test_keys_are_as_long_as_the_flow_needs(path, monkeypatch):
    monkeypatch.setattr(module, "DIGITS", 1)
    LMDBSerializer.save(numbers(12), path)
    assert list(LMDBSerializer.load(path, shuffle=False)) == [[number] for number in range(12)]


def test_a_flow_without_length_that_is_too_long_for_the_keys_is_an_error(tmp_path, path, monkeypatch):
    monkeypatch.setattr(module, "DIGITS", 1)
    with pytest.raises(UsageError, match="cannot number more than 10 datapoints"):
        LMDBSerializer.save(DataFromGenerator(lambda: ([number] for number in range(12))), path)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(("free", "expected"), [(0, errno.ENOSPC), (1 << 40, errno.EIO)], ids=["full", "broken"])
def test_a_failed_write_is_an_oserror_with_the_path(tmp_path, path, monkeypatch, free, expected):
    class Txn:
        def cursor(self):
            error = lmdb.Error("mdb_txn_commit: Input/output error")
            error.code = errno.EIO
            raise error

    monkeypatch.setattr(module._Writer, "_commit", lambda self, batch: Txn().cursor())
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    with pytest.raises(OSError, match=r"after 0 datapoints: '.*x\.lmdb'") as info:
        LMDBSerializer.save(numbers(3), path)
    assert info.value.errno == expected
    assert left_in(tmp_path) == []


def test_a_map_that_the_machine_does_not_allow_is_an_oserror_with_the_path(tmp_path, path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_MAP_BYTES", 1 << 62)
    with pytest.raises(OSError, match=r"Cannot allocate memory after 0 datapoints: '.*x\.lmdb'"):
        LMDBSerializer.save(numbers(3), path)
    assert left_in(tmp_path) == []


def test_a_file_that_holds_less_than_was_written_is_not_published(tmp_path, path, monkeypatch):
    commit = module._Writer._commit
    monkeypatch.setattr(module._Writer, "_commit", lambda self, batch: commit(self, batch[1:]))
    with pytest.raises(CorruptDataError, match="was to hold 4 records, and holds 2"):
        LMDBSerializer.save(numbers(3), path)
    assert left_in(tmp_path) == []


KILLED = """
import os, signal, sys
from dataflow import DataFromGenerator, LMDBSerializer

path, where = sys.argv[1:]

def die(*args, **options):
    os.kill(os.getpid(), signal.SIGKILL)

def rows():
    for number in range(300):
        if where == f"row {number}":
            die()
        yield [number, bytes(5000)]

if where in ("fsync", "link"):
    setattr(os, where, die)
LMDBSerializer.save(DataFromGenerator(rows), path, 50)
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["row 0", "row 49", "row 250", "fsync", "link"])
def test_a_killed_save_leaves_no_file_that_loads_and_the_next_cleans_up(tmp_path, path, where):
    done = subprocess.run([sys.executable, "-c", KILLED, path, where], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not os.path.exists(path)
    (abandoned,) = left_in(tmp_path)
    LMDBSerializer.save(numbers(3), path)
    assert left_in(tmp_path) == ["x.lmdb"] != [abandoned]


# --- damage ---


def damage(path, key, bit=None):
    """Change one bit of the value of ``key``, by default of a pixel; LMDB may hold old copies of it."""
    file, value = pathlib.Path(path), raw(path)[key]
    damaged = bytearray(value)
    bit = 8 * len(value) - 80 if bit is None else bit
    damaged[bit // 8] ^= 1 << bit % 8
    file.write_bytes(file.read_bytes().replace(value, damaged))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("verify", ["first", "always"])
def test_a_damaged_record_is_an_error_with_file_record_and_key(images, verify, shuffle):
    damage(images, b"00000007")
    df = LMDBSerializer.load(images, shuffle, verify=verify)
    for _ in range(2):
        with pytest.raises(CorruptDataError, match=r"x\.lmdb', record 7 \(key b'00000007'\): a damaged record"):
            list(df)


def test_a_damaged_record_is_not_noticed_where_it_is_not_looked_for(images):
    damage(images, b"00000007")
    assert len(list(LMDBSerializer.load(images, verify="off"))) == 12


def test_each_record_is_verified_once_in_a_process(images, monkeypatch):
    verified = []

    def counting(data, copy, verify):
        verified.append(verify)
        return loads(data, verify=verify)

    monkeypatch.setattr("dataflow.sources.lmdb_file.decode", counting)
    df = LMDBSerializer.load(images, shuffle=True)
    it = iter(df)
    next(it), next(it)
    assert verified == [True, True]
    del it, verified[:]
    list(df)
    assert verified.count(True) == 10
    del verified[:]
    list(df), list(LMDBSerializer.load(images, shuffle=True))
    assert verified == [False] * 24
    del verified[:]
    list(LMDBSerializer.load(images, verify="always"))
    assert verified == [True] * 12


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_file_that_lost_datapoints_is_an_error_and_no_shorter_pass(path, shuffle):
    LMDBSerializer.save(numbers(5), path)
    env = lmdb.open(path, subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.delete(b"00000003")
    env.close()
    df = LMDBSerializer.load(path, shuffle)
    for use in (iter, len):
        with pytest.raises(CorruptDataError, match=r"x\.lmdb' lists 5 datapoints and holds 4: its writer lost some"):
            use(df)


def test_a_key_that_is_listed_and_not_there_is_an_error(path):
    LMDBSerializer.save(numbers(5), path)
    env = lmdb.open(path, subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"another", txn.pop(b"00000003"))
    env.close()
    for verify in ("off", "first"):
        with pytest.raises(MissingKeyError, match=r"x\.lmdb' has no key b'00000003'"):
            list(LMDBSerializer.load(path, shuffle=True, verify=verify))


def test_a_damaged_record_whose_key_is_damaged_too_is_damage(path, images):
    content = pathlib.Path(path).read_bytes()
    content = content.replace(b"00000003\xc1", b"0000\0\0\0\0\xc1").replace(bytes([3] * 60), bytes([4] * 60))
    pathlib.Path(path).write_bytes(content)
    with pytest.raises(CorruptDataError, match=r"x\.lmdb', record 3 \(key b'0000\\x00"):
        list(LMDBSerializer.load(path, shuffle=False))


def test_values_of_something_else_are_an_error_with_file_record_and_key(path):
    env = lmdb.open(path, subdir=False, lock=False)
    with env.begin(write=True) as txn:
        txn.put(b"a", b"\xc1 no record")
        txn.put(b"b", b"\xff no msgpack")
    env.close()
    with pytest.raises(CorruptDataError, match=r"x\.lmdb', record 0 \(key b'a'\): "):
        list(LMDBSerializer.load(path, shuffle=False))


def test_a_pickle_is_refused_with_the_way_out_and_the_place(path):
    LMDBSerializer.save(numbers(2), path, serializer="pickle")
    with pytest.raises(UsageError, match="pass allow_pickle=True") as info:
        list(LMDBSerializer.load(path, shuffle=False))
    assert any("x.lmdb', record 0 (key b'00000000')" in note for note in info.value.__notes__)


def test_every_flipped_bit_in_a_value_is_found(path):
    LMDBSerializer.save(DataFromList(IMAGES[:1], shuffle=False), path)
    whole = pathlib.Path(path).read_bytes()
    for bit in range(0, 8 * len(raw(path)[b"00000000"]), 13):
        damage(path, b"00000000", bit)
        with pytest.raises(CorruptDataError, match=r"x\.lmdb', record 0"):
            list(LMDBSerializer.load(path))
        pathlib.Path(path).write_bytes(whole)


def test_saved_and_dumped_bytes_are_the_same(images):
    assert raw(images)[b"00000003"] == dumps(IMAGES[3])
