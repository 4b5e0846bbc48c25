"""Names that stand for several files."""

from __future__ import annotations

import pytest

from dataflow.utils.shards import has_number, last_paths, refuse_braces, shard_paths


@pytest.mark.parametrize(
    ("path", "names"),
    [
        pytest.param("x.tar", ["x.tar"], id="one"),
        pytest.param("x-{08..11}.tar", ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"], id="numbers"),
        pytest.param("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"], id="two braces"),
        pytest.param("{x{a,b}", ["{xa", "{xb"], id="a brace that is none"),
        pytest.param(["{a,b}.tar", "c.tar"], ["a.tar", "b.tar", "c.tar"], id="a list"),
        pytest.param("s3://bucket/x-{0..1}.tar", ["s3://bucket/x-0.tar", "s3://bucket/x-1.tar"], id="a URL"),
    ],
)
def test_braces_stand_for_several_files(path, names):
    assert shard_paths(path) == names


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x-{5..1}.tar", "stands for 0 files"),
        ("x-{0..99999999999}.tar", "stands for 100,000,000,000 files"),
        ("x-{000000..999999}-{000000..999999}.tar", "stands for 1,000,000,000,000 files"),
        ("x-{a}.tar", "must be like"),
        ("x-{a,b-{0..1}}.tar", "braces in braces"),
        ([], "an empty list"),
    ],
)
def test_braces_that_stand_for_nothing_are_refused(path, message):
    with pytest.raises(ValueError, match=message):
        shard_paths(path)


def test_a_number_stands_for_the_files_that_there_are(tmp_path):
    for name in ("x-00.tar", "x-01.tar", "x-1.tar", "x-00.tar.tmp", "y-02.tar"):
        (tmp_path / name).touch()
    assert shard_paths(tmp_path / "x-%02d.tar") == [f"{tmp_path}/x-00.tar", f"{tmp_path}/x-01.tar"]
    (tmp_path / "x-03.tar").touch()
    with pytest.raises(FileNotFoundError, match=r"x-02\.tar"):
        shard_paths(tmp_path / "x-%02d.tar")
    with pytest.raises(FileNotFoundError, match=r"z-0\.tar"):
        shard_paths(tmp_path / "z-%d.tar")


def test_one_number_is_a_pattern_and_two_are_none():
    names = ("x-%d.tar", "x-%06d.tar", "x-%s.tar", "%d-%d.tar", "x.tar", "my%20data.tar", "https://a/b%20c-%06d.tar")
    assert [name for name in names if has_number(name)] == ["x-%d.tar", "x-%06d.tar"]


@pytest.mark.parametrize("name", ["a-{0..2}.tar", "my%20data.tar", "x-%06d.tar"])
def test_the_name_of_a_file_that_exists_is_that_file(tmp_path, name):
    path = str(tmp_path / name)
    (tmp_path / name).touch()
    assert shard_paths(path) == [path]
    assert last_paths(path) == set()


def test_braces_are_no_name_to_write_to():
    refuse_braces("x-%06d.tar")
    with pytest.raises(ValueError, match=r"put a number into the name, such as 'x-%06d\.tar'"):
        refuse_braces("x-{0..2}.tar")
