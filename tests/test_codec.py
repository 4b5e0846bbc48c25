import collections
import enum
import os
import pickle
import struct

import google_crc32c
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dataflow import codec
from dataflow.codec import checksum, dumps, loads, record
from dataflow.errors import CorruptDataError, UsageError

try:  # the one dtype of another package that comes with numpy
    from numpy._core._rational_tests import rational
except ImportError:  # numpy 1
    from numpy.core._rational_tests import rational

ANY_LAYOUT = ["dataflow", "msgpack-numpy"]


def nested(depth, wrap=lambda inner: [inner], core=None):
    """Return ``core`` wrapped ``depth`` times."""
    for _ in range(depth):
        core = wrap(core)
    return core


def exactly(value):
    """Return what makes two values the same bit for bit, for assert to compare and to show."""
    if isinstance(value, np.ndarray | np.generic):
        dtype = value.dtype
        flags = (value.flags.c_contiguous, value.flags.f_contiguous)
        kind = (repr(dtype), dtype.type, dtype.isalignedstruct, dtype.metadata)
        return type(value), kind, value.shape, flags, value.tobytes("A")
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(exactly(item)) for item in value)
    if isinstance(value, list | tuple):
        return type(value), list(map(exactly, value))
    if isinstance(value, float):
        return type(value), struct.pack("<d", value)
    if isinstance(value, complex):
        return type(value), struct.pack("<dd", value.real, value.imag)
    return type(value), value


FIELDS = np.dtype([("x", "<i4"), ("y", ">f8", (2,)), ("when", "M8[s]"), ("name", "U3")])
ALIGNED = np.dtype([("a", "i1"), ("b", "i4")], align=True)
OVERLAPPING = np.dtype({"names": ["all", "low"], "formats": ["<u4", "<u2"], "offsets": [0, 0], "itemsize": 12})
TITLED = np.dtype([(("a title", "a"), "i2")])


def filled(dtype, shape=(3,)):
    """Return an array with bytes of every kind in it, among them NaNs with a payload."""
    dtype = np.dtype(dtype)
    if dtype.kind in "bU" or dtype.names:
        return np.ones(shape, dtype) if dtype.kind == "b" else np.zeros(shape, dtype)
    size = dtype.itemsize * int(np.prod(shape))
    return np.frombuffer(bytes(0xFF - n % 256 for n in range(size)), dtype).reshape(shape).copy()


ARRAYS = {
    **{f"dtype {np.dtype(code)}": filled(code) for code in "?bBhHiIlLefdgFDG"},
    "NaN with a payload": np.array([0x7FF8DEADBEEF0001], "u8").view("f8"),
    "big-endian": np.arange(3, dtype=">i4"),
    "datetime64": np.array(["2020-02-29", "NaT"], "M8[ns]"),
    "datetime64 of 25 s": np.arange(3).astype("M8[25s]"),
    "datetime64 without unit": np.array(["NaT"], "M8"),
    "timedelta64": np.arange(3).astype("m8[D]"),
    "text": np.array(["", "hé", "猫"]),
    "bytes": np.array([b"", b"ab\0c"]),
    "raw bytes": filled("V5"),
    "fields": filled(FIELDS),
    "fields in fields": filled([("in", FIELDS, (2, 2)), ("b", "V3")]),
    "aligned fields": filled(ALIGNED),
    "overlapping fields": filled(OVERLAPPING),
    "fields with titles": filled(TITLED),
    "selected fields": np.zeros(3, "i4,f8,u1")[["f2", "f0"]],
    "records": filled(np.dtype((np.record, ALIGNED))),
    "no elements": np.zeros((0, 3), "f4"),
    "no dimension": np.array(7, "i2"),
    "many dimensions": np.arange(2).reshape((1,) * 15 + (2,) + (1,) * 16),
    "Fortran order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "Fortran order with fields": np.asfortranarray(filled(FIELDS, (2, 3))),
    "read-only": np.broadcast_to(np.int8(1), (1,)),
}

