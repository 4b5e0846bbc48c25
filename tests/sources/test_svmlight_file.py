"""SVMLightData: what scikit-learn reads, and what it must not be given."""

from __future__ import annotations

import bz2
import gzip
import logging
import sys

import numpy as np
import pytest

from dataflow.errors import CorruptDataError, MissingPackageError, UsageError
from dataflow.sources import svmlight_file
from dataflow.sources.svmlight_file import SVMLightData
from dataflow.testing import check_dataflow

TEXT = b"# a comment\n1 1:0.5 3:2\n-1 2:1e3 # another\n\n3.5\n0 qid:7 1:-1 4:nan\n"
ROWS = [[0.5, 0, 2, 0], [0, 1000, 0, 0], [0, 0, 0, 0], [-1, 0, 0, np.nan]]
LABELS = [1, -1, 3.5, 0]


@pytest.fixture
def write(tmp_path):
    def write(content, name="x.svm"):
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    return write


class NoScikitLearn:
    @staticmethod
    def find_spec(name, *_):
        if name == "sklearn":
            raise ModuleNotFoundError(name=name)


def rows_of(df):
    return [x.tolist() for x, _ in df]


@pytest.mark.parametrize("shuffle", [False, True])
def test_keeps_the_contract(write, shuffle):
    path = write(b"".join(b"%d 1:%d 5:1\n" % (number, number) for number in range(9)))
    check_dataflow(lambda: SVMLightData(path, shuffle), new_process=False)


def test_yields_a_dense_row_and_its_label_for_each_line(write):
    df = SVMLightData(write(TEXT), shuffle=False)
    dps = list(df)
    np.testing.assert_array_equal([x for x, _ in dps], ROWS)
    assert [y for _, y in dps] == LABELS
    assert {(x.dtype, x.shape, x.flags.writeable) for x, _ in dps} == {(np.dtype("f8"), (4,), True)}
    assert {type(y) for _, y in dps} == {np.float64}
    assert len(df) == 4


def test_a_state_of_a_longer_file_is_refused(write):
    it = iter(SVMLightData(write(b"1 1:1\n2 1:2\n3 1:3\n"), shuffle=False))
    for _ in range(3):
        next(it)
    df = SVMLightData(write(b"7 1:1\n8 1:2\n"), shuffle=False)
    df.load_state_dict(it.state_dict())
    with pytest.raises(UsageError, match="has 2 datapoints, and had at least 3 when this state was taken"):
        iter(df)


def test_a_row_belongs_to_its_consumer(write):
    df = SVMLightData(write(b"1 1:2\n"))
    next(iter(df))[0][:] = 7
    assert rows_of(df) == [[2]]


def test_reads_what_scikit_learn_writes(tmp_path):
    from sklearn.datasets import dump_svmlight_file

    x = np.random.default_rng(0).normal(size=(50, 7)).round(6) * (np.arange(7) % 2)
    dump_svmlight_file(x, np.arange(50), str(tmp_path / "x.svm"), zero_based=False)
    df = SVMLightData(tmp_path / "x.svm", shuffle=False, n_features=7)
    np.testing.assert_array_equal([row for row, _ in df], x)


def test_shuffles_anew_in_each_pass(write):
    df = SVMLightData(write(b"".join(b"%d 1:1\n" % number for number in range(20))), seed=1)
    first, second = [float(y) for _, y in df], [float(y) for _, y in df]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second


def test_features_count_from_0_where_one_is_number_0(write):
    assert rows_of(SVMLightData(write(b"1 0:3 1:4\n"), shuffle=False)) == [[3, 4]]
    assert rows_of(SVMLightData(write(b"1 1:3 2:4\n"), shuffle=False)) == [[3, 4]]


@pytest.mark.parametrize("content", [b"", b"# nothing\n\n"], ids=["empty", "comment"])
def test_a_file_without_a_line_of_data_is_an_empty_flow(write, content):
    df = SVMLightData(write(content))
    assert list(df) == []
    assert len(df) == 0


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".GZ", gzip.compress)])
def test_packed_files_are_unpacked(write, suffix, pack):
    df = SVMLightData(write(pack(TEXT), f"x.svm{suffix}"), shuffle=False)
    np.testing.assert_array_equal([x for x, _ in df], ROWS)


def test_memory_stays_sparse_and_is_freed_by_close(write):
    df = SVMLightData(write(b"".join(b"1 %d:1\n" % number for number in range(1, 100_000, 1000))), shuffle=False)
    x, _ = next(iter(df))
    assert x.nbytes == 8 * 99_001
    assert sum(array.nbytes for array in df._table[:4]) < 10_000
    df.close()
    assert df._table is None
    assert len(df) == 100


def test_n_features_sets_the_length_of_a_row(write):
    path = write(b"1 1:2\n")
    assert rows_of(SVMLightData(path, n_features=3)) == [[2, 0, 0]]
    with pytest.raises(CorruptDataError, match=r"x\.svm' has 4 features .* Give at least n_features=4"):
        len(SVMLightData(write(TEXT), n_features=3))


