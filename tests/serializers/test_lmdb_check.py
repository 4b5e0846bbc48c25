"""What is said of an LMDB file, and which of its records are found to be damaged."""

from __future__ import annotations

import json
import pickle

import lmdb
import msgpack
import numpy as np
import pytest

from dataflow import DataFromList, LMDBSerializer, dumps
from dataflow.errors import CorruptDataError, UsageError
from dataflow.serializers import lmdb_check

ROWS = [[np.full(50, number, "u1"), number] for number in range(20)]


@pytest.fixture
def save(tmp_path):
    def save(**options):
        path = str(tmp_path / "x.lmdb")
        LMDBSerializer.save(DataFromList(ROWS, shuffle=False), path, **options)
        return path

    return save


def change(path, **changes):
    """Put, or delete, what keys like ``k00000003`` stand for."""
    env = lmdb.open(path, subdir=False, lock=False, map_size=1 << 27)
    with env.begin(write=True) as txn:
        for name, value in changes.items():
            key = b"__keys__" if name == "keys" else name[1:].encode()
            txn.delete(key) if value is None else txn.put(key, value)
    env.close()
    return path


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def flipped(record, place=-20):
    damaged = bytearray(record)
    damaged[place] ^= 1
    return bytes(damaged)


def found(path, **options):
    return list(LMDBSerializer.damages(path, **options))


@pytest.mark.parametrize(
    ("serializer", "checksums"), [("dataflow", "every record"), ("msgpack-numpy", "none"), ("pickle", "none")]
)
def test_inspect_tells_what_a_file_is(save, serializer, checksums):
    path = save(serializer=serializer)
    told = LMDBSerializer.inspect(path)
    assert json.loads(json.dumps(told)) == told
    assert told.pop("bytes") > 4096
    assert told == {
        "format": "LMDB",
        "codec": serializer,
        "datapoints": 20,
        "checksums": checksums,
        "first key": "00000000",
        "list of keys": True,
    }


def test_inspect_looks_behind_a_first_record_that_is_damaged(save):
    assert LMDBSerializer.inspect(change(save(), k00000000=b"\0\0"))["codec"] == "dataflow"


def test_inspect_of_what_nobody_can_decode_or_of_nothing(tmp_path):
    path = str(tmp_path / "x.lmdb")
    lmdb.open(path, subdir=False, lock=False).close()
    told = LMDBSerializer.inspect(path)
    assert (told["codec"], told["datapoints"], told["list of keys"]) == (None, 0, False)
    assert found(path) == []
    told = LMDBSerializer.inspect(change(path, kcaffe=b"\x08\x03", kmore=b"7"))
    assert (told["codec"], told["datapoints"], told["first key"]) == (None, 2, "caffe")


def test_inspect_does_not_load_pickles(save):
    change(path := save(serializer="pickle"), k00000000=pickle.dumps([Trap()]), keys=pickle.dumps([Trap()]))
    assert LMDBSerializer.inspect(path)["codec"] == "pickle"


@pytest.mark.parametrize("serializer", ["dataflow", "msgpack-numpy", "pickle"])
def test_a_whole_file_has_no_damages_and_every_record_is_counted(save, serializer):
    seen = []
    path = save(serializer=serializer)
    assert found(path, allow_pickle=True, on_record=lambda: seen.append(1)) == []
    assert len(seen) == 20


@pytest.mark.parametrize("listed", [True, False], ids=["by the list of keys", "along the file"])
def test_every_damaged_record_is_found_with_its_number_and_key(save, listed):
    records = {number: flipped(dumps(ROWS[number])) for number in (0, 7, 19)}
    path = change(save(), **{f"k{number:08d}": record for number, record in records.items()})
    if not listed:
        change(path, keys=None)
    damages = found(path)
    assert [number for number, _ in damages] == [0, 7, 19]
    assert damages[1][1].startswith("key b'00000007': a damaged record: its bytes and their checksum do not agree")


