"""LMDBData and LMDBDataDecoder: every way to name keys, every file that cannot be read, forks and replaced files."""

from __future__ import annotations

import base64
import gc
import os
import pickle
import shutil
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from dataflow import DataFromList, LMDBData, LMDBDataDecoder, LMDBSerializer, MapData, dumps, loads
from dataflow.errors import CorruptDataError, MissingKeyError, MissingPackageError, UsageError
from dataflow.sources import lmdb_keys
from dataflow.testing import check_dataflow, same
from dataflow.utils import open_lmdb

PAIRS = [[b"%08d" % number, b"value %d" % number] for number in range(7)]


def write(path, pairs, **options):
    """Write an LMDB file as somebody else would."""
    env = lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 24, **options)
    with env.begin(write=True) as txn:
        for key, value in pairs:
            txn.put(key, value)
    env.close()
    return str(path)


@pytest.fixture
def foreign(tmp_path):
    """A file without a list of keys."""
    return write(tmp_path / "foreign.lmdb", PAIRS)


@pytest.fixture
def ours(tmp_path):
    path = str(tmp_path / "ours.lmdb")
    LMDBSerializer.save(DataFromList([[number] for number in range(7)], shuffle=False), path)
    return path


def decode(key, value):
    number = int(value.removeprefix(b"value "))
    return None if number == 3 else [key, number]


def double(key, value, rng):
    return [key, rng.random()]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: LMDBData(path, shuffle=False), id="in the order of the file"),
        pytest.param(lambda path: LMDBData(path), id="shuffled"),
        pytest.param(lambda path: LMDBData(path, keys="{:0>8d}", seed=4), id="shuffled, by a format string"),
        pytest.param(lambda path: LMDBData(path, False, ["00000004", b"00000001"]), id="by a list"),
        pytest.param(lambda path: LMDBDataDecoder(LMDBData(path, shuffle=True), double), id="decoded"),
    ],
)
def test_keeps_the_contract(foreign, make):
    check_dataflow(lambda: make(foreign), new_process=False)


@pytest.mark.slow
def test_keeps_the_contract_in_a_new_process(ours):
    check_dataflow(lambda: LMDBData(ours, shuffle=False))


def test_a_decoder_that_drops_keeps_the_contract(foreign):
    check_dataflow(lambda: LMDBDataDecoder(LMDBData(foreign), decode), exact_length=False, new_process=False)


def test_yields_lists_of_key_and_value_in_the_order_of_the_file(foreign):
    assert list(LMDBData(foreign, shuffle=False)) == PAIRS


def test_shuffles_anew_in_each_pass(foreign):
    df = LMDBData(foreign, seed=1)
    first, second = list(df), list(df)
    assert sorted(first) == sorted(second) == PAIRS
    assert first != second


def test_a_folder_is_read_by_its_data_file(tmp_path):
    write(tmp_path / "data.mdb", PAIRS)
    assert list(LMDBData(tmp_path, shuffle=False)) == PAIRS


def test_paths_may_be_bytes_or_not_utf_8(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(folder)
    LMDBSerializer.save(DataFromList([[1]], shuffle=False), folder + b"/\xe9.lmdb")
    for path in (folder + b"/\xe9.lmdb", os.fsdecode(folder + b"/\xe9.lmdb")):
        assert list(LMDBSerializer.load(path)) == [[1]]
        assert len(LMDBData(path)) == 1


def test_an_empty_file_is_an_empty_flow(tmp_path):
    df = LMDBData(write(tmp_path / "empty.lmdb", []))
    assert list(df) == []
    assert len(df) == 0


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("name", [b"zzzzzzzz", b"00000000"], ids=["before others", "behind others"])
def test_the_list_of_keys_is_never_a_datapoint(tmp_path, shuffle, name):
    path = write(tmp_path / "x.lmdb", [[b"__keys__", dumps([name, b"0" + name])], [name, b"1"], [b"0" + name, b"2"]])
    df = LMDBData(path, shuffle)
    assert sorted(df) == sorted([[name, b"1"], [b"0" + name, b"2"]])
    assert len(df) == 2


# --- keys ---


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param(["00000005", "00000002"], id="list of str"),
        pytest.param([b"00000005", b"00000002"], id="list of bytes"),
        pytest.param(("00000005", b"00000002"), id="tuple of both"),
        pytest.param(np.array(["00000005", "00000002"]), id="array"),
    ],
)
@pytest.mark.parametrize("path", ["foreign", "ours"])
def test_given_keys_are_read_in_their_order(keys, path, request):
    df = LMDBData(request.getfixturevalue(path), shuffle=False, keys=keys)
    assert [key for key, _ in df] == [b"00000005", b"00000002"]
    assert len(df) == 2


