"""TarSerializer: what is saved comes back as it was, in shards or one file, or is refused."""

from __future__ import annotations

import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from dataflow import DataFromGenerator, DataFromList, TarSerializer, dumps
from dataflow.errors import CorruptDataError, UsageError
from dataflow.testing import FailsAt, numbers, same

IMAGES = [[np.full((4, 5, 3), number, np.uint8), number] for number in range(12)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.tar")


def save(rows, path, **options):
    TarSerializer.save(DataFromList(rows, shuffle=False), path, **options)


def extensions(path):
    return TarSerializer.inspect(path)["extensions"]


@pytest.mark.parametrize(
    ("rows", "members"),
    [
        pytest.param(IMAGES, ["df"], id="lists"),
        pytest.param([{"image": np.zeros(3), "name": "a"}], ["df"], id="a dict"),
        pytest.param([{"jpg": b"x", "cls": 3, "json": {"a": [1.5]}}], ["jpg", "cls", "json"], id="extensions"),
        pytest.param([{"jpg": b"x", "cls": True}], ["df"], id="a value of another type"),
        pytest.param([{"__key__": "a/b", "df": 1}], ["df"], id="a component that is called like a whole"),
        pytest.param([{"df": {"df": 1}}], ["df"], id="the same without a key"),
        pytest.param([{"__key__": "ä" * 80, "x.npy": np.arange(3), "df": (1,)}], ["x.npy", "df"], id="long names"),
        pytest.param([{"__key__": "a"}], ["df"], id="a key alone"),
        pytest.param([{}, [], {"": b""}], ["df"], id="nothing in them"),
        pytest.param([], [], id="no datapoints"),
    ],
)
def test_datapoints_come_back_as_they_were(path, rows, members):
    save(rows, path)
    assert extensions(path) == members
    for shuffle in (False, True):
        df = TarSerializer.load(path, shuffle)
        assert len(df) == len(rows)
        assert same(sorted(df, key=str), sorted(rows, key=str))


def test_a_number_of_many_digits_makes_the_datapoint_one_member(path):
    save([{"cls": 7 << 20000}], path)
    assert extensions(path) == ["df"]
    assert list(TarSerializer.load(path)) == [{"cls": 7 << 20000}]


def test_bytes_pass_through_unencoded(path, tmp_path):
    save([{"__key__": "a", "cls": 3, "jpg": b"x"}], path)
    raw = TarSerializer.load(path, decode=False)
    TarSerializer.save(raw, tmp_path / "y.tar", encode=False)
    assert list(TarSerializer.load(tmp_path / "y.tar")) == [{"__key__": "a", "cls": 3, "jpg": b"x"}]
    with pytest.raises(TypeError, match="a dict of bytes with a '__key__'"):
        save(IMAGES, tmp_path / "z.tar", encode=False)
    with pytest.raises(TypeError, match="component 'cls': it is no bytes"):
        save([{"__key__": "a", "cls": 3}], tmp_path / "z.tar", encode=False)


@pytest.mark.parametrize(
    ("dp", "error", "message"),
    [
        ({"__key__": "a", "jpg": np.zeros(3)}, TypeError, "component 'jpg' of the datapoint 'a': it takes bytes.*'df'"),
        ({"__key__": "a", "JPG": b""}, TypeError, "component 'JPG' .* no extension of a file"),
        ({"__key__": "a", "__url__": "x"}, TypeError, "component '__url__' .* no extension of a file"),
        ({"__key__": 3, "jpg": b""}, TypeError, "'__key__' must be a str"),
        ({"__key__": "../a", "jpg": b""}, ValueError, "must be a relative name"),
        ({"__key__": "/a", "jpg": b""}, ValueError, "must be a relative name"),
        ({"__key__": "a.b", "jpg": b""}, ValueError, "without a dot"),
        ({"__key__": "a\0b", "jpg": b""}, ValueError, "must be a relative name"),
        ([object()], TypeError, "cannot serialize component 0"),
    ],
)
def test_what_would_not_come_back_is_refused(path, dp, error, message):
    with pytest.raises(error, match=message) as caught:
        save([[1], dp], path)
    assert caught.value.__notes__ == ["in TarSerializer.save, datapoint 1"]
    assert not os.path.exists(path)


def test_two_datapoints_in_a_row_need_two_keys(path):
    with pytest.raises(ValueError, match="two datapoints in a row have the key 'a', and would be read as one"):
        save([{"__key__": "a", "jpg": b""}, {"__key__": "a", "png": b""}], path)


def test_shards_end_behind_so_many_datapoints_or_bytes(tmp_path):
    save(IMAGES, tmp_path / "x-%02d.tar", shard_size=5)
    assert sorted(os.listdir(tmp_path)) == ["x-00.tar", "x-01.tar", "x-02.tar"]
    assert [len(TarSerializer.load(tmp_path / f"x-0{n}.tar")) for n in range(3)] == [5, 5, 2]
    assert same(list(TarSerializer.load(tmp_path / "x-%02d.tar")), IMAGES)
    save(IMAGES, tmp_path / "y-%d.tar", shard_bytes=3000)
    assert [len(TarSerializer.load(tmp_path / f"y-{n}.tar")) for n in range(4)] == [3, 3, 3, 3]
    save([], tmp_path / "z-%d.tar")
    assert list(TarSerializer.load(tmp_path / "z-%d.tar")) == []


def test_shards_go_to_a_url():
    pytest.importorskip("fsspec")
    save(IMAGES, "memory://shards/x-%02d.tar", shard_size=5)
    assert same(list(TarSerializer.load("memory://shards/x-{00..02}.tar")), IMAGES)
    with pytest.raises(FileExistsError, match="x-00"):
        save(IMAGES, "memory://shards/x-%02d.tar")
    with pytest.raises(TypeError, match="cannot serialize"):
        save([*IMAGES, [object()]], "memory://shards/y-%02d.tar", shard_size=5)
    with pytest.raises(FileNotFoundError):
        TarSerializer.load("memory://shards/y-%02d.tar")


@pytest.mark.parametrize("name", ["x.tar", "x-%d.tar"])
def test_a_failed_save_leaves_nothing_behind(tmp_path, name):
    df = FailsAt(numbers(12), 9, KeyError("no"))
    with pytest.raises(KeyError, match="no"):
        TarSerializer.save(df, tmp_path / name, **({"shard_size": 2} if "%" in name else {}))
    assert os.listdir(tmp_path) == []


def test_a_shard_that_is_there_is_not_mixed_with_others(tmp_path):
    (tmp_path / "x-07.tar").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"x-07\.tar"):
        save(IMAGES, tmp_path / "x-%02d.tar", shard_size=5)
    assert os.listdir(tmp_path) == ["x-07.tar"]