def test_a_record_that_is_cut_off_or_of_another_layout_is_damaged(save):
    path = change(save(), k00000003=dumps(ROWS[3])[:-9], k00000004=b"\0\0", k00000005=pickle.dumps([5]))
    damages = found(path)
    assert [number for number, _ in damages] == [3, 4, 5]
    assert "this is a pickle" in damages[2][1]


def test_a_damaged_record_of_another_serializer_is_found_where_it_shows(save):
    path = change(save(serializer="msgpack-numpy"), k00000003=dumps(ROWS[3], serializer="msgpack-numpy")[:-9])
    assert [(number, "neither a record" in why) for number, why in found(path)] == [(3, True)]


def test_a_damaged_pickle_is_damage_whatever_it_raises(save):
    path = change(
        save(serializer="pickle"),
        k00000003=pickle.dumps(ROWS[3])[:-9],
        k00000004=b"\x80\x04\x8c\x0bno_such_mod\x94\x8c\x01x\x94\x93\x94.",
    )
    damages = found(path, allow_pickle=True)
    assert [number for number, _ in damages] == [3, 4]
    assert "ModuleNotFoundError: No module named 'no_such_mod'" in damages[1][1]


def test_a_listed_record_that_is_missing_is_damage(save):
    damages = found(change(save(), k00000003=None))
    assert damages == [
        (3, "key b'00000003': listed, and not in the file"),
        (None, "19 datapoints, where the list of keys has 20: the writer lost some"),
    ]


def test_a_damaged_list_of_keys_is_damage_and_the_records_are_read_without_it(save):
    path = change(save(), keys=flipped(dumps([b"00000000"]), -6), k00000007=b"\0\0")
    damages = found(path)
    assert [number for number, _ in damages] == [None, 7]
    assert "the list of keys: a damaged record" in damages[0][1]


class BrokenFile:
    """A file whose pages are damaged behind record 2, and for key c."""

    error = lmdb.Error
    count, listed, path = 4, False, "x.lmdb"

    def begin(self, buffers):
        return self

    cursor = first = lambda self: self

    def items(self, cursor):
        for number in range(2):
            yield b"%d" % number, dumps(number)
        raise lmdb.CorruptedError("page is damaged")

    def get(self, key):
        if key == b"c":
            raise lmdb.CorruptedError("page is damaged")
        return dumps(key)


def test_damaged_pages_are_passed_by_the_list_of_keys_only():
    keys = np.frombuffer(b"abcd", "V1")
    assert list(lmdb_check._faults(BrokenFile(), keys, "dataflow", False, int)) == [
        (2, "key b'c': the file is damaged here (page is damaged)")
    ]
    assert list(lmdb_check._faults(BrokenFile(), None, "dataflow", False, int)) == [
        (2, "the file is damaged here (page is damaged), and what follows cannot be reached")
    ]


def test_pickles_are_not_loaded_unasked(save):
    path = save(serializer="pickle")
    with pytest.raises(UsageError, match=r"x\.lmdb' holds pickles, .* pass allow_pickle=True"):
        found(path)


def test_a_pickle_inside_msgpack_is_not_called_damage(save):
    held = msgpack.packb({b"nd": True, b"type": b"|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps([1])})
    path = change(save(serializer="msgpack-numpy"), k00000003=held)
    with pytest.raises(UsageError, match=r"x\.lmdb' holds pickles, .* pass allow_pickle=True"):
        found(path)
    assert found(path, allow_pickle=True) == []


def test_values_that_are_no_datapoints_are_not_called_damaged(tmp_path):
    path = str(tmp_path / "x.lmdb")
    lmdb.open(path, subdir=False, lock=False).close()
    change(path, kcaffe=b"\x08\x03\x10\x02")
    with pytest.raises(UsageError, match=r"values that begin with b'\\x08\\x03\\x10\\x02': read them with LMDBData"):
        found(path)


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    (tmp_path / "x.lmdb").write_bytes(b"hello")
    for look in (found, LMDBSerializer.inspect):
        with pytest.raises(CorruptDataError, match="is no LMDB file"):
            look(tmp_path / "x.lmdb")
        with pytest.raises(FileNotFoundError, match="no such LMDB file"):
            look(tmp_path / "nothing.lmdb")
