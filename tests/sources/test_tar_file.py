"""Tar files in WebDataset's naming: every honest one is read, no damaged or hostile one to a shorter end."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import tarfile

import numpy as np
import pytest

from dataflow import DataFromList, TarSerializer
from dataflow.errors import CorruptDataError, UnknownLength, UsageError
from dataflow.testing import check_dataflow, same

ROWS = [[np.full((3, 2), number, np.uint8), number] for number in range(10)]
KEYED = [{"__key__": f"k/{n:03d}", "jpg": b"x" * n, "cls": n, "npy": np.arange(n)} for n in range(10)]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.tar")


@pytest.fixture
def shards(tmp_path):
    TarSerializer.save(DataFromList(KEYED, shuffle=False), tmp_path / "x-%03d.tar", shard_size=4)
    return str(tmp_path / "x-{000..002}.tar")


def pack(path, members):
    """Write a tar file as the standard library does."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def read(path, **options):
    return list(TarSerializer.load(path, **options))


@pytest.mark.parametrize("shuffle", [False, True, "shards"])
def test_keeps_the_contract(shards, shuffle):
    check_dataflow(lambda: TarSerializer.load(shards, shuffle), new_process=False)


def test_keeps_the_contract_at_a_url():
    pytest.importorskip("fsspec")
    TarSerializer.save(DataFromList(ROWS, shuffle=False), "memory://contract/x-%d.tar", shard_size=4)
    check_dataflow(lambda: TarSerializer.load("memory://contract/x-%d.tar"), new_process=False)
    with pytest.raises(UnknownLength):
        len(TarSerializer.load("memory://contract/x-0.tar"))
    with pytest.raises(UsageError, match=r"along the file only: copy it .* shuffle='shards'.*ShuffleData"):
        TarSerializer.load("memory://contract/x-0.tar", shuffle=True)


def test_members_with_one_key_are_one_datapoint(path):
    members = [
        ("./a/1.jpg", b"x"), ("./a/1.seg.PNG", b"y"), ("./a/2.cls", b"7"), ("b.c/2.json", b"[1]"), ("b.c/2.txt", b"t"),
        ("README", b""), ("b.c/._2.txt", b"apple"), ("__about__/x.json", b"?"), ("b.c/3.mp", b"\x81\xa1a\x01"),
    ]  # fmt: skip
    expected = [
        {"__key__": "./a/1", "jpg": b"x", "seg.png": b"y"}, {"__key__": "./a/2", "cls": 7},
        {"__key__": "b.c/2", "json": [1], "txt": "t"}, {"__key__": "b.c/3", "mp": {"a": 1}},
    ]  # fmt: skip
    assert read(pack(path, members)) == expected
    assert read(path, decode=False)[1] == {"__key__": "./a/2", "cls": b"7"}
    assert len(TarSerializer.load(path)) == 4


def test_a_shuffled_pass_draws_from_all_files(shards):
    df = TarSerializer.load(shards, shuffle=True, seed=3)
    first, second = list(df), list(df)
    assert sorted(dp["cls"] for dp in first) == list(range(10))
    assert [dp["cls"] for dp in first] != [dp["cls"] for dp in second] != list(range(10))


def test_shuffled_shards_keep_the_order_within_them(shards):
    passes = [[dp["cls"] for dp in dps] for dps in map(list, [TarSerializer.load(shards, "shards", seed=1)] * 6)]
    assert len({*map(tuple, passes)}) > 1
    for found in passes:
        starts = [n for n in found if n in (0, 4, 8)]
        assert found == [n for start in starts for n in range(start, min(10, start + 4))]


def test_a_position_goes_to_the_datapoint_at_once(shards):
    it = iter(TarSerializer.load(shards))
    for _ in range(6):
        next(it)
    state = json.loads(json.dumps(it.state_dict()))
    assert (state["at"]["shard"], state["at"]["record"]) == (1, 2)
    assert state["at"]["offset"] > 0
    df = TarSerializer.load(shards)
    df.load_state_dict(state)
    assert [dp["cls"] for dp in df] == [6, 7, 8, 9]


def test_a_file_that_shrank_since_the_state_was_taken_is_refused(shards):
    df = TarSerializer.load(shards)
    it = iter(df)
    for _ in range(3):
        next(it)
    state = it.state_dict()
    os.truncate(shards.replace("{000..002}", "000"), 512)
    df.load_state_dict(state)
    with pytest.raises(UsageError, match="replaced by a smaller file"):
        next(iter(df))


