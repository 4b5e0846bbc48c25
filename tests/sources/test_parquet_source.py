"""The bytes of a file of columns: read into memory that arrays may be views on, and verified."""

from __future__ import annotations

import io

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.codec import checksum
from dataflow.errors import CorruptDataError

pytest.importorskip("pyarrow")

from dataflow.serializers import parquet as writing  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer
from dataflow.sources import parquet_source as module
from dataflow.sources.parquet_source import Source

DATA = bytes(range(200)) * 100


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.file")


def test_reads_like_a_file():
    source = Source(io.BytesIO(DATA), at_url=True)
    assert (source.size, source.identity) == (20_000, None)
    assert (source.seek(10), source.tell(), bytes(source.read(3)), source.tell()) == (10, 10, DATA[10:13], 13)
    assert (source.seek(-5, io.SEEK_END), bytes(source.read(50)), bytes(source.read())) == (19_995, DATA[-5:], b"")
    assert (source.seek(0), bytes(source.read())) == (0, DATA)


def test_a_group_that_is_loaded_comes_from_memory_and_is_verified_if_its_checksum_is_given():
    file = io.BytesIO(DATA)
    source = Source(file, at_url=True)
    source.load(100, 50, checksum(DATA[100:150]))
    file.getbuffer()[100:150] = bytes(50)
    source.seek(110)
    assert bytes(source.read(10)) == DATA[110:120]
    assert bytes(source.read(40)) == bytes(30) + DATA[150:160]
    with pytest.raises(CorruptDataError, match="group at byte 100 is damaged: its checksum does not agree"):
        source.load(100, 50, checksum(DATA[100:150]))
    source.load(100, 50, None)
    source.seek(110)
    assert bytes(source.read(10)) == bytes(10)
    with pytest.raises(CorruptDataError, match="group at byte 19,990 is damaged"):
        source.load(19_990, 50, None)


def test_small_batches_are_views_on_one_block_and_large_ones_are_copied(path, monkeypatch):
    monkeypatch.setattr(writing, "ARROW_BYTES", 1 << 14)
    rows = [[np.full(4096, number, np.uint8)] for number in range(8)]
    ArrowSerializer.save(DataFromList(rows, shuffle=False), path)
    first, second = list(ArrowSerializer.load(path, False))[:2]
    assert first[0].base is second[0].base is not None
    monkeypatch.setattr(module, "_MOST_BLOCK", 1 << 13)
    first, second = list(ArrowSerializer.load(path, False))[:2]
    assert (first[0][0], second[0][0]) == (0, 1)
    assert first[0].base is second[0].base is None


def test_arrays_of_parquet_are_views_on_one_block_in_order_and_copies_in_a_random_order(path):
    rows = [[np.full(4096, number, np.uint8)] for number in range(8)]
    ParquetSerializer.save(DataFromList(rows, shuffle=False), path)
    first, second = list(ParquetSerializer.load(path, False))[:2]
    assert (first[0][0], second[0][0]) == (0, 1)
    assert first[0].base is second[0].base is not None
    assert all(dp[0].base is None for dp in ParquetSerializer.load(path, True))


def loaded(source, offset, length):
    source.load(offset, length, None)
    return np.frombuffer(source.loaded(offset, length), np.uint8)


def test_memory_is_used_again_when_nobody_looks_at_it_any_more():
    data = np.random.default_rng(0).integers(0, 256, 20_000, dtype=np.uint8)
    source = Source(io.BytesIO(data.tobytes()), at_url=True)
    first = loaded(source, 0, 4096)[7:9]
    second = loaded(source, 4096, 4096)[7:9]
    third = loaded(source, 8192, 4096)[7:9]
    assert (first == data[7:9]).all()
    assert (second == data[4103:4105]).all()
    del first, second
    fourth = loaded(source, 12_288, 4096)
    used = {*map(id, source._memories)}
    del fourth
    for start in (0, 4096, 8192):
        assert (loaded(source, start, 4096) == data[start : start + 4096]).all()
    assert {*map(id, source._memories)} == used
    assert (third == data[8199:8201]).all()


def test_memory_is_of_the_size_that_is_needed():
    source = Source(io.BytesIO(bytes(8 << 20)), at_url=True)
    kept = []
    for size, most in ((1 << 20, 2 << 20), (4 << 20, 5 << 20), (100, 1 << 14), (6 << 20, 7 << 20)):
        loaded(source, 0, size)
        kept.append(sum(map(len, source._memories)) < most)
    assert kept == [True] * 4


def test_a_checksum_is_only_taken_if_it_is_to_be_compared(path, monkeypatch):
    ParquetSerializer.save(DataFromList([[1], [2]], shuffle=False), path)
    df = ParquetSerializer.load(path, False, verify="off")
    monkeypatch.setattr(module, "checksum", None)
    loaded(Source(io.BytesIO(DATA), at_url=True), 0, 100)
    with pytest.raises(TypeError):
        Source(io.BytesIO(DATA), at_url=True).load(0, 100, 0)
    monkeypatch.undo()
    taken = []
    monkeypatch.setattr(module, "checksum", lambda data: taken.append(data) or checksum(data))
    assert list(df) == [[1], [2]]
    assert taken == []


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 4000, 4095])
@pytest.mark.parametrize("place", [0, 5, 60])
def test_a_group_lies_well_behind_its_source_and_its_arrays_at_a_line(offset, place):
    source = Source(io.BytesIO(DATA), at_url=True)
    source.load(offset, 5000, None, align=offset + place)
    address = np.frombuffer(source.loaded(offset, 1), np.uint8).ctypes.data
    assert (address + place) % 64 == 0
    assert 64 <= (address - offset) % 4096 < 128


def test_what_lies_outside_of_the_group_is_refused():
    source = Source(io.BytesIO(DATA), at_url=True)
    source.load(100, 50, None)
    assert bytes(source.loaded(100, 50)) == DATA[100:150]
    for start, length in ((99, 10), (140, 11), (150, 1), (0, 200)):
        with pytest.raises(CorruptDataError, match="lie outside of their group"):
            source.loaded(start, length)
