"""What a TARGET of the command line may be, and what is said of one that is wrong."""

from __future__ import annotations

import pytest

from dataflow import DataFromList, LMDBSerializer, save
from dataflow.cli.target import TargetError, factory, load, reader, writer
from dataflow.errors import UsageError

TEN = [[i, i / 10] for i in range(10)]


@pytest.mark.parametrize(
    ("target", "datapoints"),
    [
        pytest.param("train.py:make_flow", TEN, id="function in a file"),
        pytest.param("./train.py:make_flow", TEN, id="function in a file of a folder"),
        pytest.param("train:make_flow", TEN, id="function in a module of the current directory"),
        pytest.param("my_package.data:make_flow", TEN, id="function in a package"),
        pytest.param("train:Maker.make_flow", TEN, id="function in a class"),
        pytest.param("train:make_list", [[1], [2], [3]], id="function that returns a list"),
        pytest.param("train:make_generator", [[1], [2]], id="generator function"),
        pytest.param("train:flow", [[1], [2], [3]], id="flow"),
        pytest.param("train:rows", [[1], [2]], id="list"),
    ],
)
def test_names_a_flow(folder, target, datapoints):
    assert list(load(target)) == datapoints


def test_a_data_file_is_read_in_its_order(folder):
    LMDBSerializer.save(DataFromList([[i] for i in range(20)], shuffle=False), "train.lmdb")
    with load("train.lmdb") as df:
        assert list(df) == [[i] for i in range(20)]


def test_a_file_with_a_colon_in_its_name_is_a_file(folder):
    LMDBSerializer.save([[1]], "at 12:30.lmdb")
    with load("at 12:30.lmdb") as df:
        assert list(df) == [[1]]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        pytest.param("nothing", r"no such file: 'nothing'.*package\.module:function", id="neither file nor function"),
        pytest.param("nothing.lmdb", r"no such file: 'nothing\.lmdb'", id="no such data file"),
        pytest.param("notes.txt", r"format of 'notes\.txt': the name .* ends in \.arrow", id="unknown suffix"),
        pytest.param("train.py", r"name the function .* train\.py:make_flow", id="code without a function"),
        pytest.param("trian.py:make_flow", r"no such file: 'trian\.py'; did you mean 'train\.py'\?", id="no such code"),
        pytest.param("trian:make_flow", r"no module 'trian'; did you mean 'train'\?", id="no such module"),
        pytest.param("my_package.dta:make", r"'my_package\.dta'; did you mean 'data'\?", id="no such submodule"),
        pytest.param("train.data:make", r"no module 'train\.data'", id="module that is no package"),
        pytest.param(":make", r"':make' names no file or module: say which before .* train\.py:make$", id="no module"),
        pytest.param("a..b:make", r"no module 'a\.\.b'", id="no name of a module"),
        pytest.param("train:mkae_flow", r"'train' has no 'mkae_flow'; did you mean 'make_flow'", id="no such function"),
        pytest.param("train:Maker.flow", r"'train' has no 'Maker\.flow'", id="no such method"),
        pytest.param("train:", r"'train:' names no function: say which .* as in train:make_flow$", id="no function"),
        pytest.param("train.py:", r"'train\.py:' names no function: say .* train\.py:make_flow$", id="none in a file"),
        pytest.param("train:number", r"'train:number' is 7 \(int\): it must be a flow", id="not callable"),
        pytest.param("train:returns_nothing", r"returned None: .*`return` at its end", id="returns None"),
        pytest.param("train:returns_number", r"returned 7 \(int\): it must be a flow", id="returns no flow"),
        pytest.param(
            "train:make_of",
            r"cannot be called without arguments \(missing a required argument: 'size'\).*return make_of\(\.\.\.\)",
            id="needs arguments",
        ),
    ],
)  # fmt: skip
def test_says_what_is_wrong_with_it(folder, target, message):
    with pytest.raises(TargetError, match=message):
        load(target)


def test_an_import_that_fails_inside_the_module_is_an_error_of_the_user(folder):
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        load("needs_more:make")


def test_a_file_called_like_a_module_in_use_does_not_replace_it(folder):
    (folder / "json.py").write_text("def make(): return [[__name__]]")
    import json

    assert list(load("json.py:make")) == [[f"json of {folder}"]]
    assert json.loads("[1]") == [1]


def test_a_file_imports_what_lies_beside_it(folder):
    (folder / "my_package" / "main.py").write_text("from data import make_flow")
    assert list(load("my_package/main.py:make_flow")) == TEN


@pytest.mark.parametrize("suffix", ["lmdb", "tfrecord", "npz", "tar", "h5"])
def test_a_data_file_of_any_format_is_a_flow_in_its_order(folder, suffix):
    rows = [[i, i / 2] for i in range(300)]
    save(DataFromList(rows, shuffle=False), f"x.{suffix}")
    with load(f"x.{suffix}") as df:
        assert list(df) == rows
        assert len(df) == 300


def test_shards_are_a_flow(folder):
    save(DataFromList([[1], [2]], shuffle=False), "x-%03d.tar", shard_size=1)
    for target in ("x-{000..001}.tar", "x-%03d.tar", "x-00{0,1}.tar"):
        with load(target) as df:
            assert list(df) == [[1], [2]]


def test_a_folder_is_the_lmdb_file_in_it(folder):
    (folder / "x").mkdir()
    save(DataFromList([[1], [2]], shuffle=False), "x")
    with load("x") as df:
        assert list(df) == [[1], [2]]


def test_a_url_is_a_data_file(folder):
    with pytest.raises(TargetError, match=r"cannot tell the format of 's3://bucket/train\.txt'"):
        load("s3://bucket/train.txt")


def test_pickles_are_loaded_when_that_is_allowed(folder):
    LMDBSerializer.save(DataFromList([[1]], shuffle=False), "x.lmdb", serializer="pickle")
    with pytest.raises(UsageError, match="this is a pickle"):
        list(load("x.lmdb"))
    assert list(load("x.lmdb", allow_pickle=True)) == [[1]]
    assert list(factory("x.lmdb", allow_pickle=True)()) == [[1]]


def test_options_for_data_files_are_refused_for_code(folder):
    with pytest.raises(TargetError, match=r"--allow-pickle: for data files only, and 'train\.py:make_flow' is code"):
        load("train.py:make_flow", allow_pickle=True)


def test_a_format_that_holds_no_pickles_refuses_the_option(folder):
    (folder / "x.svm").write_text("1 1:2\n")
    with pytest.raises(TargetError, match=r"files like 'x\.svm' take no --allow-pickle: leave it out"):
        load("x.svm", allow_pickle=True)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("train.lmbd", r"no such file: 'train\.lmbd'; did you mean 'train\.lmdb'\?$", id="wrong suffix"),
        pytest.param("train.py", r"'train\.py' is code and no data file; `dataflow save TARGET FILE`", id="code"),
        pytest.param("train.py:flow", r"'train\.py:flow' is code and no data file", id="function"),
        pytest.param("notes.txt", r"cannot tell the format of 'notes\.txt'", id="unknown suffix"),
    ],
)
def test_what_is_no_data_file_is_refused(folder, path, message):
    (folder / "train.lmdb").write_text("")
    with pytest.raises(TargetError, match=message):
        reader(path)


def test_a_format_that_is_only_read_is_not_written():
    with pytest.raises(TargetError, match=r"files like 'x\.svm' are only read here: choose another suffix"):
        writer("x.svm")
    assert writer("x.lmdb") is LMDBSerializer
