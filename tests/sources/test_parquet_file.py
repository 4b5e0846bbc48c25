"""Parquet and Arrow files of every program, in order and shuffled; damaged ones are never a shorter pass."""

from __future__ import annotations

import datetime
import random
import sys
import tracemalloc

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.errors import CorruptDataError, UsageError
from dataflow.testing import check_dataflow, same

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from dataflow.codec.columns import Column  # noqa: E402
from dataflow.serializers import parquet as writing  # noqa: E402  # loaded where pyarrow is
from dataflow.serializers.parquet import ArrowSerializer, ParquetSerializer  # noqa: E402
from dataflow.serializers.parquet_write import Summed  # noqa: E402
from dataflow.sources import parquet_file, parquet_groups  # noqa: E402
from dataflow.sources.parquet_file import batch_note  # noqa: E402
from dataflow.sources.parquet_note import NOTE, Note  # noqa: E402

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


def forged(path, groups, sizes=(3, 3), noted=None):
    """Write a file with a note of groups, as any program may, and batches of some sizes."""
    note = Note("list", (Column("0", "int"),), groups).written()
    with pa.ipc.new_file(path, pa.schema([("0", pa.int64())], {NOTE: note})) as writer:
        for number, size in enumerate(sizes):
            batch = pa.record_batch([pa.array(range(size))], ["0"])
            is_last = number == len(sizes) - 1
            written = batch_note(batch, number, noted if is_last else None)
            if is_last and noted is None:
                written = written.replace(b" 0 ", b" 1 ")
            writer.write_batch(batch.replace_schema_metadata({NOTE: note}), custom_metadata={NOTE: written})


@pytest.mark.parametrize(
    "groups", [[[]], [[0]], [[2]], [[3, 3]], [[3], [3]], [[1 << 31]], [[1 << 62]], [[1 << 70]], []], ids=str
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_groups_that_are_noted_and_are_none_are_damage(path, groups, shuffle):
    forged(path, groups)
    for use in (len, list):
        with pytest.raises(CorruptDataError, match="other batches than it notes"):
            use(ArrowSerializer.load(path, shuffle))


@pytest.mark.parametrize(
    "noted", [[], [3], [3, 2], [4, 2], [6, 0], [-1, 3], [1 << 70, 3], [True, 3], [3, 3.0], [3, 3, 0]]
)
def test_batches_that_the_last_one_notes_are_those_that_are_there(path, noted):
    forged(path, [], noted=[3, 3])
    assert list(ArrowSerializer.load(path, False)) == [[0], [1], [2]] * 2
    forged(path, [], noted=noted)
    with pytest.raises(CorruptDataError, match=r"other batches than|other rows are there"):
        list(ArrowSerializer.load(path, False))


def test_files_that_note_the_rows_of_their_first_batch_are_read_as_ever(path):
    forged(path, [[3]], (3, 3, 2))
    assert len(ArrowSerializer.load(path)) == 8
    assert list(ArrowSerializer.load(path, False)) == [[0], [1], [2], [0], [1], [2], [0], [1]]
    forged(path, [[0]], ())
    assert list(ArrowSerializer.load(path)) == []


def test_a_footer_that_names_no_batches_is_damaged_if_there_are_some(path):
    forged(path, [], ())
    with pytest.raises(CorruptDataError, match="its footer names no batches"):
        len(ArrowSerializer.load(path))


def test_each_flipped_bit_of_a_footer_is_found_or_changes_nothing(path):
    save(ArrowSerializer, path, [[number] for number in range(3)])
    with open(path, "rb") as file:
        good = file.read()
    start = len(good) - 10 - int.from_bytes(good[-10:-6], "little")
    found = 0
    for at in range(start, len(good)):
        with open(path, "wb") as file:
            file.write(good[:at] + bytes([good[at] ^ 1 << at % 8]) + good[at + 1 :])
        try:
            assert list(ArrowSerializer.load(path, False)) == [[0], [1], [2]]
        except CorruptDataError:
            found += 1
    assert found > 100


def test_a_stream_and_what_another_program_made_of_our_file_say_what_they_are(path):
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE)
    with pytest.raises(CorruptDataError, match=r"x.file': it is an Arrow stream .*open_stream.*write_feather"):
        len(ArrowSerializer.load(path))
    save(ArrowSerializer, f"{path}.ours")
    with pa.OSFile(f"{path}.ours") as file, pa.ipc.open_file(file) as reader:
        table = reader.read_all()
    write(ArrowSerializer, table.slice(0, 10), path)
    with pytest.raises(CorruptDataError, match=r"another program wrote it anew .* without the metadata of its schema"):
        len(ArrowSerializer.load(path))
    write(ArrowSerializer, table.slice(0, 10).replace_schema_metadata(), path)
    assert [dp["1"] for dp in ArrowSerializer.load(path, False)] == [*range(10)]


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_batches_that_unpack_to_a_thousand_times_their_size_are_not_unpacked(path, compression, monkeypatch):
    monkeypatch.setattr(parquet_file, "_TRAP_BYTES", 1 << 20)
    table = pa.table({"x": np.zeros(1 << 20, np.int64), "y": np.zeros(1 << 20, np.int64)})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    unpacks = compression == "lz4"  # which makes no less than a 255th of anything
    monkeypatch.setattr(parquet_file, "_TRAP_RATIO", 1000 if unpacks else 10)
    before = pa.total_allocated_bytes()
    df = ArrowSerializer.load(path, False)
    assert len(df) == 1 << 20
    if unpacks:
        assert next(iter(df)) == {"x": 0, "y": 0}
        return
    with pytest.raises(CorruptDataError, match=r"a group would unpack .* to 16,777,216: a trap"):
        next(iter(df))
    assert pa.total_allocated_bytes() == before


@BOTH
def test_a_long_text_that_is_repeated_takes_memory_once(path, kind):
    text = "x" * (1 << 16)  # 256 MiB of it in all
    words = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0, None] * 2000, pa.int16()), [text, "xxxxx"])
    table = pa.table({"t": words, "n": range(8000)})
    if kind is ParquetSerializer:
        parquet.write_table(table, path, store_schema=False, compression="none")
    else:
        write(kind, table, path, group=8000)
    for shuffle in (False, True):
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        rows = sorted(kind.load(path, shuffle), key=lambda dp: dp["n"])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert [dp["t"] for dp in rows[:4]] == [text, "xxxxx", text, None]
        assert rows[-2]["t"] == text
        assert most < 8 << 20
        assert pa.total_allocated_bytes() - before < 8 << 20
    assert kind.inspect(path)["datapoints"] == 8000


@BOTH
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_column_that_is_named_twice_gives_two_arrays(path, kind, shuffle):
    save(kind, path, IMAGES)
    for first, second in kind.load(path, shuffle, columns=["0", "0"]):
        assert same(first, second)
        assert not np.shares_memory(first, second)


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
    monkeypatch.setattr(parquet_groups, "PIECE", piece)
    monkeypatch.setattr(parquet_file, "_PIECE_BYTES", piece * (30 * 40 + 8 + 24))
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
