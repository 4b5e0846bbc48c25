from __future__ import annotations

import enum
from collections import OrderedDict, namedtuple

import numpy as np
import pytest

from dataflow.utils.describe import describe, describe_one

Point = namedtuple("Point", "x y")
Colour = enum.IntEnum("Colour", "RED")


class Tensor:
    """What a framework's tensor looks like from outside; its values are on another device."""

    dtype = "torch.float32"
    shape = (3, 4)

    def __array__(self, *_):
        raise RuntimeError("would copy")

    min = max = __repr__ = __array__


class Hostile:
    """Nothing about it can be asked."""

    @property
    def shape(self):
        raise RuntimeError("no")

    __len__ = __repr__ = __str__ = __bool__ = __eq__ = lambda *_: 1 / 0
    __hash__ = None


class HostileList(list):
    __bool__ = __len__ = __iter__ = lambda *_: 1 / 0


class HostileInt(int):
    __str__ = __repr__ = lambda *_: 1 / 0


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (1.5, "float with value 1.5"),
        (0.0816501893251, "float with value 0.0816501893251"),
        (7, "int with value 7"),
        (True, "bool with value True"),
        (None, "NoneType"),
        (1 + 2j, "complex with value (1+2j)"),
        (10**300, "int of 997 bits"),
        (Colour.RED, "Colour with value 1"),
        ("s", "str with value s"),
        ("déjà", "str with value déjà"),
        ("two\nlines\t", r"str with value two\nlines\t"),
        ("\ud800", r"str with value \ud800"),
        ("a" * 1000, "str with value " + "a" * 60 + "... of len 1000"),
        (b"ab\0", r"bytes with value b'ab\x00'"),
        (b"a" * 1000, "bytes of len 1000"),
        (bytearray(20), "bytearray of len 20"),
        ([1, 2], "list of len 2"),
        ((), "tuple of len 0"),
        (Point(1, 2), "Point of len 2"),
        ({"x": 1}, "dict of len 1"),
        ({1, 2}, "set of len 2"),
        (np.float32(2), "float32 with value 2.0"),
        (np.int64(2), "int64 with value 2"),
        (np.bool_(True), "bool with value True"),
        (np.str_("s"), "str_ with value s"),
        (np.bytes_(b"a" * 1000), "bytes_ of len 1000"),
        (np.datetime64("2020-01-02"), "datetime64 with value 2020-01-02"),
        (np.zeros(1, "i4,f4")[0], "void:[('f0', '<i4'), ('f1', '<f4')]"),
        (np.arange(3, dtype=np.int32), "ndarray:int32 of shape (3,) in range [0, 2]"),
        (np.array([-1.2248, 1.2177]), "ndarray:float64 of shape (2,) in range [-1.2248, 1.2177]"),
        (np.array([0.84, 0], "f4"), "ndarray:float32 of shape (2,) in range [0.0000, 0.8400]"),
        (np.array([1e-7, 1e9]), "ndarray:float64 of shape (2,) in range [1e-07, 1e+09]"),
        (np.array([1, -np.inf], "f2"), "ndarray:float16 of shape (2,) in range [-inf, 1.0000]"),
        (np.array([1, np.nan, 2, np.nan]), "ndarray:float64 of shape (4,) in range [1.0000, 2.0000], 2 NaN"),
        (np.array([np.nan]), "ndarray:float64 of shape (1,), 1 NaN"),
        (np.array(5), "ndarray:int64 of shape () in range [5, 5]"),
        (np.zeros((0, 3)), "ndarray:float64 of shape (0, 3)"),
        (np.array([True, False]), "ndarray:bool of shape (2,) in range [False, True]"),
        (np.array([3 + 4j, 0]), "ndarray:complex128 of shape (2,) of magnitude [0.0000, 5.0000]"),
        (np.array(["a", "bc"]), "ndarray:<U2 of shape (2,)"),
        (np.array([b"a"]), "ndarray:|S1 of shape (1,)"),
        (np.array([None, {}], object), "ndarray:object of shape (2,)"),
        (np.zeros(2, "i4,f4"), "ndarray:[('f0', '<i4'), ('f1', '<f4')] of shape (2,)"),
        (
            np.array(["2020-01-01", "NaT", "2021-01-01"], "M8[D]"),
            "ndarray:datetime64[D] of shape (3,) in range [2020-01-01, 2021-01-01], 1 NaT",
        ),
        (np.array([3, 1], "m8[s]"), "ndarray:timedelta64[s] of shape (2,) in range [1 seconds, 3 seconds]"),
        (Tensor(), "Tensor:torch.float32 of shape (3, 4)"),
        (Hostile(), "Hostile"),
        (HostileList(), "HostileList"),
        (HostileInt(3), "HostileInt"),
        (object(), "object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_component_is_described(value, line):
    assert describe_one(value) == line


def test_each_component_has_a_line_with_its_index_or_key():
    assert list(describe([1, "a"])) == ["  0: int with value 1", "  1: str with value a"]
    assert list(describe((1,))) == ["  0: int with value 1"]
    assert list(describe({"image": 1, 7: 2, ("a", 1): 3})) == [
        "  image: int with value 1",
        "  7: int with value 2",
        "  ('a', 1): int with value 3",
    ]


def test_lists_and_dicts_are_looked_into():
    dp = [[1, {"x": (2,)}], OrderedDict(y=3)]
    assert list(describe(dp, max_depth=4)) == [
        "  0: list of len 2",
        "    0: int with value 1",
        "    1: dict of len 1",
        "      x: tuple of len 1",
        "        0: int with value 2",
        "  1: OrderedDict of len 1",
        "    y: int with value 3",
    ]


def test_what_is_nested_too_deep_is_cut():
    assert list(describe([[[[1]], []]], max_depth=2)) == [
        "  0: list of len 2",
        "    0: list of len 1",
        "      ...",
        "    1: list of len 0",
    ]


def test_long_lists_are_cut_and_components_are_not():
    assert list(describe([0, 1, 2, {"a": 3, "b": 4}], max_list=1)) == [
        "  0: int with value 0",
        "  1: int with value 1",
        "  2: int with value 2",
        "  3: dict of len 2",
        "    a: int with value 3",
        "    ...",
    ]


def test_a_datapoint_of_very_many_components_is_cut():
    lines = list(describe([0] * 100_000))
    assert len(lines) == 101
    assert lines[-1] == "  ..."


def test_a_list_that_holds_itself_ends():
    endless: list = []
    endless.append(endless)
    assert list(describe(endless, max_depth=2)) == ["  0: list of len 1", "    0: list of len 1", "      ..."]


@pytest.mark.parametrize("dp", [HostileList([1]), {10**5000: 1}, {"x": Hostile()}], ids=["list", "key", "value"])
def test_nothing_makes_it_raise(dp):
    assert list(describe(dp)) in (["  ..."], ["  x: Hostile"])


def test_nothing_is_changed():
    array = np.array([1.0, np.nan])
    dp = [array, [array]]
    list(describe(dp))
    assert dp[0] is dp[1][0] is array
    assert np.isnan(array).tolist() == [False, True]


def test_a_key_stays_on_one_short_line():
    lines = list(describe({"a\n" + "b" * 1000: 1}))
    assert lines == ["  a\\n" + "b" * 57 + "...: int with value 1"]
