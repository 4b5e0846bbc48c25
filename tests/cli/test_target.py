"""What a TARGET of the command line may be, and what is said of one that is wrong."""

from __future__ import annotations

import pytest

from dataflow import DataFromList
from dataflow.cli.target import TargetError, load, serializer
from dataflow.serializers import LMDBSerializer

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
        pytest.param("notes.txt", r"format of 'notes\.txt': a data file ends in \.lmdb", id="unknown suffix"),
        pytest.param("train.py", r"name the function .* train\.py:make_flow", id="code without a function"),
        pytest.param("trian.py:make_flow", r"no such file: 'trian\.py'; did you mean 'train\.py'\?", id="no such code"),
        pytest.param("trian:make_flow", r"no module 'trian'; did you mean 'train'\?", id="no such module"),
        pytest.param("my_package.dta:make", r"'my_package\.dta'; did you mean 'data'\?", id="no such submodule"),
        pytest.param("train.data:make", r"no module 'train\.data'", id="module that is no package"),
        pytest.param(":make", r"no module ''", id="no module at all"),
        pytest.param("a..b:make", r"no module 'a\.\.b'", id="no name of a module"),
        pytest.param("train:mkae_flow", r"'train' has no 'mkae_flow'; did you mean 'make_flow'", id="no such function"),
        pytest.param("train:Maker.flow", r"'train' has no 'Maker\.flow'", id="no such method"),
        pytest.param("train:", r"'train' has no ''", id="no function at all"),
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


def test_a_suffix_without_a_format_names_those_that_have_one():
    with pytest.raises(TargetError, match=r"'train\.h5': a data file ends in \.lmdb"):
        serializer("train.h5")