def test_given_keys_of_several_lengths_may_repeat(tmp_path):
    path = write(tmp_path / "x.lmdb", [[b"a", b"1"], [b"bcd\0", b"2"], ["é".encode(), b"3"]])
    df = LMDBData(path, shuffle=False, keys=["bcd\0", "é", "a", "a"])
    assert list(df) == [[b"bcd\0", b"2"], ["é".encode(), b"3"], [b"a", b"1"], [b"a", b"1"]]


def test_given_keys_are_shuffled_but_not_in_place(foreign):
    keys = ["00000001", "00000002", "00000003", "00000004"]
    df = LMDBData(foreign, shuffle=True, keys=keys, seed=3)
    orders = [[int(key) for key, _ in df] for _ in range(3)]
    assert [sorted(order) for order in orders] == [[1, 2, 3, 4]] * 3
    assert len(set(map(tuple, orders))) > 1
    assert keys == ["00000001", "00000002", "00000003", "00000004"]


@pytest.mark.parametrize("path", ["foreign", "ours"])
def test_a_format_string_is_formatted_with_every_number(path, request):
    path = request.getfixturevalue(path)
    assert [key for key, _ in LMDBData(path, False, "{:0>8d}")] == [b"%08d" % number for number in range(7)]
    assert sorted(key for key, _ in LMDBData(path, True, "{:0>8d}")) == [b"%08d" % number for number in range(7)]
    assert len(LMDBData(path, keys="{:0>8d}")) == 7


def test_keys_are_listed_in_the_file_or_found_in_it(ours, foreign, monkeypatch):
    assert sorted(LMDBData(foreign)) == PAIRS
    monkeypatch.setattr(lmdb_keys, "all_keys", None)  # must not be needed
    assert sorted(key for key, _ in LMDBData(ours)) == [b"%08d" % number for number in range(7)]


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(pickle.dumps([b"00000001"]), id="pickle"),
        pytest.param(pickle.dumps([b"00000001"], protocol=0), id="old pickle"),
        pytest.param(b"\xff\xff\xff\xff<pyarrow>", id="something else"),
        pytest.param(dumps({"count": 7}, serializer="msgpack-numpy"), id="no list"),
    ],
)
def test_where_the_list_of_keys_is_unreadable_they_are_found(tmp_path, listed):
    path = write(tmp_path / "x.lmdb", [*PAIRS, [b"__keys__", listed]])
    df = LMDBData(path)
    assert sorted(df) == PAIRS
    assert len(df) == 7


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_a_pickled_list_of_keys_is_loaded_when_allowed_only(tmp_path):
    trap = write(tmp_path / "trap.lmdb", [*PAIRS, [b"__keys__", pickle.dumps([b"00000001", Trap()])]])
    path = write(tmp_path / "x.lmdb", [*PAIRS, [b"__keys__", pickle.dumps([b"00000001"])]])
    assert len(list(LMDBData(trap))) == 7
    assert list(LMDBData(path, allow_pickle=True)) == [PAIRS[1]]
    assert len(LMDBData(path, allow_pickle=True)) == 1


def test_a_damaged_list_of_keys_is_an_error(tmp_path):
    listed = bytearray(dumps([b"00000001"]))
    listed[-6] ^= 1
    path = write(tmp_path / "x.lmdb", [*PAIRS, [b"__keys__", bytes(listed)]])
    with pytest.raises(CorruptDataError, match=r"x\.lmdb', the list of keys: a damaged record"):
        len(LMDBData(path))
    assert list(LMDBData(path, shuffle=False)) == PAIRS


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("key", ["8", "0" * 600], ids=["short", "longer than any"])
def test_a_missing_key_is_an_error_that_names_key_and_file(foreign, shuffle, key):
    with pytest.raises(MissingKeyError, match=rf"foreign\.lmdb' has no key b'{key}'.*7 datapoints.*b'00000000'"):
        list(LMDBData(foreign, shuffle, keys=[key]))


