from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest

from dataflow.utils.own import copier, own


class Row(list):
    pass


@pytest.mark.parametrize("dp", [[1, [2]], {"x": [1]}, Row([1]), OrderedDict(x=1)], ids=repr)
@pytest.mark.parametrize("function", [own, lambda dp: copier([dp])(dp)], ids=["own", "copier"])
def test_lists_and_dicts_are_copied_one_level_deep(dp, function):
    copied = function(dp)
    assert copied == dp
    assert type(copied) is type(dp)
    assert copied is not dp
    key = next(iter(dp)) if isinstance(dp, dict) else 0
    assert copied[key] is dp[key]


@pytest.mark.parametrize("dp", [(1,), "text", None, 3, np.zeros(2)], ids=repr)
@pytest.mark.parametrize("function", [own, lambda dp: copier([dp])(dp)], ids=["own", "copier"])
def test_other_values_are_handed_on(dp, function):
    assert function(dp) is dp


def test_a_mix_is_copied_each_in_its_way():
    rows = [[1], {"x": 1}, (1,)]
    copy = copier(rows)
    assert [copy(row) for row in rows] == rows
    assert [copy(row) is row for row in rows] == [False, False, True]


def test_an_empty_list_of_rows_has_a_copier():
    assert copier([])([1]) == [1]