SCALARS = {
    "int": 7,
    "largest int of 64 bits": 2**63 - 1,
    "smallest int of 64 bits": -(2**63),
    "int of 65 bits": 2**63,
    "negative int of 65 bits": -(2**63) - 1,
    "int of 4,000 bits": 3**2500,
    "float": 0.1,
    "minus zero": -0.0,
    "infinity": float("inf"),
    "NaN with a payload": struct.unpack("<d", bytes.fromhex("01efbeaddeadf87f"))[0],
    "complex": complex(-0.0, float("nan")),
    "True": True,
    "False": False,
    "None": None,
    "text": "hé猫\0",
    "no text": "",
    "half of a surrogate pair": "file\udc80",
    "bytes": b"\0\xff",
    "bytearray": bytearray(b"\0\xff"),
    **{f"numpy.{type(one).__name__}": one for one in (np.float16(1.5), np.int64(-1), np.bool_(True))},
    "numpy.longdouble": np.longdouble("1.1"),
    "numpy.clongdouble": np.clongdouble(1 + 2j),
    "numpy.datetime64": np.datetime64("2020-02-29T12:00", "ms"),
    "numpy.timedelta64": np.timedelta64(5, "D"),
    "numpy.str_ with a zero behind": np.str_("a\0"),
    "numpy.bytes_ with a zero behind": np.bytes_(b"a\0"),
    "numpy.void": np.void(b"abc"),
    "one of fields": np.ones(1, ALIGNED)[0],
    "one record": np.ones(1, np.dtype((np.record, ALIGNED)))[0],
}

CONTAINERS = {
    "an image and its label": [np.zeros((4, 4, 3), "u1"), 7],
    "a dict": {"image": np.zeros((4, 4), "u1"), "label": 7, "name": "cat"},
    "a tuple": (1, 2.5, "a"),
    "nothing": [],
    "empty containers": [[], (), {}, set(), frozenset(), [[[]]]],
    "nesting": [{"boxes": [np.zeros(4), np.ones(4)], "meta": ({"k": (1, [2, (3,)])},)}, None, [None, 1]],
    "a set": {1, 2, 3},
    "a frozenset in a set": {frozenset({"a", None})},
    "keys of every kind": {"s": 1, 5: 2, 2**70: 3, -1: 4, (1, ("a", None, ()), 2**64): 5, b"b": 6, None: 7, 2.5: 8},
    "a key True": {True: 1, 0: 2},
    "a key 1": {1: 1, False: 2},
    "a key 1.0": {1.0: 1},
    "a key 0.0": {0.0: 1},
    "a key -0.0": {-0.0: 1},
    "a key (1,)": {(1,): 1},
    "a key (True,)": {(True,): 1},
    "keys in their order": {"b": 1, "a": 2},
    "the same array twice": [np.arange(2)] * 2,
    "arrays between scalars": [1, np.arange(3), "a", np.arange(5, dtype="u1"), b"b", np.float32(2)],
}


def by_name(table):
    return [pytest.param(value, id=name) for name, value in table.items()]


EVERYTHING = by_name(ARRAYS) + by_name(SCALARS) + by_name(CONTAINERS)


# What goes in comes out.


@pytest.mark.parametrize("value", EVERYTHING)
@pytest.mark.parametrize("copy", [True, False], ids=["copy", "view"])
def test_a_value_comes_back_bit_for_bit(value, copy):
    assert exactly(loads(dumps(value), copy=copy)) == exactly(value)


@pytest.mark.parametrize("value", EVERYTHING)
def test_a_value_comes_back_as_a_component_without_checksum(value):
    dp = [value, {"key": (value, 1)}]
    assert exactly(loads(memoryview(dumps(dp, checksum=False)))) == exactly(dp)


@pytest.mark.parametrize("value", by_name(CONTAINERS))
def test_pickle_is_read_on_demand(value):
    assert exactly(loads(dumps(value, serializer="pickle"), allow_pickle=True)) == exactly(value)


