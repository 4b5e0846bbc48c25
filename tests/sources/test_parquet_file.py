"""Parquet and Arrow files of every program, in order and shuffled; damaged ones are never a shorter pass."""

from __future__ import annotations

import datetime
import random
import sys

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.errors import CorruptDataError, UsageError
from dataflow.testing import check_dataflow, same

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from dataflow.serializers import parquet as writing  # noqa: E402  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer  # noqa: E402
from dataflow.serializers.parquet_write import Summed  # noqa: E402
from dataflow.sources import parquet_file  # noqa: E402

ROWS = [[np.full((4, 5), number, np.uint8), number, f"t{number}", b"x" * number] for number in range(20)]
BOTH = pytest.mark.parametrize("kind", [ParquetSerializer, ArrowSerializer])
TABLE = pa.table(
    {
        "n": pa.array(range(10), pa.int32()),
        "list": [[float(n)] * n for n in range(10)],
        "struct": [{"a": n} for n in range(10)],
        "when": [datetime.date(2020, 1, 1 + n) for n in range(10)],
        "gaps": [None if n % 2 else "x" for n in range(10)],
    }
)


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.file")


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 150)
    monkeypatch.setattr(writing, "ARROW_BYTES", 150)


def save(kind, path, rows=ROWS):
    kind.save(DataFromList(rows, shuffle=False), path)


def write(kind, table, path, group=4):
    """Write a table as another program does, in groups."""
    if kind is ParquetSerializer:
        parquet.write_table(table, path, row_group_size=group)
    else:
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(path, kind, shuffle):
    save(kind, path, ROWS[:9])  # in groups of four and less
    check_dataflow(lambda: kind.load(path, shuffle), new_process=False)


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_of_other_programs_are_dicts(path, kind, shuffle):
    write(kind, TABLE, path)
    df = kind.load(path, shuffle)
    assert len(df) == 10
    assert sorted(df, key=lambda dp: dp["n"]) == TABLE.to_pylist()
    assert kind.inspect(path)["codec"] is None


@BOTH
def test_times_that_python_cannot_hold_are_refused_with_a_way_out(path, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)  # which has such times
    write(kind, pa.table({"t": pa.array([1, 2], pa.timestamp("ns")), "n": [1, 2]}), path)
    with pytest.raises(UsageError, match=r"nanoseconds, .* in column 't'\. Cast it to 'us'"):
        list(kind.load(path))
    assert list(kind.load(path, False, columns=["n"])) == [{"n": 1}, {"n": 2}]


def test_tensors_of_other_programs_are_arrays(path):
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(24.0).reshape(4, 2, 3))
    write(ArrowSerializer, pa.table({"x": tensors}), path)
    for dp, expected in zip(ArrowSerializer.load(path, False), np.arange(24.0).reshape(4, 2, 3), strict=True):
        assert same(dp["x"], expected)


@BOTH
def test_only_some_columns_are_read(path, kind):
    write(kind, TABLE, path)
    assert list(kind.load(path, False, columns=["gaps", "n"]))[1] == {"gaps": None, "n": 1}
    with pytest.raises(ValueError, match="has no column 'm', only 'n', 'list'"):
        len(kind.load(path, columns=["m"]))
    with pytest.raises(TypeError, match="columns must be a list of names"):
        kind.load(path, columns="n")


