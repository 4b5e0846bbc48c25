from __future__ import annotations

import pytest

from dataflow.errors import UsageError
from dataflow.sources.order import place_in, refuse_smaller, start_of


@pytest.mark.parametrize(
    ("place", "size", "start"),
    [
        pytest.param({"pass": 0}, 3, 0, id="a new pass"),
        pytest.param(place_in(0, 2, 3, shuffle=False), 4, 2, id="in order, of more"),
        pytest.param(place_in(0, 3, 3, shuffle=False), 3, 3, id="at the end"),
        pytest.param(place_in(0, 2, 3, shuffle=True), 3, 2, id="shuffled"),
        pytest.param(place_in(0, 0, 3, shuffle=True), 4, 0, id="shuffled, before the first"),
        pytest.param({"pass": 0, "index": 2}, 3, 2, id="shuffled, without a size"),
    ],
)
def test_a_place_goes_on_in_data_that_it_fits_to(place, size, start):
    assert start_of(place, size, "x") == start


@pytest.mark.parametrize(
    ("place", "size", "had"),
    [
        pytest.param(place_in(0, 3, 3, shuffle=False), 2, "at least 3", id="in order, of fewer"),
        pytest.param(place_in(0, 1, 3, shuffle=True), 2, "3", id="shuffled, of fewer"),
        pytest.param(place_in(0, 1, 3, shuffle=True), 4, "3", id="shuffled, of more"),
    ],
)
def test_a_place_in_other_data_is_refused(place, size, had):
    with pytest.raises(UsageError, match=f"'x' has {size} datapoints, and had {had} when this state was taken"):
        start_of(place, size, "'x'")


def test_a_place_behind_the_end_of_a_file_is_refused():
    refuse_smaller(7, 7, "x.tar")
    with pytest.raises(UsageError, match=r"'x\.tar' has been replaced by a smaller file .* or begin without the state"):
        refuse_smaller(8, 7, "x.tar")