@pytest.mark.parametrize("serializer", ANY_LAYOUT)
def test_64_levels_come_back(serializer):
    assert loads(dumps(nested(64), serializer=serializer)) == nested(64)


def test_a_long_long_comes_back_as_the_int64_that_numpy_says_it_equals():
    array, scalar = loads(dumps([np.arange(3, dtype="q"), np.longlong(5)]))
    assert array.dtype == np.dtype("q")
    assert (type(scalar), scalar) == (np.int64, 5)


DTYPES = hnp.scalar_dtypes() | hnp.array_dtypes(hnp.scalar_dtypes(), max_size=3)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Lu"]))
    | st.binary()
    | hnp.arrays(DTYPES.filter(lambda dtype: dtype.itemsize), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
    | hnp.scalar_dtypes().flatmap(lambda dtype: hnp.arrays(dtype, 1)).map(lambda array: array[0])
)
KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda keys: st.tuples(keys) | st.tuples(keys, keys),
    max_leaves=3,
)
DATAPOINTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150, database=None)
@given(DATAPOINTS, st.booleans())
def test_any_datapoint_comes_back_bit_for_bit(dp, copy):
    assert exactly(loads(dumps(dp), copy=copy)) == exactly(dp)


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(10)[::2], id="strided"),
        pytest.param(np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2), id="transposed in part"),
        pytest.param(np.broadcast_to(np.arange(3), (2, 3)), id="broadcast"),
        pytest.param(np.arange(4)[::-1], id="reversed"),
        pytest.param(np.zeros((3, 4), FIELDS)[:, ::2], id="strided fields"),
        pytest.param(np.asfortranarray(np.arange(6).reshape(2, 3))[:, 1:2], id="part of Fortran order"),
    ],
)
def test_an_array_with_gaps_comes_back_in_c_order(array):
    assert exactly(loads(dumps(array))) == exactly(array.copy("C"))


def test_datapoints_that_differ_only_in_values_share_their_header():
    first, second = dumps([np.zeros(3), 1, "a"]), dumps([np.ones(3), 2, "bc"])
    (length,) = struct.unpack_from("<I", first, 4)
    assert length > 30
    assert first[: 8 + length] == second[: 8 + length]


def test_equal_datapoints_of_different_types_stay_different():
    dps = [[1], [True], [1.0], (1,), {1: 1}, {True: 1}, {1.0: 1}, [[1]], [{1}], [np.int64(1)], [np.int32(1)], [1 + 0j]]
    assert [exactly(loads(dumps(dp))) for dp in dps] == [exactly(dp) for dp in dps]


def test_shapes_may_vary_without_end():
    dps = [[np.full(n, n % 256, "u1"), n] for n in range(600)]
    assert [exactly(loads(dumps(dp))) for dp in dps] == [exactly(dp) for dp in dps]


def test_a_long_list_of_keys_comes_back():
    keys = [b"%08d" % n for n in range(20_000)]
    assert loads(dumps(keys)) == keys


@pytest.mark.parametrize(
    "wrap",
    [
        bytes,
        bytearray,
        memoryview,
        lambda data: memoryview(bytearray(data)),
        lambda data: memoryview(data + b"  ")[:-2],
        lambda data: np.frombuffer(data, "u1"),
        lambda data: memoryview(np.repeat(np.frombuffer(data, "u1"), 2))[::2],
    ],
    ids=["bytes", "bytearray", "memoryview", "writable view", "part of a view", "array", "strided view"],
)
def test_any_bytes_like_object_is_read(wrap):
    dp = [np.arange(4), "name", 2**70, b"raw"]
    for serializer in ("dataflow", "pickle"):
        data = wrap(dumps(dp, serializer=serializer))
        assert exactly(loads(data, allow_pickle=True)) == exactly(dp)
        assert exactly(loads(data, allow_pickle=True, copy=False, verify=False)) == exactly(dp)


@pytest.mark.parametrize("data", ["text", 5, None, [1]], ids=repr)
def test_what_is_no_bytes_is_a_type_error(data):
    with pytest.raises(TypeError, match="data must be bytes-like, got"):
        loads(data)


