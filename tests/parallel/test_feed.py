from __future__ import annotations

import pytest

from dataflow import DataFromGenerator, DataFromList, MapData, ProxyDataFlow
from dataflow.errors import EmptyFlowError
from dataflow.parallel import feed as feeds
from dataflow.parallel.feed import Feed, merged
from dataflow.passes import Run
from dataflow.testing import FailsAt, FailsOnce, numbers


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch):
    monkeypatch.setattr(feeds, "FRAME_SECONDS", 60.0)


def feed_of(ds, at=None, *, endless=False):
    owner = MapData(ds, len)
    return Feed(owner.ds, owner, Run(owner, 0), at or {"pass": [0]}, endless)


def frames(feed, limit, count=99):
    found = []
    while len(found) < count and (frame := feed.read(limit)) is not None:
        found.append((frame.first, [dp[0] for dp in frame.rows]))
    return found


def test_a_pass_comes_in_frames_of_at_most_the_limit():
    assert frames(feed_of(numbers(5)), 2) == [(0, [0, 1]), (2, [2, 3]), (4, [4])]


def test_an_empty_flow_has_no_frame():
    feed = feed_of(numbers(0))
    assert feed.read(3) is None
    assert feed.ended


def test_a_frame_knows_where_it_can_be_read_again():
    feed = feed_of(numbers(5))
    feed.read(2)
    frame = feed.read(2)
    assert frame.place == {"n": 2, "ds": {"pass": [0], "index": 2}}
    assert [*feed.open.values()][1] is frame
    assert frames(feed_of(numbers(5), {"pass": [0], **frame.place}), 9) == [(0, [2, 3, 4])]


def test_what_was_delivered_is_read_and_left_out():
    at = {"pass": [0], "n": 0, "ds": {"pass": [0], "index": 0}, "given": [[0, 1], [3, 5], [6, 7]]}
    feed = feed_of(numbers(9), at)
    assert frames(feed, 9) == [(1, [1, 2]), (5, [5]), (7, [7, 8])]
    assert feed.given == []


def test_an_endless_feed_counts_passes_and_begins_numbers_anew():
    feed = feed_of(numbers(2), endless=True)
    places = [feed.read(9).place for _ in range(3)]
    assert [(place["i"], place["n"]) for place in places] == [(0, 0), (1, 0), (2, 0)]


def test_delivered_spans_reach_over_the_end_of_a_pass():
    feed = feed_of(numbers(3), {"pass": [0], "i": 4, "given": [[1, 4]]}, endless=True)
    assert frames(feed, 9, count=3) == [(0, [0]), (4, [1, 2]), (6, [0, 1, 2])]


def test_passes_of_an_endless_feed_differ():
    feed = feed_of(DataFromList([[i] for i in range(9)]), endless=True)
    (_, first), (_, second) = frames(feed, 9, count=2)
    assert sorted(first) == sorted(second) == list(range(9))
    assert first != second


def test_an_empty_flow_cannot_be_read_for_ever():
    with pytest.raises(EmptyFlowError, match=r"MapData\(.*\) repeats DataFromList\(.*one pass of it is empty"):
        feed_of(numbers(0), endless=True).read(1)


def test_a_failure_comes_when_what_was_read_before_it_has_come():
    feed = feed_of(FailsAt(numbers(9), 3, ValueError("no")))
    assert feed.read(9).count == 3
    with pytest.raises(ValueError, match="no"):
        feed.read(9)
    assert feed.read(9) is None


def nothing_done(frame):
    return 0


def all_done(frame):
    return frame.count


@pytest.mark.parametrize(("done", "given"), [(nothing_done, []), (all_done, [[0, 3]])])
def test_a_failure_is_behind_the_place(done, given):
    feed = feed_of(MapData(numbers(9), FailsOnce(3)))
    frame = feed.read(9)
    with pytest.raises(LookupError):
        feed.read(9)
    for closed in [False, True]:
        if closed:
            del feed.open[frame.first]
        place = feed.place(done)
        assert place.get("given", []) == ([[0, 3]] if closed else given)
        left = frames(feed_of(MapData(numbers(9), list), {"pass": [0], **place}), 9)
        assert left == ([(3, [3, 4, 5, 6, 7, 8])] if place.get("given") else [(0, [0, 1, 2, 3, 4, 5, 6, 7, 8])])


def test_a_failure_at_what_was_delivered_before_is_behind_the_place_too():
    at = {"pass": [0], "n": 0, "ds": {"pass": [0], "n": 0, "ds": {"pass": [0], "index": 0}}, "given": [[1, 5]]}
    feed = feed_of(MapData(numbers(9), FailsOnce(3)), at)
    del feed.open[feed.read(9).first]
    with pytest.raises(LookupError):
        feed.read(9)
    place = feed.place(nothing_done)
    assert frames(feed_of(MapData(numbers(9), list), {"pass": [0], **place}), 9) == [(4, [5, 6, 7, 8])]


def test_a_pass_that_does_not_open_is_not_counted():
    class Once(ProxyDataFlow):
        def _walk(self, at, run):
            if at["pass"] == [1]:
                raise OSError("gone")
            return super()._walk(at, run)

    feed = feed_of(Once(numbers(2)), endless=True)
    del feed.open[feed.read(9).first]
    with pytest.raises(OSError, match="gone"):
        feed.read(9)
    place = feed.place(nothing_done)
    assert frames(feed_of(numbers(2), {"pass": [0], **place}, endless=True), 9, count=1) == [(0, [0, 1])]


def test_a_slow_flow_gives_small_frames(monkeypatch):
    monkeypatch.setattr(feeds, "FRAME_SECONDS", 0.0)
    assert frames(feed_of(numbers(2)), 9) == [(0, [0]), (1, [1])]


def test_a_flow_without_length_is_read_to_its_end():
    assert frames(feed_of(DataFromGenerator(lambda: iter([[7], [8]]))), 9) == [(0, [7, 8])]


@pytest.mark.parametrize(
    ("spans", "joined"),
    [([], []), ([(0, 0)], []), ([(0, 2), (2, 3)], [[0, 3]]), ([(0, 1), (1, 1), (2, 3)], [[0, 1], [2, 3]])],
)
def test_spans_that_touch_are_joined(spans, joined):
    assert list(merged(spans)) == joined