def test_a_missing_key_leaves_the_position_before_it(foreign):
    df = LMDBData(foreign, shuffle=False, keys=["00000001", "nothing"])
    it = iter(df)
    assert next(it) == PAIRS[1]
    with pytest.raises(MissingKeyError, match="nothing"):
        next(it)
    resumed = LMDBData(foreign, shuffle=False, keys=["00000001", "00000002"])
    resumed.load_state_dict(df.state_dict())
    assert list(resumed) == [PAIRS[2]]


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        pytest.param("00000001", ValueError, "a place for the number", id="text without a place"),
        pytest.param("{:0>8d}{:d}", ValueError, "a format string for numbers", id="two places"),
        pytest.param("{name}", ValueError, "a format string for numbers", id="named place"),
        pytest.param(["a", ""], ValueError, "must not be empty", id="empty key"),
        pytest.param([1, 2], TypeError, "a list of str or bytes, got 1", id="numbers"),
        pytest.param(b"00000001", TypeError, "a list of str or bytes, or a format string", id="bytes"),
        pytest.param({"a": 1}, TypeError, "a list of str or bytes, or a format string", id="dict"),
    ],
)
def test_wrong_keys_are_refused_at_construction(foreign, keys, error, message):
    with pytest.raises(error, match=message):
        LMDBData(foreign, keys=keys)


def test_other_wrong_arguments_are_refused_at_construction(foreign):
    with pytest.raises(TypeError, match="lmdb_path must be a path, got 7"):
        LMDBData(7)
    with pytest.raises(TypeError, match="shuffle must be True or False"):
        LMDBData(foreign, shuffle=1)
    with pytest.raises(TypeError, match="decoder must be callable"):
        LMDBDataDecoder(LMDBData(foreign), None)
    with pytest.raises(
        TypeError, match=r"lmdb_data must be LMDBData or .*'x\.lmdb' \(str\)\. .* LMDBData\(lmdb_path\)"
    ):
        LMDBDataDecoder("x.lmdb", decode)


# --- decoding ---


def test_the_decoder_is_given_key_and_value_and_drops_with_none(foreign):
    df = LMDBDataDecoder(LMDBData(foreign, shuffle=False), decode)
    assert list(df) == [[b"%08d" % number, number] for number in (0, 1, 2, 4, 5, 6)]
    assert len(df) == 7


def test_the_decoder_and_what_it_reads_are_attributes_and_in_the_repr(foreign):
    data = LMDBData(foreign, shuffle=False)
    df = LMDBDataDecoder(data, decode)
    assert df.lmdb_data is df.ds is data
    assert repr(df) == "LMDBDataDecoder(lmdb_data=LMDBData, decoder=decode)"