# The layout of a record is final: these are the bytes of version 1.


def test_the_bytes_of_a_record_are_these():
    template = msgpack.packb(["list", ["array", "|u1", 2], "int", "str", "bool"])
    header = struct.pack("<I", len(template)) + template + struct.pack("<QQ", 1, 3)
    values = struct.pack("<qQ?", -2, 3, True)
    header += bytes(-(8 + len(header) + len(values)) % 64)
    body = b"\xc1DF\x01" + struct.pack("<I", len(header)) + header + values + b"\7\10\11" + b"cat"
    expected = body + struct.pack("<I", google_crc32c.value(body))

    dp = [np.array([[7, 8, 9]], "u1"), -2, "cat", True]
    assert dumps(dp) == expected
    assert exactly(loads(expected)) == exactly(dp)


def test_a_record_without_checksum_says_so():
    data, plain = dumps([1]), dumps([1], checksum=False)
    assert plain[:4] == b"\xc1df\x01"
    assert plain[4:-4] == data[4:-4]
    assert plain[-4:] == bytes(4)


def test_every_array_lies_at_a_multiple_of_64():
    marks = [np.full(n, 250 - n, "u1") for n in (1, 64, 65, 3)]
    data = dumps([7, marks[0], "text", *marks[1:]])
    assert [data.index(mark.tobytes()) % 64 for mark in marks] == [0, 0, 0, 0]


def test_a_record_of_a_later_version_is_told_apart():
    with pytest.raises(CorruptDataError, match=r"begins with b'\\xc1DF\\x02'.*of a later dataflow"):
        loads(b"\xc1DF\x02" + dumps([1])[4:])


# Memory.


@pytest.mark.parametrize("array", [*by_name(ARRAYS)])
def test_a_copy_is_private_and_writable(array):
    data = dumps([array])
    (copy,) = loads(data)
    assert copy.flags.writeable
    copy.view(np.ndarray).reshape(-1).view(f"V{copy.itemsize}")[:] = bytes(copy.itemsize)
    assert exactly(loads(data)[0]) == exactly(array)


@pytest.mark.parametrize("array", [*by_name(ARRAYS)])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_a_view_is_read_only_and_shares_the_bytes(array, wrap):
    data = wrap(dumps([array]))
    (view,) = loads(data, copy=False)
    assert not view.flags.writeable
    assert np.shares_memory(view, np.frombuffer(data, "u1")) or not array.size


def test_a_view_of_msgpack_numpy_is_read_only_too():
    data = dumps([np.arange(3)], serializer="msgpack-numpy")
    assert not loads(data, copy=False)[0].flags.writeable
    assert loads(data)[0].flags.writeable


def test_a_scalar_with_fields_can_be_written_to():
    (scalar,) = loads(dumps([np.zeros(1, ALIGNED)[0]]), copy=False)
    scalar["b"] = 5
    assert scalar.item() == (0, 5)


def test_renaming_the_fields_of_one_array_renames_no_other():
    data = dumps([np.zeros(1, ALIGNED), np.zeros(1, ALIGNED)[0]])
    for value in loads(data):
        value.dtype.names = ("x", "y")
    assert [value.dtype.names for value in loads(data)] == [("a", "b"), ("a", "b")]


def test_dumps_leaves_the_datapoint_alone():
    dp = {"a": np.arange(6).reshape(2, 3).T, "b": [1, {"c": bytearray(b"x")}]}
    before = exactly(dp)
    dumps(dp)
    assert exactly(dp) == before


# What cannot be kept is refused by its place.


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    pass


Point = collections.namedtuple("Point", "x y")

ITSELF: list = []
ITSELF.append(ITSELF)

