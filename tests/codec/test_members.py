"""Components as files of their own: exact or refused, and nothing in them is trusted."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest

from dataflow.codec.members import decode_member, encode_member
from dataflow.errors import CorruptDataError, UsageError
from dataflow.testing import same


@pytest.mark.parametrize(
    ("extension", "value"),
    [
        ("txt", "a ä\n"), ("cls", -7), ("id", 1 << 200), ("jpg", b"\xff\xd8"), ("seg.txt", ""), ("", b"x"),
        pytest.param("cls", 1 - 10**4000, id="4000 digits"),
        ("json", {"a": [1, 2.5, None, True, "ä😀", 10**4000 - 1]}), ("df", (1, {"x": np.arange(3)})),
        ("npy", np.arange(6).reshape(2, 3)), ("npy", np.asfortranarray(np.ones((2, 3), ">f4"))), ("npy", np.array(1j)),
        ("npy", np.zeros((0, 3), "U2")), ("npy", np.zeros(2, [("a", "i4"), ("b", "M8[s]")])),
        ("npy", np.arange(9)[::2]), ("x.npy", np.array([np.nan], np.float16)),
    ],
)  # fmt: skip
def test_values_come_back_as_they_were(extension, value):
    for _ in range(2):  # the second time headers are known
        assert same(decode_member(extension, bytearray(encode_member(extension, value))), value)


def test_numpy_reads_what_is_written_and_the_other_way_round():
    array = np.arange(6, dtype=">i2").reshape(3, 2)
    assert same(np.load(io.BytesIO(encode_member("npy", array))), array)
    file = io.BytesIO()
    np.save(file, array)
    read = decode_member("npy", bytearray(file.getvalue()))
    assert same(read, array)
    assert read.flags.writeable


@pytest.mark.parametrize(
    ("extension", "value", "message"),
    [
        ("jpg", np.zeros(3), "it takes bytes, got ndarray.*'df'"),
        ("txt", b"x", "it takes str, got bytes"),
        ("txt", "\ud800", "not Unicode"),
        ("cls", True, "it takes int, got bool"),
        ("cls", b"3", "it takes int, got bytes"),
        pytest.param("cls", 10**4000, "an int of up to 4000 digits, and this has more.*'df'", id="4001 digits"),
        ("json", [{"a": -(10**5000)}], "an int of up to 4000 digits"),
        ("npy", [1], "it takes ndarray, got list"),
        ("npy", np.array([None]), "does not keep the dtype object"),
        ("npy", np.zeros(2, np.dtype([("a", "i1"), ("b", "i4")], align=True)), "does not keep the dtype"),
        ("json", {"a": (1,)}, r"JSON has no tuple \(at \['a'\]\)"),
        ("json", {1: 1}, "keys that are not str"),
        pytest.param(
            "json", ["\ud83d\ude00"], r"its text is not Unicode .* \(at \[0\]\)\. .*'df'", id="half characters"
        ),
        pytest.param("json", {"a": {"\ud83d": 1}}, r"its text is not Unicode .* \(at \['a'\]\)", id="a half in a key"),
        ("json", np.float64(1), "JSON has no float64"),
        ("pkl", b"x", "nothing is written as .pkl"),
        ("df", object(), "cannot serialize"),
    ],
)
def test_what_would_not_come_back_is_refused(extension, value, message):
    with pytest.raises(TypeError, match=message):
        encode_member(extension, value)


@pytest.mark.parametrize("extension", ["pyd", "pkl", "pickle", "df", "npy"])
def test_pickles_are_loaded_only_if_allowed(extension):
    file = io.BytesIO()
    np.save(file, np.array([None, 1]), allow_pickle=True)
    data = file.getvalue() if extension == "npy" else pickle.dumps([1])
    with pytest.raises(UsageError, match="allow_pickle"):
        decode_member(extension, bytearray(data))
    assert list(decode_member(extension, bytearray(data), allow_pickle=True)) in ([1], [None, 1])


def npy(shape="(2,)", descr="'<i4'", data=bytes(8)):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("extension", "data"),
    [
        ("npy", npy(shape="(1099511627776,)")), ("npy", npy(shape="(-2, -1)")),
        ("npy", npy(shape="(4294967296, 4294967296, 2)")),
        ("npy", npy(descr="'|V0'")), ("npy", npy(descr="__import__('os')")), ("npy", npy(descr="[" * 500)),
        ("npy", npy(data=bytes(7))), ("npy", npy()[:9]), ("npy", b"\x93NUMPY\3\0\xff\xff\xff\xff"), ("npy", b""),
        ("json", b"[" * 100_000), ("json", b"{"), ("json", b"\xff"), ("txt", b"\xff"), ("cls", b"7.5"),
        ("cls", b"1" * 5000),
        ("cls", b"1_0"), ("mp", b"\xdd\xff\xff\xff\xff"), ("df", b""), ("df", b"\xc1DF\x01\xff\xff\xff\xff"),
        ("df", b"x"),
    ],
)  # fmt: skip
def test_hostile_bytes_are_corrupt_data(extension, data):
    with pytest.raises(CorruptDataError):
        decode_member(extension, bytearray(data))
