from __future__ import annotations

import os
import pickle

import msgpack
import pytest

from dataflow import TFRecordSerializer, dumps
from dataflow.errors import CorruptDataError, UsageError
from dataflow.sources.tfrecord_frames import framed
from dataflow.testing import numbers


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "x.tfrecord")
    TFRecordSerializer.save(numbers(5), path)
    return path


def write(path, records):
    path.write_bytes(b"".join(part for record in records for part in framed(record)))
    return path


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def damaged(path, **options):
    return dict(TFRecordSerializer.damages(path, **options))


@pytest.mark.parametrize(
    ("record", "codec"),
    [
        pytest.param(dumps([1]), "dataflow", id="ours"),
        pytest.param(pickle.dumps([1]), "pickle", id="pickle"),
        pytest.param(msgpack.packb([1]), "msgpack-numpy", id="msgpack"),
        pytest.param(b"\x0a\x07\x0a\x05\x0a\x01a\x12\x00", None, id="an Example of TensorFlow"),
        pytest.param(b"", None, id="empty"),
    ],
)
def test_tells_what_a_file_is(tmp_path, record, codec):
    path = write(tmp_path / "x", [record])
    told = TFRecordSerializer.inspect(path)
    assert told == {
        "format": "TFRecord",
        "codec": codec,
        "datapoints": None,
        "bytes": len(record) + 16,
        "checksums": "every record",
        "index": False,
    }
    assert damaged(path, allow_pickle=True) == {}


def test_an_index_tells_the_number(path):
    told = TFRecordSerializer.inspect(path)
    assert (told["datapoints"], told["index"]) == (5, True)


def test_what_is_no_tfrecord_file_is_refused_by_inspect(tmp_path):
    (tmp_path / "x").write_bytes(b"PK\x03\x04 and so on, a zip archive")
    with pytest.raises(CorruptDataError, match="or this is no TFRecord file"):
        TFRecordSerializer.inspect(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        TFRecordSerializer.inspect(tmp_path / "y")


def test_every_damaged_record_is_listed(path):
    size = os.path.getsize(path) // 5
    seen = []
    assert damaged(path, on_record=lambda: seen.append(1)) == {}
    for number in (1, 3):
        flip(path, number * size + 20)
    found = damaged(path)
    assert list(found) == [1, 3]
    assert found[3] == (
        f'at byte {3 * size:,}: its bytes and their checksum do not agree. Copy it again, or read on with verify="off"'
    )
    assert len(seen) == 5


def test_the_index_leads_behind_a_damaged_length(path):
    size = os.path.getsize(path) // 5
    for number in (1, 3):
        flip(path, number * size)
    assert list(damaged(path)) == [1, 3]
    os.remove(f"{path}.index")
    found = damaged(path)
    assert list(found) == [1]
    assert found[1].endswith("what may follow cannot be reached")


def test_an_end_that_is_missing_is_a_fault_of_the_file_and_of_no_record(path):
    size = os.path.getsize(path) // 5
    os.truncate(path, 4 * size)
    ((number, why),) = TFRecordSerializer.damages(path)
    assert number is None
    assert "is cut short: " in why
    os.remove(f"{path}.index")
    for end in (4 * size - 1, 3 * size + 12, 3 * size + 1):
        os.truncate(path, end)
        seen = []
        found = list(TFRecordSerializer.damages(path, on_record=lambda: seen.append(1)))  # noqa: B023  # called here
        assert found == [(None, f"the file is cut short: it ends at byte {end}, behind 3 records. Copy it again")]
        assert len(seen) == 3


def test_a_file_of_another_format_is_a_fault_of_the_file(tmp_path):
    (tmp_path / "x").write_bytes(b"no records" * 20)
    ((number, why),) = TFRecordSerializer.damages(tmp_path / "x")
    assert number is None
    assert why.startswith("this is no TFRecord file, or its first bytes are damaged")


def test_what_does_not_decode_is_listed_among_our_records(tmp_path):
    path = write(tmp_path / "x", [dumps([1]), dumps([2])[:-9], pickle.dumps([3]), b"", dumps([5])])
    found = damaged(path)
    assert list(found) == [1, 2, 3]
    assert "allow_pickle=True" in found[2]
    assert list(damaged(path, allow_pickle=True)) == [1, 3]


HELD = msgpack.packb({b"nd": True, b"type": b"|O", b"kind": b"O", b"shape": [1], b"data": pickle.dumps([1])})


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([pickle.dumps([1]), pickle.dumps([2])], id="records"),
        pytest.param([msgpack.packb([1]), HELD], id="inside msgpack"),
    ],
)
def test_pickles_are_not_called_damage_nor_loaded_unasked(tmp_path, records):
    path = write(tmp_path / "x", records)
    with pytest.raises(UsageError, match=r"x' holds pickles, .* pass allow_pickle=True"):
        damaged(path)
    assert damaged(path, allow_pickle=True) == {}


def test_what_does_not_decode_is_listed_among_records_of_tensorpack(tmp_path):
    path = write(tmp_path / "x", [msgpack.packb([1]), b"\xc1", msgpack.packb([2])])
    assert [*damaged(path)] == [1]


def test_a_damaged_pickle_is_listed_whatever_it_raises(tmp_path):
    path = write(tmp_path / "x", [dumps([1]), b"\x80\x04cbuiltins\nno_such_name\n.", dumps([3])])
    found = damaged(path, allow_pickle=True)
    assert list(found) == [1]
    assert "AttributeError" in found[1]