REFUSED = {
    "object array": (np.array([None]), "numpy value of dtype object|array of dtype object"),
    "object field": (np.zeros(1, [("a", "i4"), ("b", object)]), "object|'O'"),
    "object field with gaps": (np.zeros(4, [("b", object)])[::2], "object|'O'"),
    "dtype of another package": (np.zeros(1, rational), "dtype rational"),
    "scalar of another package": (rational(1, 2), "rational.*array or bytes first"),
    "masked array": (np.ma.zeros(1), r"masked array.*\.data and \.mask"),
    "recarray": (np.rec.array([(1,)], dtype=[("a", "i4")]), r"subclass of ndarray \(.*recarray\)\. Take np.asarray"),
    "named tuple": (Point(1, 2), r"subclass of tuple \(.*Point\)\. Make it a plain tuple"),
    "ordered dict": (collections.OrderedDict(a=1), "OrderedDict.*plain dict"),
    "default dict": (collections.defaultdict(int), "defaultdict.*plain dict"),
    "int enum": (Number.ONE, "subclass of int .*Number.*plain int"),
    "subclass of str": (Text("a"), "subclass of str"),
    "object": (object(), "a value of type object.*array or bytes first"),
    "memoryview": (memoryview(b"a"), "of type memoryview"),
    "class": (int, "of type type"),
}
if hasattr(np.dtypes, "StringDType"):  # numpy 2
    REFUSED["text of any length"] = (np.array(["a"], np.dtypes.StringDType()), r"dtype StringDType\(\)")


@pytest.mark.parametrize(("value", "why"), [pytest.param(*case, id=name) for name, case in REFUSED.items()])
@pytest.mark.parametrize("serializer", ANY_LAYOUT)
def test_what_would_change_is_refused_by_its_place(value, why, serializer):
    dp = [1, {"meta": (1, 2, 3, value)}]
    for _ in range(2):  # a refusal is not cached
        with pytest.raises(TypeError, match=rf"cannot serialize component 1\['meta'\]\[3\]: .*({why})"):
            dumps(dp, serializer=serializer)


@pytest.mark.parametrize("serializer", ANY_LAYOUT)
def test_a_refused_datapoint_is_named_as_such(serializer):
    with pytest.raises(TypeError, match=r"cannot serialize the datapoint: a value of type object\. .*or pass"):
        dumps(object(), serializer=serializer)


def test_the_refusal_names_pickle_as_a_way_out():
    dp = [1, Point(1, 2)]
    with pytest.raises(TypeError, match="or pass serializer='pickle'"):
        dumps(dp)
    assert loads(dumps(dp, serializer="pickle"), allow_pickle=True) == dp


@pytest.mark.parametrize("dtype", ["V0", [], [("a", "V0")]], ids=repr)
def test_items_without_bytes_are_refused(dtype):
    with pytest.raises(TypeError, match=r"component 0: .*whose items have no bytes"):
        dumps([np.zeros(2, np.dtype(dtype))])


@pytest.mark.parametrize("key", [frozenset(), np.int64(1), Number.ONE, (1, object())], ids=repr)
def test_a_strange_key_is_refused(key):
    with pytest.raises(TypeError, match=r"component 'a'\[0\]: a dict with a key of type .*Use str, int or tuple"):
        dumps({"a": [{key: 1}]})


@pytest.mark.parametrize("serializer", ANY_LAYOUT)
@pytest.mark.parametrize(
    "dp",
    [
        pytest.param([0, ITSELF], id="contains itself"),
        pytest.param([0, nested(64)], id="65 levels"),
        pytest.param([0, nested(64, lambda inner: (inner,))], id="65 tuples"),
    ],
)
def test_endless_nesting_is_refused(dp, serializer):
    with pytest.raises(ValueError, match="component 1: nested deeper than 64 levels, or it contains itself"):
        dumps(dp, serializer=serializer)


def test_a_key_nested_too_deep_is_refused():
    with pytest.raises(TypeError, match="the datapoint: a dict with a key of type tuple"):
        dumps({nested(65, lambda inner: (inner,)): 1})


def test_an_unknown_serializer_is_refused():
    with pytest.raises(ValueError, match="serializer must be one of 'dataflow', 'msgpack-numpy', 'pickle', got 'json'"):
        dumps([1], serializer="json")


