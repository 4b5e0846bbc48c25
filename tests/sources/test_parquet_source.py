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


def test_memory_is_used_again_when_nobody_looks_at_it_any_more():
    source = Source(io.BytesIO(DATA), at_url=True)
    source.load(0, 5000, None)
    first = source.part(10, 20)
    source.load(5000, 5000, None)
    second = np.frombuffer(source.part(5000, 5000), np.uint8)[7:9]
    source.load(10_000, 5000, None)
    assert bytes(first) == DATA[10:30]
    del first
    memories = [*map(id, source._memories)]
    for start in range(0, 15_000, 5000):
        source.load(start, 5000, None)
    assert [*map(id, source._memories)] == memories
    assert bytes(second) == DATA[5007:5009]


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 4000, 4095])
@pytest.mark.parametrize("place", [0, 5, 60])
def test_a_group_lies_well_behind_its_source_and_its_arrays_at_a_line(offset, place):
    source = Source(io.BytesIO(DATA), at_url=True)
    source.load(offset, 5000, None, align=offset + place)
    address = np.frombuffer(source.part(offset, 1), np.uint8).ctypes.data
    assert (address + place) % 64 == 0
    assert 64 <= (address - offset) % 4096 < 128


def test_what_lies_outside_of_the_group_is_refused():
    source = Source(io.BytesIO(DATA), at_url=True)
    source.load(100, 50, None)
    assert bytes(source.part(100, 50)) == DATA[100:150]
    for start, length in ((99, 10), (140, 11), (150, 1), (0, 200)):
        with pytest.raises(CorruptDataError, match="lie outside of their group"):
            source.part(start, length)
