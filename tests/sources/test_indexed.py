from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from dataflow.errors import CorruptDataError, UsageError
from dataflow.sources.indexed import IndexedData
from dataflow.testing import check_dataflow
from dataflow.utils.open_file import open_binary


class Bytes(IndexedData):
    """A file of single bytes; reads ahead if told to, and takes b"!" for damage."""

    _damage = (ZeroDivisionError,)

    def __init__(self, path: str, shuffle: bool = False, chunk: int = 1, *, seed: int | None = None) -> None:
        super().__init__(path, shuffle, seed)
        self.path, self.chunk = path, chunk

    def _open(self) -> Any:
        return open_binary(self._path)

    def _size(self) -> int:
        return self._opened().seek(0, os.SEEK_END)

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        file = self._opened()

        def read(number: int) -> list[bytes]:
            byte = os.pread(file.fileno(), 1, number)
            if byte == b"!":
                raise self._damaged(number, "an exclamation") if self.chunk > 1 else CorruptDataError("an exclamation")
            return [byte, 1 // (byte != b"0")][:1]

        if self.chunk == 1:
            return map(read, numbers)
        return self._chunks(read, numbers)

    def _chunks(self, read: Any, numbers: Iterator[int]) -> Iterator[Any]:
        while rows := [read(number) for number in islice(numbers, self.chunk)]:
            yield from rows


@pytest.fixture
def path(tmp_path):
    (tmp_path / "x").write_bytes(b"abcdefghijkl")
    return str(tmp_path / "x")


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize("chunk", [1, 5], ids=["one by one", "read ahead"])
def test_keeps_the_contract(path, shuffle, chunk):
    check_dataflow(lambda: Bytes(path, shuffle, chunk), new_process=False)


def test_a_seed_gives_its_order_and_each_pass_another(path):
    df = Bytes(path, True, seed=3)
    first, second = list(df), list(df)
    assert first != second
    assert sorted(first) == sorted(second) == [[byte.encode()] for byte in "abcdefghijkl"]
    assert list(Bytes(path, True, seed=3)) == first


def test_a_replaced_file_is_read_from_the_next_pass_on(path, tmp_path):
    df = Bytes(path)
    it = iter(df)
    assert next(it) == [b"a"]
    (tmp_path / "y").write_bytes(b"xyz")
    os.replace(tmp_path / "y", path)
    assert len(df) == 3
    assert list(df) == [[b"x"], [b"y"], [b"z"]]
    assert next(it) == [b"b"]


def test_a_file_that_nobody_can_tell_from_another_is_opened_by_each_pass(path, tmp_path):
    class Elsewhere(Bytes):
        def _identity(self):
            return None

    df = Elsewhere(path)
    it = iter(df)
    assert next(it) == [b"a"]
    (tmp_path / "y").write_bytes(b"xyz")
    os.replace(tmp_path / "y", path)
    assert list(df) == [[b"x"], [b"y"], [b"z"]]
    assert next(it) == [b"b"]


@pytest.mark.parametrize(
    ("shuffle", "now", "said"),
    [
        pytest.param(False, b"xyz", "has 3 datapoints, and had at least 9", id="in order, smaller"),
        pytest.param(True, b"xyz", "has 3 datapoints, and had 12", id="shuffled, smaller"),
        pytest.param(True, b"abcdefghijklm", "has 13 datapoints, and had 12", id="shuffled, larger"),
    ],
)
def test_a_state_of_a_file_with_another_order_is_refused(path, tmp_path, shuffle, now, said):
    it = iter(Bytes(path, shuffle))
    for _ in range(9):
        next(it)
    df = Bytes(path, shuffle)
    (tmp_path / "x").write_bytes(now)
    df.load_state_dict(it.state_dict())
    with pytest.raises(UsageError, match=rf"/x' {said} when this state was taken: .* begin without the state"):
        iter(df)


def test_a_file_that_grew_goes_on_to_its_new_end(path, tmp_path):
    it = iter(Bytes(path))
    for _ in range(11):
        next(it)
    df = Bytes(path)
    (tmp_path / "x").write_bytes(b"abcdefghijklmn")
    df.load_state_dict(it.state_dict())
    assert list(df) == [[b"l"], [b"m"], [b"n"]]


def test_close_lets_go_of_the_file_and_the_flow_runs_again(path):
    df = Bytes(path)
    assert len(df) == len(list(df)) == 12
    df.close()
    assert df._held is None
    assert len(list(df)) == 12


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_opens_a_file_of_its_own(path):
    df = Bytes(path)
    inherited = (len(df), df._opened())
    child = os.fork()
    if not child:
        os._exit(0 if df._opened() is not inherited[1] and len(list(df)) == 12 else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("chunk", [1, 5], ids=["one by one", "read ahead"])
@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_damage_is_told_with_file_and_record(path, tmp_path, shuffle, chunk):
    (tmp_path / "x").write_bytes(b"abc!e")
    with pytest.raises(CorruptDataError, match=r"/x', record 3: an exclamation") as info:
        list(Bytes(path, shuffle, chunk))
    assert str(info.value).count("record") == 1


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_what_a_library_raises_for_damage_is_damage(path, tmp_path, shuffle):
    (tmp_path / "x").write_bytes(b"ab0d")
    with pytest.raises(CorruptDataError, match=r"/x', record 2: integer division"):
        list(Bytes(path, shuffle))


def test_any_other_error_keeps_its_type_and_gets_a_note(path):
    class Fails(Bytes):
        def _rows(self, numbers):
            return map({0: [b"a"]}.__getitem__, numbers)

    with pytest.raises(KeyError) as info:
        list(Fails(path))
    assert info.value.__notes__ == [f"in {path!r}, record 1"]


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_a_pass_is_never_shorter_than_the_file(path, shuffle):
    class Loses(Bytes):
        def _rows(self, numbers):
            return islice(super()._rows(numbers), 9)

    with pytest.raises(CorruptDataError, match=r"/x' ended after 9 of 12 records"):
        list(Loses(path, shuffle))
