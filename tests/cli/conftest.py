"""A folder with the code and data of a user, in which the command line is run."""

from __future__ import annotations

import sys

import pytest

TRAIN = """
import sys
from dataflow import BatchData, DataFromList, MapData

flow = DataFromList([[1], [2], [3]], shuffle=False)
rows = [[1], [2]]
number = 7


def make_flow():
    return DataFromList([[i, i / 10] for i in range(10)], shuffle=False)


def make_list():
    return [[1], [2], [3]]


def make_generator():
    yield [1]
    yield [2]


def make_of(size):
    return make_flow()


def returns_nothing():
    make_flow()


def returns_number():
    return 7


def empty():
    return []


def chatty():
    print("a word from the factory")
    return MapData(make_flow(), lambda dp: print("a word from the map function") or dp)


def fails_at_once():
    raise ValueError("no data today")


def fails_later():
    return MapData(make_flow(), broken)


def broken(dp):
    if dp[0] == 2:
        raise ValueError("two is\\ntoo much")
    return dp


def ragged():
    return BatchData([[[1, 2]], [[3]]], 2)


def leaves():
    sys.exit(0)


def endless():
    return make_flow().repeat(-1)


def begun():
    print("begun", flush=True)
    yield from endless()


def breaks_a_pipe():
    raise BrokenPipeError("a pipe of the user")


class Maker:
    @staticmethod
    def make_flow():
        return make_flow()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_missing\n")
    (tmp_path / "wrong.py").write_text("def make(:\n")
    (tmp_path / "notes.txt").write_text("nothing to load\n")
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "data.py").write_text(TRAIN)
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file is not None and file.startswith(str(tmp_path)):
            del sys.modules[name]