def test_an_error_in_the_decoder_says_at_which_datapoint(foreign):
    with pytest.raises(ZeroDivisionError) as info:
        list(LMDBDataDecoder(LMDBData(foreign, shuffle=False), lambda key, value: 1 // (int(key) - 2)))
    assert any("LMDBDataDecoder" in note and "datapoint 2" in note for note in info.value.__notes__)


def test_the_documented_recipe_decodes_in_a_mapper(ours):
    df = MapData(LMDBData(ours, shuffle=False), lambda dp: loads(dp[1]))
    assert list(df) == [[number] for number in range(7)]


# --- position ---


def test_the_state_of_a_long_file_stays_small(tmp_path):
    path = write(tmp_path / "x.lmdb", [[b"%08d" % number, b""] for number in range(10_000)])
    for shuffle in (False, True):
        df = LMDBData(path, shuffle)
        it = iter(df)
        for _ in range(5000):
            next(it)
        assert len(pickle.dumps(df.state_dict())) < 300


def test_keys_of_any_bytes_stand_in_the_position(tmp_path):
    pairs = [[bytes([number, 255 - number, 0]), b"%d" % number] for number in range(4)]
    path = write(tmp_path / "x.lmdb", pairs)
    check_dataflow(lambda: LMDBData(path, shuffle=False), new_process=False)


def test_a_position_in_another_file_is_refused(tmp_path, foreign):
    df = LMDBData(foreign, shuffle=False)
    it = iter(df)
    next(it)
    state = df.state_dict()
    del it
    df.close()
    write(tmp_path / "new.lmdb", [[b"a", b"1"], [b"b", b"2"]])
    os.replace(tmp_path / "new.lmdb", foreign)
    df = LMDBData(foreign, shuffle=False)
    df.load_state_dict(state)
    with pytest.raises(UsageError, match="replaced by another file since this state was taken"):
        iter(df)


@pytest.mark.parametrize(
    ("shuffle", "now", "said"),
    [
        pytest.param(False, 4, "has 4 datapoints, and had at least 5", id="in order, smaller"),
        pytest.param(True, 4, "has 4 datapoints, and had 7", id="shuffled, smaller"),
        pytest.param(True, 9, "has 9 datapoints, and had 7", id="shuffled, larger"),
    ],
)
def test_a_position_in_an_order_of_another_length_is_refused(tmp_path, foreign, shuffle, now, said):
    it = iter(LMDBData(foreign, shuffle))
    for _ in range(5):
        next(it)
    write(tmp_path / "new.lmdb", [[b"%08d" % number, b""] for number in range(now)])
    df = LMDBData(tmp_path / "new.lmdb", shuffle)
    df.load_state_dict(it.state_dict())
    with pytest.raises(UsageError, match=f"{said} when this state was taken"):
        iter(df)


# --- files that cannot be read ---


def test_a_url_is_refused_with_a_way_out():
    with pytest.raises(UsageError, match=r"LMDB is read from this machine only, and 's3://b/x\.lmdb' is a URL: copy"):
        LMDBData("s3://b/x.lmdb")


def test_a_missing_file_is_refused_at_construction(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such LMDB file: '.*nothing\.lmdb'"):
        LMDBData(tmp_path / "nothing.lmdb")
    with pytest.raises(FileNotFoundError, match=r"a folder without an LMDB file in it: '.*data\.mdb'"):
        LMDBData(tmp_path)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"", "it is empty", id="empty"),
        pytest.param(b"hello\n" * 10_000, r"begins with b'hello\\nhello\\n'", id="text"),
        pytest.param(np.random.default_rng(0).bytes(50_000), "is no LMDB file", id="random"),
        pytest.param(bytes(16) + b"\xbe\xef\xc0\xde" + bytes(50_000), "of this kind of machine", id="big-endian"),
        pytest.param(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(50_000), "damaged LMDB file", id="magic alone"),
    ],
)
def test_what_is_no_lmdb_file_is_an_error_that_names_it(tmp_path, content, message, shuffle):
    path = tmp_path / "wrong.lmdb"
    path.write_bytes(content)
    df = LMDBData(path, shuffle)
    for use in (iter, len, iter):
        with pytest.raises(CorruptDataError, match=rf"wrong\.lmdb' .*{message}"):
            use(df)


def cuts(size):
    return sorted({0, 1, 15, 40, 4000, 4095, 4096, 4200, 4500, 8191, 8192, 8193, *range(12_288, size, 4096), size - 1})


@pytest.mark.slow
def test_a_file_that_is_cut_short_is_an_error_and_no_signal(tmp_path):
    whole = write(tmp_path / "whole.lmdb", [[b"%08d" % number, bytes([number]) * 3000] for number in range(60)])
    size = os.path.getsize(whole)
    program = (
        "import sys, dataflow as D\n"
        "from dataflow.errors import CorruptDataError\n"
        "for path in sys.argv[1:]:\n"
        "    for shuffle in (False, True):\n"
        "        try:\n"
        "            list(D.LMDBData(path, shuffle))\n"
        "        except CorruptDataError as error:\n"
        "            assert path in str(error)\n"
        "        else:\n"
        "            raise SystemExit(f'{path} was read')\n"
    )
    paths = []
    for cut in cuts(size):
        paths.append(str(tmp_path / f"cut{cut}.lmdb"))
        shutil.copy(whole, paths[-1])
        os.truncate(paths[-1], cut)
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_is_cut_short_while_it_is_open_is_seen_by_the_next_pass(foreign):
    df = LMDBData(foreign)
    list(df)
    os.truncate(foreign, 8192)
    with pytest.raises(CorruptDataError, match=r"cut short: it has 8,192 bytes of \d"):
        iter(df)