# msgpack-numpy, as tensorpack reads and writes it.

KEPT_BY_MSGPACK = {
    "image and label": [np.arange(12, dtype="u1").reshape(2, 2, 3), 7],
    "dict": {"image": np.zeros((2, 2), "f4"), b"raw": b"\0\xff", "text": "猫", "none": None, "flag": True},
    "numpy scalars": [np.float64(0.1), np.float32(0.1), np.int8(-1), np.bool_(True), np.complex64(1j)],
    "complex": [1 + 2j, complex("-inf-0j")],
    "big-endian": [np.arange(3, dtype=">u2")],
    "text arrays": [np.array(["a", "bcd"]), np.array([b"a", b"bcd"])],
    "fields": [np.ones(2, [("x", "<i4"), ("y", "<f8", (2,)), ("in", [("z", "u1")])])],
    "no elements": [np.zeros((0, 3)), np.zeros((), "i2")],
    "ints of 64 bits": [2**64 - 1, -(2**63)],
    "long list": list(range(5000)),
}


@pytest.mark.parametrize("dp", by_name(KEPT_BY_MSGPACK))
def test_msgpack_numpy_reads_what_we_write(dp):
    data = dumps(dp, serializer="msgpack-numpy")
    assert exactly(msgpack_numpy.unpackb(data)) == exactly(dp)


@pytest.mark.parametrize("dp", by_name(KEPT_BY_MSGPACK))
@pytest.mark.parametrize("copy", [True, False], ids=["copy", "view"])
def test_we_read_what_msgpack_numpy_writes(dp, copy):
    data = msgpack_numpy.packb(dp)
    assert exactly(loads(data, copy=copy)) == exactly(msgpack_numpy.unpackb(data))


def test_we_read_raw_bytes_that_msgpack_numpy_takes_for_fields():
    array = filled("V5")
    assert exactly(loads(msgpack_numpy.packb([array]))) == exactly([array])


def test_we_read_padded_fields_that_msgpack_numpy_fills_up():
    (array,) = loads(msgpack_numpy.packb([np.ones(2, ALIGNED)]))
    assert array.dtype == ALIGNED
    assert array["b"].tolist() == [1, 1]


def test_we_read_int_keys_that_tensorpack_cannot():
    assert loads(msgpack_numpy.packb({1: np.int8(2), 3: (4,)})) == {1: 2, 3: [4]}


@pytest.mark.parametrize(
    "old",
    [
        pytest.param({"nd": True, "type": "<i2", "shape": [2], "data": b"\1\0\2\0"}, id="text keys"),
        pytest.param({b"nd": True, b"type": b"<i2", b"shape": [2], b"data": b"\1\0\2\0"}, id="no kind"),
        pytest.param({b"nd": True, b"type": "<i2", b"kind": b"", b"shape": (2,), b"data": b"\1\0\2\0"}, id="new"),
    ],
)
@pytest.mark.parametrize("use_bin_type", [True, False], ids=["bin", "all text"])
def test_older_writers_are_read(old, use_bin_type):
    data = msgpack.packb([old], use_bin_type=use_bin_type)
    assert exactly(loads(data)) == exactly([np.array([1, 2], "<i2")])


def test_bytes_that_an_old_writer_passed_off_as_text_are_read():
    array = np.arange(256, dtype="u1")
    data = msgpack.packb([array], default=msgpack_numpy.encode, use_bin_type=False)
    assert exactly(loads(data)) == exactly([array])


@pytest.mark.parametrize(
    "honest",
    [{"nd": 1}, {"nd": True, "data": b""}, {"complex": True}, {b"nd": 5, b"type": 1, b"data": 2}, {"a": {"nd": []}}],
    ids=repr,
)
def test_a_dict_that_only_looks_like_an_array_stays_a_dict(honest):
    assert loads(msgpack.packb(honest)) == honest