@pytest.mark.parametrize("number", [2**27 + 1, 2**31 - 1])
def test_a_row_of_more_than_1_gib_is_refused_before_it_is_made(write, number):
    df = SVMLightData(write(b"1 %d:1\n" % number))
    with pytest.raises(CorruptDataError, match=rf"x\.svm' has {number:,} features .* GiB\. .* n_features={number}"):
        next(iter(df))
    assert len(SVMLightData(df.filename, n_features=number)) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"x 1:1", "could not convert string to float: b'x'", id="label"),
        pytest.param(b"1,2 1:1", "could not convert string to float: b'1,2'", id="two labels"),
        pytest.param(b"1 1:x", "could not convert string to float: b'x'", id="value"),
        pytest.param(b"1 1:", "could not convert", id="no value"),
        pytest.param(b"1 1", "need more than 1 value", id="no colon"),
        pytest.param(b"1 x:1", "invalid literal for int", id="number"),
        pytest.param(b"1 -1:1", "Invalid index -1", id="negative number"),
        pytest.param(b"1 2:1 1:1", "sorted and unique", id="order"),
        pytest.param(b"1 1:1 1:1", "sorted and unique", id="twice"),
        pytest.param(b"1 2147483648:1", "too large", id="number of 32 bits"),
        pytest.param(b"1 99999999999999999999:1", "too large", id="number of 67 bits"),
        pytest.param(b"1 %s:1" % (b"9" * 5000), "integer string conversion", id="number of 5000 digits"),
        pytest.param(b"\x89PNG\r\x00", "could not convert", id="another format"),
    ],
)
def test_a_line_of_another_format_is_an_error_with_file_and_line(write, line, message):
    df = SVMLightData(write(b"1 1:1\n2 1:1\n" + line + b"\n3 1:1\n"))
    for use in (len, iter):
        with pytest.raises(CorruptDataError, match=rf"x\.svm', line 3: .*{message}(.*[^.])?\. Correct or remove it"):
            use(df)


def test_a_file_that_ends_within_a_line_is_read_with_a_warning(write, caplog):
    with caplog.at_level(logging.WARNING, "dataflow"):
        assert rows_of(SVMLightData(write(b"1 1:2\n2 1:3"), shuffle=False)) == [[2], [3]]
    assert [record.getMessage().endswith("it may have been cut off") for record in caplog.records] == [True]


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_packed_file_that_is_cut_off_or_damaged_is_an_error(write, suffix, pack):
    packed = pack(b"".join(b"%d 1:%d\n" % (number, number) for number in range(1000)))
    for content in (packed[:-9], packed[: len(packed) // 2], packed[:30] + bytes(40) + packed[70:], b"no packed file"):
        with pytest.raises(CorruptDataError, match=rf"x\{suffix}' cannot be unpacked"):
            len(SVMLightData(write(content, f"x{suffix}")))


@pytest.mark.parametrize("line", [b"1 1:1\n", b"1"], ids=["many lines", "one line"])
def test_a_small_file_does_not_unpack_to_a_large_one(write, line, monkeypatch):
    monkeypatch.setattr(svmlight_file, "MOST_UNPACKED", 1 << 16)
    packed = gzip.compress(line * (500_000 // len(line)), 9)
    assert len(packed) * 100 < 500_000
    with pytest.raises(CorruptDataError, match=r"x\.gz' unpacks to more than 100 times its size"):
        len(SVMLightData(write(packed, "x.gz")))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"filename": 7}, TypeError, "filename must be a path, got 7"),
        ({"shuffle": 1}, TypeError, "shuffle must be True or False"),
        ({"n_features": 0}, ValueError, "n_features must be an integer of at least 1"),
        ({"filename": "nothing.svm"}, FileNotFoundError, "no such SVMlight file: 'nothing.svm'"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(write, arguments, error, message):
    with pytest.raises(error, match=message):
        SVMLightData(**{"filename": write(TEXT), **arguments})


def test_without_scikit_learn_the_error_says_how_to_get_it(write, monkeypatch):
    df = SVMLightData(write(TEXT))
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoScikitLearn, *sys.meta_path])
    with pytest.raises(MissingPackageError, match=r"SVMLightData needs the package 'sklearn'.*pip install"):
        len(df)


def test_the_repr_shows_the_options(write):
    path = write(TEXT)
    assert repr(SVMLightData(path, False, n_features=9)).endswith("x.svm', shuffle=False, n_features=9)")


def test_inspect_tells_what_a_file_is(write):
    assert SVMLightData.inspect(write(TEXT)) == {
        "format": "SVMlight",
        "codec": "text",
        "datapoints": 4,
        "bytes": len(TEXT),
        "checksums": "none",
        "features": 4,
        "values": 5,
    }


def test_damages_finds_every_line_of_another_format(write):
    seen = []
    path = write(b"x 1:1\n1 1:1\n# comment\n2 1:y\n1 -1:1\n3 1:1\n4 z:1")
    damages = list(SVMLightData.damages(path, on_record=lambda: seen.append(1)))
    assert [number for number, _ in damages] == [0, 3, 4, 6]
    assert "x.svm', line 4: could not convert string to float: b'y'" in damages[1][1]
    assert len(seen) == 7


def test_a_row_that_is_too_long_and_a_damaged_packing_are_faults_of_the_file_and_of_no_line(write):
    ((number, why),) = SVMLightData.damages(write(b"1 1:1\n1 2147483647:1\n"))
    assert number is None
    assert "2,147,483,647 features" in why
    packed = gzip.compress(b"".join(b"%d 1:%d\n" % (number, number) for number in range(1000)))
    for cut in (packed[:-9], packed[:3], b"1 1:1\n"):
        ((number, why),) = SVMLightData.damages(write(cut, "x.gz"))
        assert number is None
        assert "cannot be unpacked" in why


def test_a_whole_file_has_no_damages(write):
    assert list(SVMLightData.damages(write(TEXT))) == []
    with pytest.raises(FileNotFoundError, match="no such SVMlight file"):
        list(SVMLightData.damages("nothing.svm"))