@pytest.mark.parametrize("shuffle", [False, True, "shards"])
def test_files_that_are_replaced_during_a_pass_do_not_mix_with_it(shards, tmp_path, shuffle):
    df = TarSerializer.load(shards, shuffle, seed=0)
    it = iter(df)
    given = [next(it)["cls"]]
    newer = [{**dp, "cls": dp["cls"] + 100} for dp in KEYED]
    TarSerializer.save(DataFromList(newer, shuffle=False), tmp_path / "newer-%03d.tar", shard_size=4)
    for number in range(3):
        os.replace(tmp_path / f"newer-{number:03d}.tar", tmp_path / f"x-{number:03d}.tar")
    with pytest.raises(UsageError, match=r"x-00\d\.tar' has been replaced since this pass began"):
        given.extend(dp["cls"] for dp in it)
    assert max(given) < 100
    assert sorted(dp["cls"] for dp in df) == list(range(100, 110))


@pytest.mark.parametrize("shuffle", [False, "shards"])
def test_a_state_of_more_files_is_refused(shards, shuffle):
    it = iter(TarSerializer.load(shards, shuffle, seed=2))
    for _ in range(9):
        next(it)
    df = TarSerializer.load(shards.replace("002", "001"), shuffle, seed=2)
    df.load_state_dict(it.state_dict())
    with pytest.raises(UsageError, match="2 tar files are to be read, and 3 were when this state was taken"):
        iter(df)


def test_pickles_are_loaded_only_if_allowed(path):
    pack(path, [("1.pyd", pickle.dumps([1]))])
    with pytest.raises(UsageError, match="allow_pickle") as caught:
        read(path)
    assert "x.tar', record 0" in caught.value.__notes__[0]
    assert read(path, allow_pickle=True) == [{"__key__": "1", "pyd": [1]}]
    assert read(path, decode=False) == [{"__key__": "1", "pyd": pickle.dumps([1])}]


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_error_names_the_file_that_its_datapoint_is_in(tmp_path, shuffle):
    paths = [pack(tmp_path / "a.tar", [("1.txt", b""), ("2.txt", b"")]), pack(tmp_path / "b.tar", [("3.pyd", b"")])]
    with pytest.raises(UsageError, match="allow_pickle") as caught:
        read(paths, shuffle=shuffle)
    assert "b.tar', record 0" in caught.value.__notes__[0]


@pytest.mark.parametrize("name", ["/etc/x.txt", "../x.txt", "a/../../x.txt", "..\\x.txt"])
def test_names_that_lead_out_of_the_archive_are_refused(path, name):
    pack(path, [("1.txt", b""), (name, b"")])
    with pytest.raises(CorruptDataError, match=r"record 1: the name .* at byte \d+ leads out of the archive"):
        read(path)


def test_two_members_of_one_name_are_refused(path):
    with pytest.raises(CorruptDataError, match=r"record 0: the member '1.TXT' at byte 1024: there is one of that name"):
        read(pack(path, [("1.txt", b"a"), ("1.TXT", b"b")]))


def test_an_error_comes_behind_the_datapoints_before_it(path):
    with open(pack(path, [("1.txt", b"a"), ("2.txt", b"b")]), "r+b") as file:
        file.seek(1024)
        file.write(b"?")
    it = iter(TarSerializer.load(path))
    assert next(it) == {"__key__": "1", "txt": "a"}
    with pytest.raises(CorruptDataError, match=r"x.tar', record 1: no header of a member at byte 1024"):
        next(it)
    with pytest.raises(CorruptDataError, match=r"x.tar', record 1: no header"):
        len(TarSerializer.load(path))


@pytest.mark.parametrize("rows", [ROWS, KEYED], ids=["records", "members"])
def test_a_flipped_bit_is_found_and_its_place_named(path, rows):
    TarSerializer.save(DataFromList(rows, shuffle=False), path)
    with open(path, "rb") as file:
        good = file.read()
    with tarfile.open(path) as tar:
        info = tar.getmembers()[-2]  # behind it the end is described
    for bit in range(0, 8 * info.size, 37):
        flipped = bytearray(good)
        flipped[info.offset_data + bit // 8] ^= 1 << bit % 8
        with open(path, "wb") as file:
            file.write(flipped)
        for shuffle in (False, True):
            df = TarSerializer.load(path, shuffle)
            with pytest.raises(
                CorruptDataError, match=rf"x.tar', record 9.* at byte {info.offset}: .*(checksum|no record)"
            ):
                list(df)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_cut_file_is_never_a_shorter_pass(path, shuffle):
    TarSerializer.save(DataFromList(KEYED[:3], shuffle=False), path)
    with open(path, "rb") as file:
        good = file.read()
    whole = len(good.rstrip(b"\0")) // 512 * 512 + 512 + 1024  # behind it there are only zeros
    for cut in (*range(0, whole, 97), *range(0, whole, 512)):
        with open(path, "wb") as file:
            file.write(good[:cut])
        df = TarSerializer.load(path, shuffle)
        with pytest.raises(CorruptDataError, match=r"x.tar'"):
            list(df)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda blocks: blocks[:8] + [bytes(512)] * len(blocks[8:]), "without the member", id="zeroed"),
        pytest.param(lambda blocks: blocks[:8] + blocks, "not all that were written", id="doubled"),
        pytest.param(lambda blocks: blocks[:4] + blocks[8:], "not all that were written", id="lost"),
        pytest.param(lambda blocks: blocks[4:8] + blocks[:4] + blocks[8:], "in their order", id="in another order"),
    ],
)
def test_whole_members_that_are_lost_or_doubled_are_missed(path, change, message):
    rows = [{"__key__": str(number), "txt": "a", "cls": number} for number in range(4)]  # of four blocks each
    TarSerializer.save(DataFromList(rows, shuffle=False), path)
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(0)
        file.truncate()
        file.write(b"".join(change([data[at : at + 512] for at in range(0, len(data), 512)])))
    for shuffle in (False, True):
        with pytest.raises(CorruptDataError, match=message):
            read(path, shuffle=shuffle)
    number, why = [*TarSerializer.damages(path)][-1]
    assert number is None
    assert message in why
    assert {dp["__key__"] for dp in read(path, verify="off")} <= {"0", "1", "2", "3"}