def test_files_of_lmdb_1_are_read(tmp_path):
    path = write(tmp_path / "one.lmdb", PAIRS, lib_version=1)
    assert list(LMDBData(path, shuffle=False)) == PAIRS
    assert sorted(LMDBData(path)) == PAIRS


def test_files_of_lmdb_1_ask_for_a_new_lmdb_where_it_is_old(tmp_path, monkeypatch):
    path = write(tmp_path / "one.lmdb", PAIRS, lib_version=1)

    def refuse(*args, **options):
        raise lmdb.InvalidError("MDB_INVALID: File is not an LMDB file")

    monkeypatch.setattr(lmdb, "open", refuse)
    monkeypatch.setattr(lmdb, "__version__", "2.2.0")
    with pytest.raises(MissingPackageError, match=r"written by LMDB 1\.x, which the package lmdb 2\.2\.0 cannot"):
        len(LMDBData(path))


def test_what_the_operating_system_says_is_told(foreign, monkeypatch):
    def refuse(*args, **options):
        error = lmdb.Error("no")
        error.code = 12
        raise error

    monkeypatch.setattr(lmdb, "open", refuse)
    with pytest.raises(OSError, match=r"Cannot allocate memory: '.*foreign\.lmdb'"):
        len(LMDBData(foreign))


def test_what_lmdb_says_of_a_damaged_page_names_the_file(foreign, monkeypatch):
    def damaged(file, cursor):
        yield from PAIRS[:3]
        raise lmdb.CorruptedError("MDB_CORRUPTED: Located page was wrong type")

    monkeypatch.setattr(open_lmdb.LMDBFile, "items", damaged)
    with pytest.raises(CorruptDataError, match=r"foreign\.lmdb' is damaged near record 2 \(.*MDB_CORRUPTED"):
        list(LMDBData(foreign, shuffle=False))


# --- one file, many readers ---


def test_two_flows_and_two_passes_read_one_file_at_once(foreign):
    a, b = LMDBData(foreign, shuffle=False), LMDBData(foreign, shuffle=False)
    assert list(zip(a, b, iter(a), strict=True)) == [(dp, dp, dp) for dp in PAIRS]


def is_open(path):
    """Whether this process has the file open: then lmdb refuses to open it again."""
    try:
        lmdb.open(path, subdir=False, lock=False).close()
    except lmdb.Error as error:
        return "already open" in str(error)
    return False


def test_the_file_is_closed_when_the_last_reader_lets_go(foreign):
    a, b = LMDBData(foreign), LMDBData(foreign)
    assert not is_open(foreign)
    list(a), list(b)
    a.close()
    assert is_open(foreign)
    it = iter(b)
    del b
    gc.collect()
    assert is_open(foreign)
    assert len(list(it)) == 7
    assert not is_open(foreign)


def test_close_ends_the_running_pass_and_closes_the_file(foreign):
    df = LMDBData(foreign)
    it = iter(df)
    next(it)
    df.close()
    assert not is_open(foreign)
    assert list(it) == []
    assert len(list(df)) == 7


def test_a_file_that_other_code_has_open_is_a_usage_error(foreign):
    env = lmdb.open(foreign, subdir=False, lock=False)
    with pytest.raises(UsageError, match=r"foreign\.lmdb' is open in this process already.*df\.close\(\)"):
        len(LMDBData(foreign))
    env.close()
    assert len(LMDBData(foreign)) == 7


def test_the_next_pass_reads_the_file_that_has_taken_the_place(tmp_path, foreign):
    df = LMDBData(foreign, shuffle=False)
    it = iter(df)
    assert next(it) == PAIRS[0]
    write(tmp_path / "new.lmdb", [[b"new", b"1"]])
    os.replace(tmp_path / "new.lmdb", foreign)
    assert len(LMDBData(foreign)) == 1
    assert list(it) == PAIRS[1:]
    assert list(df) == [[b"new", b"1"]]
    assert len(df) == 1


def test_a_file_that_was_written_to_is_opened_again(foreign):
    df = LMDBData(foreign, shuffle=False)
    list(df)
    program = (
        "import lmdb, sys\n"
        "env = lmdb.open(sys.argv[1], subdir=False, lock=False)\n"
        "with env.begin(write=True) as txn:\n"
        "    txn.put(b'x', b'y')\n"
    )
    subprocess.run([sys.executable, "-c", program, foreign], check=True)
    assert list(df) == [*PAIRS, [b"x", b"y"]]
    assert len(df) == 8


