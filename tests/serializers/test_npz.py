"""NumpySerializer: any datapoint comes back bit by bit, without a pickle, and damage is found."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import uuid
import zipfile
from itertools import pairwise

import numpy as np
import pytest

from dataflow import DataFromGenerator, DataFromList, loads
from dataflow.errors import CorruptDataError, UsageError
from dataflow.serializers.npz import NumpySerializer
from dataflow.sources.npz_file import offsets_header
from dataflow.testing import check_dataflow, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.npz")


def save(rows, path):
    NumpySerializer.save(DataFromList(rows, shuffle=False), path)
    return path


def read(path, **options):
    return list(NumpySerializer.load(path, shuffle=False, **options))


def flipped(path, place):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


# --- round trips ---


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(IMAGES, id="arrays and ints"),
        pytest.param([{"x": np.arange(3.0), "name": "a"}, {"x": np.arange(5), "name": None}], id="dicts"),
        pytest.param([[("a", {1: b"b"}), 1 << 70], [np.float32(0.5), [[]]]], id="nested"),
        pytest.param([["x" * 500_000], ["y"]], id="large"),
        pytest.param([[]], id="no components"),
        pytest.param([], id="no datapoints"),
    ],
)
def test_datapoints_come_back_as_they_were(path, rows):
    save(rows, path)
    assert same(read(path), rows)
    assert same(sorted(NumpySerializer.load(path), key=repr), sorted(rows, key=repr))
    assert len(NumpySerializer.load(path)) == len(rows)
    assert list(NumpySerializer.damages(path)) == []


@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(path, shuffle):
    save(IMAGES, path)
    check_dataflow(lambda: NumpySerializer.load(path, shuffle), new_process=False)


def test_numpy_reads_the_members(path):
    save(IMAGES, path)
    with np.load(path) as members:
        records, offsets = members["records"], members["offsets"]
    assert offsets.dtype == np.uint64
    assert same([loads(records[start:stop]) for start, stop in pairwise(offsets)], IMAGES)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_the_header_of_the_offsets_is_that_of_numpy():
    file = io.BytesIO()
    np.save(file, np.zeros(1234, "<u8"))
    assert file.getvalue()[:128] == offsets_header(1234)


def test_a_url_is_written_and_read():
    url = f"memory://{uuid.uuid4()}/x.npz"
    save(IMAGES, url)
    assert same(read(url), IMAGES)
    assert NumpySerializer.inspect(url)["datapoints"] == 12


def test_a_flow_without_length_is_written(path):
    NumpySerializer.save(DataFromGenerator(lambda: iter(IMAGES)), path)
    assert same(read(path), IMAGES)


def test_two_passes_at_once_do_not_disturb_each_other(path):
    df = NumpySerializer.load(save(IMAGES, path), shuffle=False)
    assert all(same(a, b) for a, b in zip(df, df, strict=True))


def test_what_cannot_be_held_is_refused_and_leaves_nothing(path):
    with pytest.raises(TypeError, match="component 1") as caught:
        save([[1, 2], [1, object()]], path)
    assert "in NumpySerializer.save, datapoint 1" in caught.value.__notes__
    assert os.listdir(os.path.dirname(path)) == []


def test_an_existing_file_is_kept(path):
    save(IMAGES, path)
    with pytest.raises(FileExistsError):
        save([], path)
    assert same(read(path), IMAGES)


# --- files of tensorpack, and of others ---


def of_tensorpack(path, rows):
    buffer = np.empty((len(rows), 2), object)
    for number, row in enumerate(rows):
        buffer[number] = row
    np.savez_compressed(path, buffer=buffer)
    return path


def test_a_file_of_tensorpack_is_loaded_when_pickles_are_allowed(path):
    of_tensorpack(path, IMAGES)
    assert same(read(path, allow_pickle=True), IMAGES)
    assert same(sorted(NumpySerializer.load(path, allow_pickle=True), key=lambda dp: dp[1]), IMAGES)


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_is_refused_by_name_and_does_not_run(path, tmp_path):
    Bomb.folder = str(tmp_path / "ran")
    of_tensorpack(path, [[Bomb(), 1]])
    for read_it in (read, lambda path: list(NumpySerializer.damages(path))):
        with pytest.raises(UsageError, match=r"is a pickle.*allow_pickle=True"):
            read_it(path)
    assert NumpySerializer.inspect(path)["codec"] == "pickle"
    assert not os.path.exists(Bomb.folder)


def test_a_damaged_file_of_tensorpack_is_named(path):
    of_tensorpack(path, IMAGES)
    flipped(path, 200)
    with pytest.raises(CorruptDataError, match=r"x\.npz' is damaged"):
        read(path, allow_pickle=True)


def test_arrays_of_others_are_named_with_the_way_out(path):
    np.savez(path, images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(CorruptDataError, match=r"holds 'images\.npy', 'labels\.npy'.*DataFromList"):
        read(path)
    assert NumpySerializer.inspect(path)["codec"] == "arrays"


def test_a_missing_file_is_an_error_at_once(path):
    with pytest.raises(FileNotFoundError):
        NumpySerializer.load(path)


# --- hostile and damaged files ---


def archive(path, records=b"", offsets=(0,), header=None, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("records", records)
        header = offsets_header(len(offsets)) if header is None else header
        file.writestr("offsets.npy", header + np.array(offsets, "<u8").tobytes())
    return path


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param({"offsets": (0, 1 << 62)}, "does not fit", id="beyond the end"),
        pytest.param({"records": bytes(9), "offsets": (0, 1 << 63, 9)}, "does not fit", id="back and forth"),
        pytest.param({"records": bytes(9), "offsets": (0, 5, 3, 9)}, "does not fit", id="negative size"),
        pytest.param({"records": bytes(9), "offsets": (4, 9)}, "does not fit", id="begins later"),
        pytest.param({"offsets": ()}, "no array of offsets", id="no offsets"),
        pytest.param({"header": offsets_header(1 << 60)}, "no array of offsets", id="longer array claimed"),
        pytest.param({"header": offsets_header(1).replace(b"<u8", b"|O8")}, "no array of offsets", id="pickle"),
        pytest.param({"header": b"(" * 128}, "no array of offsets", id="nested header"),
        pytest.param({"records": bytes(1 << 20), "compression": zipfile.ZIP_DEFLATED}, "compressed", id="bomb"),
    ],
)
def test_what_save_does_not_write_is_damage(path, options, says):
    archive(path, **options)
    with pytest.raises(CorruptDataError, match=says):
        len(NumpySerializer.load(path))


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(b"\x80\x05cos\nmkdir\n.", id="pickle"),
        pytest.param(b"\x91\x01", id="msgpack"),
        pytest.param(b"\xc1DF\x01" + b"\xff" * 60, id="lying record"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_a_record_of_another_kind_is_damage(path, record):
    archive(path, record, (0, len(record)))
    with pytest.raises(CorruptDataError, match=r"x\.npz', record 0: "):
        read(path)


def test_members_that_lie_about_their_size_are_damage(path):
    save(IMAGES, path)
    with open(path, "r+b") as file:
        data = file.read()
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))  # of the records, in the directory
        file.seek(entry + 20)
        file.write((1 << 31).to_bytes(4, "little") * 2)
    with pytest.raises(CorruptDataError):
        read(path)


def test_a_damaged_record_is_named_and_those_behind_it_are_read(path):
    save(IMAGES, path)
    with open(path, "rb") as file:
        place = file.read().index(bytes([5]) * 60)
    flipped(path, place)
    calls = []
    assert [number for number, _ in NumpySerializer.damages(path, on_record=lambda: calls.append(1))] == [5]
    assert len(calls) == 12
    received = []
    with pytest.raises(CorruptDataError, match=r"x\.npz', record 5: .*do not agree\. Copy it again"):
        received += NumpySerializer.load(path, shuffle=False)
    assert same(received, IMAGES[:5])


def test_a_file_that_shrinks_while_it_is_read_is_an_error(path):
    save(IMAGES, path)
    it = iter(NumpySerializer.load(path, shuffle=False))
    next(it)
    os.truncate(path, 500)
    with pytest.raises(CorruptDataError, match="shorter than it was"):
        list(it)


def test_truncated_and_flipped_files_are_damaged_or_the_same(path):
    rows = [[np.full(7, number), "text"] for number in range(4)]
    with open(save(rows, path), "rb") as file:
        whole = file.read()
    damaged = f"{path}.damaged"
    cuts = [whole[:end] for end in range(0, len(whole), 9)]
    flips = [whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :] for i in range(0, len(whole), 3)]
    for number, data in enumerate(cuts + flips):
        with open(damaged, "wb") as file:
            file.write(data)
        try:
            found = read(damaged)
        except CorruptDataError as error:
            found = str(error)
        assert damaged in found or (number >= len(cuts) and same(found, rows))


AUDIT = """
import sys
from dataflow.errors import DataFlowError
from dataflow.serializers.npz import NumpySerializer
list(NumpySerializer.load(sys.argv[1]))  # loads whatever loads once
calls = []
def hook(event, arguments):
    known = event == "open" and arguments[0] in sys.argv
    if not known and event in ("open", "exec", "compile", "import", "pickle.find_class") or event.startswith(
        ("os.", "subprocess.", "socket.", "ctypes.")
    ):
        calls.append((event, arguments))
