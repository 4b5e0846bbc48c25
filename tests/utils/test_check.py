from __future__ import annotations

import re

import numpy as np
import pytest

from dataflow import DataFromList
from dataflow.utils import check


class TestInteger:
    @pytest.mark.parametrize("value", [1, 7, np.int64(3), np.uint8(3), np.array(3)], ids=repr)
    def test_integers_pass(self, value):
        check.integer(1, num=value)

    def test_without_a_minimum_any_integer_passes(self):
        check.integer(num=-5)

    @pytest.mark.parametrize(
        ("value", "seen"),
        [
            (2.0, "2.0 (float)"),
            (np.float32(2), "2.0 (numpy.float32)"),
            (True, "True (bool)"),
            ("3", "'3' (str)"),
            (None, "None"),
            ([3], "a list"),
            (np.array([3, 4]), "a ndarray"),
            (int, "the class int"),
        ],
        ids=repr,
    )
    def test_something_else_is_a_type_error(self, value, seen):
        with pytest.raises(TypeError, match=re.escape(f"num must be an integer of at least 1, got {seen}")):
            check.integer(1, num=value)

    @pytest.mark.parametrize("value", [0, -3, np.int64(0)], ids=repr)
    def test_too_small_is_a_value_error(self, value):
        with pytest.raises(ValueError, match=f"num must be an integer of at least 1, got {value}"):
            check.integer(1, num=value)

    def test_the_one_that_is_wrong_is_named(self):
        with pytest.raises(ValueError, match="second must be"):
            check.integer(1, first=1, second=0)

    def test_without_a_minimum_the_error_names_none(self):
        with pytest.raises(TypeError, match="num must be an integer, got None"):
            check.integer(num=None)


class TestFlag:
    @pytest.mark.parametrize("value", [True, False])
    def test_flags_pass(self, value):
        check.flag(strict=value)

    @pytest.mark.parametrize(
        ("value", "seen"),
        [(1, "1 (int)"), (0, "0 (int)"), (None, "None"), ("yes", "'yes' (str)"), (np.True_, "True (numpy.bool")],
        ids=repr,
    )
    def test_something_else_is_a_type_error(self, value, seen):
        with pytest.raises(TypeError, match=re.escape(f"strict must be True or False, got {seen}")):
            check.flag(strict=value)


class TestFunction:
    @pytest.mark.parametrize("value", [len, lambda x: x, int, DataFromList], ids=repr)
    def test_callables_pass(self, value):
        check.function(func=value)

    @pytest.mark.parametrize(("value", "seen"), [(None, "None"), (3, "3 (int)"), ([], "a list")], ids=repr)
    def test_something_else_is_a_type_error(self, value, seen):
        with pytest.raises(TypeError, match=re.escape(f"func must be callable, got {seen}")):
            check.function(func=value)


class TestInstance:
    def test_one_of_several_kinds_passes(self):
        check.instance((list, tuple), "a list", idxs=(1,))

    def test_another_kind_is_named_in_words(self):
        with pytest.raises(TypeError, match=r"idxs must be a list of indices, got 3 \(int\)"):
            check.instance(list, "a list of indices", idxs=3)


class TestOneOf:
    def test_an_allowed_value_passes(self):
        check.one_of((1, 3), channel=3)

    def test_another_value_is_shown_with_what_is_allowed(self):
        with pytest.raises(ValueError, match=r"channel must be one of 1, 3, got 2 \(int\)"):
            check.one_of((1, 3), channel=2)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        (0.5, "0.5 (float)"),
        (b"ab", "b'ab' (bytes)"),
        ("x" * 100, "'" + "x" * 56 + "... (str)"),
        (np.int8(3), "3 (numpy.int8)"),
        (np.zeros(3), "a ndarray"),
        ({}, "a dict"),
        (len, "the function len"),
        (dict.get, "the function dict.get"),
        (DataFromList, "the class DataFromList"),
        (DataFromList([]), "a DataFromList"),
    ],
    ids=repr,
)
def test_wrong_values_are_shown_by_their_type_and_short_text(value, text):
    assert check.seen(value) == text