def test_a_file_that_was_deleted_is_missing_in_the_next_pass(foreign):
    df = LMDBData(foreign)
    list(df)
    os.remove(foreign)
    with pytest.raises(FileNotFoundError, match="no such LMDB file"):
        iter(df)


def child_says(answer):
    """Fork; return whether ``answer()`` is true in the child."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if answer() else 1)
        except BaseException:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_forked_child_reads_on_and_anew(foreign, shuffle):
    df = LMDBData(foreign, shuffle, seed=5)
    expected = list(LMDBData(foreign, shuffle, seed=5))
    it = iter(df)
    first = next(it)
    assert child_says(lambda: [first, *it] == expected)
    assert child_says(lambda: len(list(df)) == 7)
    assert child_says(lambda: (df.close(), len(list(LMDBData(foreign))))[1] == 7)
    assert [first, *it] == expected


def test_a_pickled_flow_carries_no_open_file(foreign):
    df = LMDBData(foreign, shuffle=False)
    it = iter(df)
    next(it)
    program = "import pickle, sys; print(list(pickle.load(sys.stdin.buffer)) == pickle.load(sys.stdin.buffer))"
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(df) + pickle.dumps(PAIRS), capture_output=True
    )
    assert done.stdout == b"True\n"


# --- what tensorpack 0.11 wrote ---

OF_TENSORPACK = [
    [np.arange(6, dtype="u1").reshape(2, 3), 7, "cat", b"\x00\xff", 2.5, None, True, np.float32(0.5), [1, "x"]],
    [np.array([1.5, -2.0], ">f4"), -1, "", b"", -0.0, None, False, np.int64(2**40), {"a": {}}],
]
# With TENSORPACK_SERIALIZE=msgpack, on numpy 2.1 and msgpack-numpy 0.4.8.
MSGPACK = [
    [
        b"00000000",
        b"\x99\x85\xc4\x02nd\xc3\xc4\x04type\xa3|u1\xc4\x04kind\xc4\x00\xc4\x05shape\x92\x02\x03\xc4\x04data\xc4\x06"
        b"\x00\x01\x02\x03\x04\x05\x07\xa3cat\xc4\x02\x00\xff\xcb@\x04\x00\x00\x00\x00\x00\x00\xc0\xc3"
        b"\x83\xc4\x02nd\xc2\xc4\x04type\xa3<f4\xc4\x04data\xc4\x04\x00\x00\x00?\x92\x01\xa1x",
    ],
    [
        b"00000001",
        b"\x99\x85\xc4\x02nd\xc3\xc4\x04type\xa3>f4\xc4\x04kind\xc4\x00\xc4\x05shape\x91\x02\xc4\x04data\xc4\x08"
        b"?\xc0\x00\x00\xc0\x00\x00\x00\xff\xa0\xc4\x00\xcb\x80\x00\x00\x00\x00\x00\x00\x00\xc0\xc2"
        b"\x83\xc4\x02nd\xc2\xc4\x04type\xa3<i8\xc4\x04data\xc4\x08\x00\x00\x00\x00\x00\x01\x00\x00\x81\xa1a\x80",
    ],
    [b"__keys__", b"\x92\xc4\x0800000000\xc4\x0800000001"],
]
# With its default, pickle, on numpy 2.1; in base64.
PICKLED = [
    [
        b"00000000",
        base64.b64decode(
            "gAWV9wAAAAAAAABdlCiME251bXB5Ll9jb3JlLm51bWVyaWOUjAtfZnJvbWJ1ZmZlcpSTlCiWBgAAAAAAAAAAAQIDBAWUjAVudW1w"
            "eZSMBWR0eXBllJOUjAJ1MZSJiIeUUpQoSwOMAXyUTk5OSv////9K/////0sAdJRiSwJLA4aUjAFDlHSUUpRLB4wDY2F0lEMCAP+U"
            "R0AEAAAAAAAAToiMFm51bXB5Ll9jb3JlLm11bHRpYXJyYXmUjAZzY2FsYXKUk5RoB4wCZjSUiYiHlFKUKEsDjAE8lE5OTkr/////"
            "Sv////9LAHSUYkMEAAAAP5SGlFKUXZQoSwGMAXiUZWUu"
        ),
    ],
    [
        b"00000001",
        base64.b64decode(
            "gAWV+AAAAAAAAABdlCiME251bXB5Ll9jb3JlLm51bWVyaWOUjAtfZnJvbWJ1ZmZlcpSTlCiWCAAAAAAAAAA/wAAAwAAAAJSMBW51"
            "bXB5lIwFZHR5cGWUk5SMAmY0lImIh5RSlChLA4wBPpROTk5K/////0r/////SwB0lGJLAoWUjAFDlHSUUpRK/////4wAlEMAlEeA"
            "AAAAAAAAAE6JjBZudW1weS5fY29yZS5tdWx0aWFycmF5lIwGc2NhbGFylJOUaAeMAmk4lImIh5RSlChLA4wBPJROTk5K/////0r/"
            "////SwB0lGJDCAAAAAAAAQAAlIaUUpR9lIwBYZR9lHNlLg=="
        ),
    ],
    [
        b"__keys__",
        base64.b64decode("gAWVGwAAAAAAAABdlChDCDAwMDAwMDAwlEMIMDAwMDAwMDGUZS4="),
    ],
]
# An array as numpy 1 pickled it, and Python 2: [array([5, 6], "u1")].
OLD_PICKLE = (
    b"\x80\x02]q\x00cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03c_codecs\nencode\n"
    b"q\x04X\x01\x00\x00\x00bq\x05X\x06\x00\x00\x00latin1q\x06\x86q\x07Rq\x08\x87q\tRq\n(K\x01K\x02\x85q\x0bcnumpy\n"
    b"dtype\nq\x0cX\x02\x00\x00\x00u1q\rK\x00K\x01\x87q\x0eRq\x0f(K\x03X\x01\x00\x00\x00|q\x10NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tq\x11b\x89h\x04X\x02\x00\x00\x00\x05\x06q\x12h\x06\x86q\x13Rq\x14tq\x15ba."
)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("pairs", "allow_pickle"), [(MSGPACK, False), (PICKLED, True)], ids=["msgpack", "pickle"])
def test_what_tensorpack_wrote_is_read(tmp_path, pairs, allow_pickle, shuffle):
    path = write(tmp_path / "x.lmdb", pairs)
    df = LMDBSerializer.load(path, shuffle, allow_pickle=allow_pickle)
    assert len(df) == 2
    assert same(sorted(df, key=lambda dp: -dp[1]), OF_TENSORPACK)


def test_arrays_that_numpy_1_pickled_are_read(tmp_path):
    path = write(tmp_path / "x.lmdb", [[b"00000000", OLD_PICKLE]])
    assert same(list(LMDBSerializer.load(path, allow_pickle=True)), [[np.array([5, 6], "u1")]])


def test_what_is_written_for_tensorpack_is_what_it_writes(tmp_path):
    for serializer, pairs in (("msgpack-numpy", MSGPACK), ("pickle", PICKLED)):
        path = str(tmp_path / serializer)
        LMDBSerializer.save(DataFromList(OF_TENSORPACK, shuffle=False), path, serializer=serializer)
        if serializer == "pickle":  # whose bytes depend on the versions of Python and numpy
            rows = [pickle.loads(value) for _, value in LMDBData(path, shuffle=False)]
            assert same(rows, OF_TENSORPACK)
            pairs = pairs[-1:]
        env = lmdb.open(path, subdir=False, readonly=True, lock=False)
        with env.begin() as txn:
            assert [txn.get(key) for key, _ in pairs] == [value for _, value in pairs]
        env.close()


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_trap_in_the_list_of_keys_stays_shut_whatever_is_asked_of_the_flow(tmp_path, shuffle):
    trap = write(tmp_path / "trap.lmdb", [*PICKLED[:2], [b"__keys__", pickle.dumps([b"00000000", Trap()])]])
    for df in (LMDBData(trap, shuffle), LMDBSerializer.load(trap, shuffle)):
        df.reset_state()
        assert len(df) == 2
        assert "trap.lmdb" in repr(df)
    assert sorted(LMDBData(trap, shuffle)) == PICKLED[:2]
    with pytest.raises(UsageError, match=r"this is a pickle, .*pass allow_pickle=True"):
        next(iter(LMDBSerializer.load(trap, shuffle)))