def test_a_position_keeps_what_is_known_of_the_members_before_it(path):
    TarSerializer.save(DataFromList(KEYED, shuffle=False), path)
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        it = iter(TarSerializer.load(path))
        for _ in range(5):
            next(it)
        offset = it.state_dict()["at"]["offset"]
        data[offset:] = bytes(len(data) - offset)
        file.seek(0)
        file.write(data)
    df = TarSerializer.load(path)
    df.load_state_dict(it.state_dict())
    with pytest.raises(CorruptDataError, match=r"record 5: it ends at byte \d+ without the member"):
        next(iter(df))


@pytest.mark.parametrize("shuffle", [False, True, "shards"])
def test_a_missing_last_file_of_a_numbered_set_is_missed(shards, shuffle):
    pattern = shards.replace("{000..002}", "%03d")
    assert len(read(pattern, shuffle=shuffle)) == 10
    os.unlink(shards.replace("{000..002}", "002"))
    with pytest.raises(CorruptDataError, match=r"x-001\.tar', record 4: it is not the last file .* is missing"):
        read(pattern, shuffle=shuffle)
    assert len(read(pattern, shuffle=shuffle, verify="off")) == 8
    assert len(read(shards.replace("002", "001"), shuffle=shuffle)) == 8  # who names files means no others


def test_archives_that_tar_has_put_together_are_read_as_one(path, tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("needs tar")
    TarSerializer.save(DataFromList(KEYED[:4], shuffle=False), path)
    TarSerializer.save(DataFromList(KEYED[4:], shuffle=False), tmp_path / "y.tar")
    subprocess.run(["tar", "--concatenate", "-f", path, tmp_path / "y.tar"], check=True)
    assert all(map(same, read(path), KEYED))
    assert len(TarSerializer.load(path)) == 10


def test_files_of_webdataset_are_read_and_ours_by_it(tmp_path):
    wds = pytest.importorskip("webdataset")
    rows = [{**dp, "json": {"a": [1]}, "txt": "t"} for dp in KEYED]
    with wds.TarWriter(str(tmp_path / "theirs.tar")) as tar:
        for dp in rows:
            tar.write(dp)
    assert all(map(same, read(tmp_path / "theirs.tar"), [dict(sorted(dp.items())) for dp in rows]))
    TarSerializer.save(DataFromList(rows, shuffle=False), tmp_path / "ours.tar")
    with open(tmp_path / "ours.tar", "rb") as stream:  # opened here, since webdataset never closes what it has opened
        theirs = wds.DataPipeline(
            lambda: wds.tariterators.tar_file_expander([{"url": "ours.tar", "stream": stream}]),
            wds.tariterators.group_by_keys,
            wds.decode(),
        )
        assert all(same({name: dp[name] for name in row}, row) for dp, row in zip(theirs, rows, strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shuffle": "files"}, ValueError, "shuffle must be True, False or 'shards'"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False, got 1"),
        ({"shuffle": np.True_}, TypeError, "shuffle must be True or False, got True .numpy"),
        ({"shuffle": np.arange(2)}, TypeError, "shuffle must be True or False, got a ndarray"),
        ({"verify": "sometimes"}, ValueError, "verify must be one of"),
        ({"decode": 1}, TypeError, "decode must be True or False"),
    ],
)
def test_wrong_options_are_refused(path, options, error, message):
    with pytest.raises(error, match=message):
        TarSerializer.load(path, **options)
    with pytest.raises(FileNotFoundError, match=r"no such tar file.*x\.tar"):
        TarSerializer.load(path)