@BOTH
def test_what_is_no_such_file_is_corrupt_data(path, kind):
    for data in (b"", b"PAR1", b"ARROW1", b"x" * 5000):
        with open(path, "wb") as file:
            file.write(data)
        with pytest.raises(
            CorruptDataError, match=r"x.file' is no (Parquet|Arrow) file, or a damaged .* Copy it again"
        ):
            len(kind.load(path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        kind.load(f"{path}.other")


def test_batches_that_are_missing_at_the_end_are_missed_at_once(path):
    save(ArrowSerializer, path)
    with pa.OSFile(path) as file, pa.ipc.open_file(file) as reader:
        batches = [reader.get_batch_with_custom_metadata(number) for number in range(reader.num_record_batches - 1)]
        with pa.OSFile(f"{path}.cut", "wb") as cut, pa.ipc.new_file(cut, reader.schema) as writer:
            for batch, noted in batches:
                writer.write_batch(batch, custom_metadata=noted)
    with pytest.raises(CorruptDataError, match="batches at its end are missing"):
        len(ArrowSerializer.load(f"{path}.cut"))


def test_a_file_whose_note_is_lost_is_not_that_of_another_program(path):
    save(ArrowSerializer, path)
    with pa.memory_map(path) as source:
        file = pa.ipc.open_file(source)
        batches = [file.get_batch_with_custom_metadata(number) for number in range(file.num_record_batches)]
        with pa.ipc.new_file(f"{path}.lost", file.schema.remove_metadata()) as writer:
            for batch, noted in batches:
                writer.write_batch(batch.replace_schema_metadata(None), custom_metadata=noted)
    with pytest.raises(CorruptDataError, match="what it notes of its columns is lost"):
        len(ArrowSerializer.load(f"{path}.lost"))


def test_rows_that_unpack_to_a_thousand_times_their_size_are_refused(path, monkeypatch):
    monkeypatch.setattr(parquet_file, "_TRAP_BYTES", 1 << 20)
    parquet.write_table(pa.table({"x": np.zeros(1 << 20, np.int64)}), path, use_dictionary=False, compression="zstd")
    with pytest.raises(CorruptDataError, match=r"a group would unpack .*: a trap"):
        len(ParquetSerializer.load(path))


@BOTH
def test_cuts_and_flips_are_found_or_change_nothing(path, kind):
    save(kind, path)
    with open(path, "rb") as file:
        good = file.read()
    draw = random.Random(11)
    cuts = [good[:cut] for cut in draw.sample(range(len(good)), 20)]
    flips = []
    for _ in range(60):
        flipped = bytearray(good)
        flipped[draw.randrange(len(good))] ^= 1 << draw.randrange(8)
        flips.append(flipped)
    found = 0
    for data in (*cuts, *flips):
        with open(path, "wb") as file:
            file.write(data)
        try:
            assert same(list(kind.load(path, False)), ROWS)
        except CorruptDataError:
            found += 1
    assert found > 50


@pytest.mark.parametrize(("kind", "name"), [(ParquetSerializer, b"dataflow"), (ArrowSerializer, b"dataflow")])
def test_a_note_under_a_damaged_name_is_not_the_file_of_another_program(path, kind, name):
    save(kind, path)
    with open(path, "rb") as file:
        good = file.read()
    with open(path, "wb") as file:
        file.write(good.replace(name, b"fataflow"))
    with pytest.raises(CorruptDataError, match="under the name b'fataflow': damaged"):
        len(kind.load(path))


IMAGES = [[np.full((30, 40), number, np.uint8), number, np.full(3, number)] for number in range(40)]


@pytest.fixture
def undecoded(monkeypatch):
    """The column of each group that pyarrow did not have to decode, or None."""
    seen = []
    view = parquet_file._view

    def noting(*args):
        found = view(*args)
        seen.append(found and found.name)
        return found

    monkeypatch.setattr(parquet_file, "_view", noting)
    return seen


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("piece", [3, 4096])
def test_arrays_that_are_most_of_a_group_are_not_decoded(path, shuffle, piece, undecoded, monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 12_000)
    monkeypatch.setattr(parquet_file, "_PIECE", piece)
    save(ParquetSerializer, path, IMAGES)
    rows = list(ParquetSerializer.load(path, shuffle))
    assert same(sorted(rows, key=lambda dp: dp[1]), IMAGES)
    assert undecoded == ["0"] * 4
    check_dataflow(lambda: ParquetSerializer.load(path, shuffle))


@pytest.mark.parametrize(
    "columns", [["image"], ["a", "image"], ["a.b", "a"], ["a", "a", "image"], ["small", "image"], None]
)
def test_arrays_that_are_not_decoded_stand_beside_all_other_columns(path, columns, monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 12_000)
    rows = [{"a": number, "image": image, "a.b": f"{number}", "small": small} for image, number, small in IMAGES]
    save(ParquetSerializer, path, rows)
    wanted = [{name: dp[name] for name in columns or dp} for dp in rows]
    assert same(list(ParquetSerializer.load(path, False, columns=columns)), wanted)


@pytest.mark.parametrize("kind", ["compressed", "many rows", "much beside", "wide dtype", "by columns", "no axis"])
def test_all_other_arrays_come_out_the_same(path, kind, undecoded, monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 1 << 22)
    options, arrays = {}, [image for image, *_ in IMAGES]
    if kind == "compressed":
        options = {"compression": "zstd"}
    elif kind == "many rows":  # which pyarrow writes in several pages
        arrays = list(np.arange(100_000, dtype=np.uint8).reshape(-1, 2))
    elif kind == "wide dtype":
        arrays = [image.astype("f8") + 1j for image in arrays]
    elif kind == "by columns":
        arrays = [np.asfortranarray(image) for image in arrays]
    elif kind == "no axis":
        arrays = [np.array(image[0, 0], "u8") for image in arrays]
    beside = b"x" * 2000 if kind == "much beside" else None
    rows = [[array, beside] for array in arrays]
    ParquetSerializer.save(DataFromList(rows, shuffle=False), path, **options)
    read = list(ParquetSerializer.load(path, False))
    assert same(read, rows)
    assert all(dp[0].flags.writeable and dp[0].flags.aligned for dp in read)
    assert {*undecoded} == {"0" if kind in ("wide dtype", "by columns", "no axis") else None}


@pytest.mark.parametrize("kept", [slice(None), slice(0, None, 3), slice(9, None, 10)])
@BOTH
def test_arrays_that_are_kept_never_change_while_others_are_read(path, kind, kept, monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 12_000)
    monkeypatch.setattr(writing, "ARROW_BYTES", 12_000)
    save(kind, path, IMAGES)
    df, numbers = kind.load(path, False), range(len(IMAGES))[kept]
    for _ in range(2):
        rows = [dp for dp in df if dp[1] in numbers]
        assert same(rows, IMAGES[kept])


def test_arrays_that_are_said_to_lie_outside_of_their_group_are_damage(path, monkeypatch):
    monkeypatch.setattr(writing, "PARQUET_BYTES", 12_000)
    noted = Summed.noted
    monkeypatch.setattr(Summed, "noted", lambda *args: [at + 100 * (k > 3) for k, at in enumerate(noted(*args))])
    save(ParquetSerializer, path, [[image] for image, *_ in IMAGES])
    with pytest.raises(CorruptDataError, match=r"record 0.*lie outside of their group"):
        list(ParquetSerializer.load(path, False))