def test_msgpack_numpy_turns_tuples_into_lists_and_fortran_into_c_order():
    dp = (1, {"a": (2, np.asfortranarray(np.eye(2)))})
    assert exactly(loads(dumps(dp, serializer="msgpack-numpy"))) == exactly([1, {"a": [2, np.eye(2)]}])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        pytest.param(2**64, "int of more than 64 bits", id="big int"),
        pytest.param(bytearray(b"a"), "bytearray", id="bytearray"),
        pytest.param({1, 2}, "set", id="set"),
        pytest.param(np.str_("a"), "subclass of str", id="numpy text"),
        pytest.param(np.datetime64("2020"), "dtype datetime64", id="datetime64"),
        pytest.param(np.zeros(1, "M8[s]"), "dtype datetime64", id="datetime64 array"),
        pytest.param(filled("V5"), r"dtype \|V5", id="raw bytes"),
        pytest.param(np.ones(1, ALIGNED), "dtype", id="padded fields"),
        pytest.param(np.ones(1, OVERLAPPING), "dtype", id="overlapping fields"),
        pytest.param(np.ones(1, np.dtype((np.record, "i4,f4"))), "dtype", id="records"),
        pytest.param({1: 2}, "a dict with the key 1", id="int key"),
        pytest.param({b"nd": 1}, "a dict with the key b'nd'", id="key nd"),
        pytest.param({"complex": 1}, "a dict with the key 'complex'", id="key complex"),
    ],
)
def test_what_msgpack_numpy_would_change_is_refused_by_its_place(value, why):
    with pytest.raises(TypeError, match=rf"component 0\['a'\]: .*{why}.*or pass another serializer"):
        dumps([{"a": value}], serializer="msgpack-numpy")


# Bytes that nobody vouches for.

SMALL = [np.arange(6, dtype="<i2").reshape(2, 3), 7, "cat", {"k": 2.5, "n": np.float32(1)}]


@pytest.mark.parametrize("checksum", [True, False], ids=["checked", "unchecked"])
def test_a_record_cut_short_anywhere_is_corrupt(checksum):
    data = dumps(SMALL, checksum=checksum)
    for size in range(len(data)):
        with pytest.raises(CorruptDataError):
            loads(data[:size], verify=False)
        with pytest.raises(CorruptDataError):
            loads(memoryview(data)[:size])


@pytest.mark.parametrize("checksum", [True, False], ids=["checked", "unchecked"])
def test_a_record_with_bytes_behind_it_is_corrupt(checksum):
    with pytest.raises(CorruptDataError, match=r"a record of \d+ bytes whose header promises \d+"):
        loads(dumps(SMALL, checksum=checksum) + b"\0", verify=False)


def flips(data):
    for position in range(len(data)):
        for bit in range(8):
            yield data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


def test_every_flipped_bit_of_a_record_is_found():
    for damaged in flips(dumps(SMALL)):
        with pytest.raises(CorruptDataError):
            loads(damaged)


@pytest.mark.parametrize(("size", "checksum"), [(0x4446 + 3, True), (0x6466 + 3, False)], ids=["checked", "unchecked"])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_a_record_that_msgpack_takes_for_bytes_is_corrupt(wrap, size, checksum):
    data = b"\xc5" + dumps([bytes(size - len(dumps([b""])))], checksum=checksum)[1:]
    assert type(msgpack.unpackb(data)) is bytes
    with pytest.raises(CorruptDataError, match="a record whose first byte is C5, not C1"):
        loads(wrap(data))


def test_bytes_that_begin_as_a_record_goes_on_are_bytes():
    value = b"\x01" + bytes(17_477)
    data = dumps(value, serializer="msgpack-numpy")
    assert data[1:4] == dumps(value)[1:4]
    assert loads(data) == value


def test_an_unverified_record_with_a_flipped_bit_gives_a_value_or_is_corrupt():
    corrupt = 0
    for damaged in flips(dumps(SMALL)):
        try:
            loads(damaged, verify=False)
        except CorruptDataError:
            corrupt += 1
    assert corrupt > 100


