"""HDF5Data: rows of datasets side by side, whoever wrote them and however they are stored."""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest

from dataflow.errors import CorruptDataError, MissingKeyError, UsageError
from dataflow.sources import hdf5_file
from dataflow.sources.hdf5_file import HDF5Data
from dataflow.testing import check_dataflow, same

IMAGES = np.arange(60 * 6, dtype=np.float32).reshape(60, 2, 3)
LABELS = np.arange(60)
ROWS = [[image, label] for image, label in zip(IMAGES, LABELS, strict=True)]
PATHS = ["images", "deep/labels"]

LAYOUTS = {
    "contiguous": {},
    "chunks of rows": {"chunks": (7, 2, 3)},
    "chunks of parts of rows": {"chunks": (7, 1, 2)},
    "compressed": {"chunks": (16, 2, 3), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "one chunk": {"chunks": (60, 2, 3)},
}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.h5")


def make(path, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=IMAGES, **options)
        file["deep/labels"] = LABELS
    return path


def flipped(path, marker):
    """Flip a bit of the first place where ``marker`` is."""
    with open(path, "r+b") as file:
        place = file.read().index(marker)
        file.seek(place)
        file.write(bytes([marker[0] ^ 1]))


@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_layout_is_read(path, options, shuffle):
    df = HDF5Data(make(path, **options), PATHS, shuffle)
    rows = list(df)
    assert len(df) == 60
    assert same(sorted(rows, key=lambda dp: dp[1]), ROWS)
    assert ([dp[1] for dp in rows] == LABELS.tolist()) is not shuffle


@pytest.mark.parametrize("shuffle", [False, True])
def test_small_blocks_change_nothing(path, shuffle, monkeypatch):
    monkeypatch.setattr(hdf5_file, "_BLOCK_BYTES", 100)
    monkeypatch.setattr(hdf5_file, "_SHORT", 0)
    assert same(sorted(HDF5Data(make(path), PATHS, shuffle), key=lambda dp: dp[1]), ROWS)


@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(path, shuffle):
    make(path, chunks=(7, 2, 3))
    check_dataflow(lambda: HDF5Data(path, PATHS, shuffle), limit=20, new_process=False)


def test_large_blocks_are_copied_so_that_a_row_keeps_only_itself(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.zeros((200, 1000)), chunks=(200, 1000))
    (row,) = next(iter(HDF5Data(path, ["x"], shuffle=False)))
    assert row.base is None


def test_components_are_what_h5py_reads(path):
    with h5py.File(path, "w") as file:
        file["flag"], file["text"] = [True], np.array([b"ab"])
        file["pair"] = np.array([(1, 2.0)], [("a", "i4"), ("b", ">f8")])
        file["half"] = np.ones((1, 2), np.float16)
    ((flag, text, pair, half),) = HDF5Data(path, ["flag", "text", "pair", "half"])
    assert (type(flag), type(text), type(pair)) == (np.bool_, np.bytes_, np.void)
    assert (flag, text, pair.item(), half.dtype) == (True, b"ab", (1, 2.0), np.float16)


def test_a_file_is_opened_by_the_process_that_reads_it(path):
    df = HDF5Data(make(path), PATHS, seed=3)
    first = [int(dp[1]) for dp in df]
    child = os.fork()
    if child == 0:
        df.reset_state()
        os._exit(0 if [int(dp[1]) for dp in df] == first else 1)
    assert os.waitpid(child, 0)[1] == 0
    df.reset_state()
    assert [int(dp[1]) for dp in pickle.loads(pickle.dumps(df))] == first


def test_lengths_that_differ_are_named(path):
    with h5py.File(path, "w") as file:
        file["a"], file["b"] = [1, 2], [1]
    with pytest.raises(ValueError, match="different numbers of rows: 2 in 'a', 1 in 'b'"):
        len(HDF5Data(path, ["a", "b"]))


def test_a_dataset_that_is_not_there_is_named_and_what_is(path):
    with pytest.raises(MissingKeyError, match=r"no dataset 'labels'.*'deep', 'images'"):
        next(iter(HDF5Data(make(path), ["labels"])))


@pytest.mark.parametrize("paths", ["images", None, [b"images"], 5], ids=str)
def test_paths_must_be_a_list_of_str(path, paths):
    with pytest.raises(TypeError, match="data_paths must be a list of"):
        HDF5Data(make(path), paths)


def test_no_paths_are_refused(path):
    with pytest.raises(ValueError, match="at least one dataset"):
        HDF5Data(make(path), [])


def test_a_missing_file_is_an_error_at_construction(path):
    with pytest.raises(FileNotFoundError):
        HDF5Data(path, PATHS)


def test_what_leads_out_of_the_file_must_be_allowed(path):
    with h5py.File(path, "w") as file:
        file["x"] = h5py.ExternalLink(make(f"{path}.other"), "images")
        file["text"] = ["a", "b"]
    with pytest.raises(UsageError, match="allow_external=True"):
        list(HDF5Data(path, ["x"]))
    with pytest.raises(UsageError, match="allow_variable=True"):
        list(HDF5Data(path, ["text"]))
    assert len(list(HDF5Data(path, ["x"], allow_external=True))) == 60
    assert list(HDF5Data(path, ["text"], shuffle=False, allow_variable=True)) == [[b"a"], [b"b"]]


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_damaged_chunk_is_an_error_at_its_first_row_and_not_before(path, shuffle):
    make(path, chunks=(7, 2, 3), fletcher32=True)
    flipped(path, IMAGES[35].tobytes())
    df = HDF5Data(path, PATHS, shuffle, seed=1)
    received = []
    with pytest.raises(CorruptDataError, match=r"x\.h5', record (\d+): dataset 'images': ") as caught:
        received += (int(dp[1]) for dp in df)
    number = int(str(caught.value).split("record ")[1].split(":")[0])
    assert number in range(35, 42)
    assert not set(received) & set(range(35, 42))
    assert shuffle or received == list(range(35))


def test_a_damaged_short_column_is_read_row_by_row(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.arange(100), chunks=(10,), fletcher32=True)
    flipped(path, np.arange(50, 60).tobytes())
    with pytest.raises(CorruptDataError, match=r"record 5[0-9]: dataset 'x'"):
        list(HDF5Data(path, ["x"]))


def test_a_place_is_continued_in_the_middle_of_a_chunk(path):
    df = HDF5Data(make(path, chunks=(7, 2, 3)), PATHS, shuffle=False)
    it = iter(df)
    for _ in range(10):
        next(it)
    other = HDF5Data(path, PATHS, shuffle=False)
    other.load_state_dict(it.state_dict())
    assert same(list(other), ROWS[10:])


def test_a_url_is_refused_at_construction_with_a_way_out():
    with pytest.raises(UsageError, match=r"HDF5 is read from this machine only, and 's3://b/x\.h5' is a URL: copy it"):
        HDF5Data("s3://b/x.h5", ["x"])