sys.addaudithook(hook)
for path in sys.argv[2:]:
    try:
        list(NumpySerializer.load(path))
    except DataFlowError:
        print("refused")
print(calls)
"""


def test_hostile_files_run_nothing(tmp_path):
    Bomb.folder = str(tmp_path / "ran")
    good = save(IMAGES, str(tmp_path / "good.npz"))
    record = b"\x80\x05cposix\nsystem\n(S'true'\ntR."
    paths = [
        of_tensorpack(str(tmp_path / "1.npz"), [[Bomb(), 1]]),
        archive(str(tmp_path / "2.npz"), record, (0, len(record))),
        archive(str(tmp_path / "3.npz"), header=offsets_header(1).replace(b"<u8", b"|O8")),
        archive(
            str(tmp_path / "4.npz"), header=b"\x93NUMPY\x01\x00v\x00" + b"__import__('os').mkdir('ran')".ljust(118)
        ),
    ]
    done = subprocess.run([sys.executable, "-c", AUDIT, good, *paths], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n" * 4 + "[]\n", "")


def test_inspect_tells_what_there_is(path):
    save(IMAGES, path)
    told = NumpySerializer.inspect(path)
    assert json.loads(json.dumps(told)) == told
    assert told == {
        "format": "npz",
        "codec": "dataflow",
        "datapoints": 12,
        "bytes": os.path.getsize(path),
        "checksums": "every record",
        "members": ["records", "offsets.npy"],
    }