def test_a_damaged_record_names_the_way_out():
    data = bytearray(dumps(SMALL))
    data[-10] ^= 1
    with pytest.raises(CorruptDataError, match=r"checksum do not agree\. Copy it again, or write it anew"):
        loads(data)


def bare_record(template, lengths=(), rest=b""):
    """Return an unchecked record of any template, dimensions and bytes behind the header."""
    packed = template if isinstance(template, bytes) else msgpack.packb(template)
    header = struct.pack("<I", len(packed)) + packed + struct.pack(f"<{len(lengths)}Q", *lengths)
    return b"\xc1df\x01" + struct.pack("<I", len(header)) + header + rest + bytes(4)


def test_bare_record_makes_records():
    assert loads(bare_record(["list", "int"], rest=struct.pack("<q", 5))) == [5]


def nd(**fields):
    array = {"nd": True, "type": "|u1", "kind": b"", "shape": [4], "data": bytes(4), **fields}
    return msgpack.packb([{key.encode(): value for key, value in array.items()}])


def test_endless_new_headers_do_not_fill_the_caches():
    for number in range(1000):
        assert loads(bare_record(["dict", [f"{number}"], None])) == {f"{number}": None}
    loads(bare_record(["dict", ["long" * 2000], None]))
    caches = (record._plans, record._skeletons, record._layouts, record._templates)
    assert all(len(cache) <= 256 for cache in caches)
    assert all(len(key) <= 4096 for cache in caches for key in cache)


class Bomb:
    """Make a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def crater(tmp_path):
    return str(tmp_path / "crater")


def test_a_pickle_is_not_loaded_unasked(crater):
    bomb = dumps([Bomb(crater)], serializer="pickle")
    with pytest.raises(UsageError, match=r"this is a pickle, .*runs whatever code.*allow_pickle=True"):
        loads(bomb)
    assert not os.path.exists(crater)
    loads(bomb, allow_pickle=True)
    assert os.path.exists(crater)


def test_a_pickle_in_msgpack_numpy_is_not_loaded_unasked(crater):
    bomb = nd(kind=b"O", type="|O", shape=[1], data=pickle.dumps([Bomb(crater)]))
    with pytest.raises(UsageError, match=r"this is a pickle, .*allow_pickle=True"):
        loads(bomb)
    assert not os.path.exists(crater)
    loads(bomb, allow_pickle=True)
    assert os.path.exists(crater)


def test_object_arrays_of_tensorpack_are_read_on_demand():
    array = np.array([{"a": 1}, None])
    assert loads(msgpack_numpy.packb([array]), allow_pickle=True)[0].tolist() == [{"a": 1}, None]


@pytest.mark.parametrize("place", ["bytes", "numpy.void", "array"])
def test_a_pickle_inside_a_record_stays_bytes(place, crater):
    bomb = pickle.dumps(Bomb(crater))
    value = {"bytes": bomb, "numpy.void": np.void(bomb), "array": np.frombuffer(bomb, "u1")}[place]
    assert exactly(loads(dumps([value]), allow_pickle=True)) == exactly([value])
    assert not os.path.exists(crater)


@pytest.mark.parametrize("size", [2, 10, -1])
def test_a_damaged_pickle_is_corrupt(size):
    with pytest.raises(CorruptDataError, match="a damaged pickle"):
        loads(dumps(["some text"], serializer="pickle")[:size], allow_pickle=True)


def test_the_checksum_is_crc32c_of_any_bytes():
    assert checksum(b"123456789") == 0xE3069283
    assert checksum(memoryview(b"-123456789-")[1:-1]) == 0xE3069283
    assert checksum(memoryview(b"")) == 0


@pytest.mark.parametrize("size", [65535, 65536, 65537, 200_000])
def test_the_checksum_of_a_long_view_is_that_of_its_bytes(size):
    data = bytes(n % 251 for n in range(size))
    assert checksum(memoryview(data)) == google_crc32c.value(data)


def test_the_package_names_what_is_public():
    assert sorted(codec.__all__) == ["SERIALIZERS", "checksum", "dumps", "loads"]