def test_limits_need_a_number_in_the_name(path):
    with pytest.raises(ValueError, match=r"need a number in their name, such as 'x-%06d.tar'"):
        save(IMAGES, path, shard_size=5)
    with pytest.raises(ValueError, match="shard_size must be an integer of at least 1"):
        save(IMAGES, path, shard_size=0)


def test_equal_flows_make_equal_files(tmp_path):
    for name in ("a.tar", "b.tar"):
        TarSerializer.save(DataFromGenerator(lambda: iter(IMAGES)), tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_damages_are_listed_and_what_is_behind_them_is_read(path):
    save(IMAGES, path)
    size = 1024  # of a header and a record
    with open(path, "r+b") as file:
        for at in (2 * size + 600, 5 * size + 600):
            file.seek(at)
            file.write(b"????")
    seen = []
    found = dict(TarSerializer.damages(path, on_record=lambda: seen.append(1)))
    assert [*found] == [2, 5]
    assert "'00000002.df' at byte 2048: " in found[2]
    assert len(seen) == 12
    with open(path, "r+b") as file:
        file.seek(9 * size)
        file.write(b"????")
    found = dict(TarSerializer.damages(path))
    assert f"reading goes on at byte {10 * size}" in found[9]
    assert [*found] == [2, 5, 9]
    with pytest.raises(CorruptDataError):
        TarSerializer.inspect(path)


def archive(path, **members):
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name.replace("_", "."))
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def test_pickles_are_not_called_damage_nor_loaded_unasked(path):
    archive(path, a_txt=b"a cat", b_pyd=pickle.dumps([1]))
    with pytest.raises(UsageError, match=r"x\.tar' holds pickles, .* pass allow_pickle=True"):
        list(TarSerializer.damages(path))
    assert list(TarSerializer.damages(path, allow_pickle=True)) == []


def test_a_pickle_among_records_of_ours_is_damage(path):
    archive(path, a_df=dumps([1]), b_df=pickle.dumps([2]), c_df=dumps([3]))
    ((number, why),) = TarSerializer.damages(path)
    assert (number, "this is a pickle" in why) == (1, True)


def test_inspect_tells_what_a_file_is(path):
    save(IMAGES, path)
    assert TarSerializer.inspect(path) == {
        "format": "tar", "codec": "dataflow", "datapoints": 12, "bytes": 20480, "checksums": "every record",
        "files": 1, "extensions": ["df"],
    }  # fmt: skip
