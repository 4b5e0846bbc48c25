from __future__ import annotations

import gc
import weakref

from dataflow.utils.parts import Parts


def test_it_counts_what_was_handed_on():
    parts = Parts()
    rows = parts.rows(iter([["a", "b"], [], ["c"]]))
    seen = [(parts.given, parts.left)]
    for row in rows:
        seen.append((row, parts.given, parts.left))
    assert seen == [(0, 0), ("a", 1, 1), ("b", 2, 0), ("c", 3, 0)]
    assert (parts.given, parts.left) == (3, 0)


def test_the_next_list_is_asked_for_when_one_is_used_up():
    asked = []

    def lists():
        for i in range(3):
            asked.append(i)
            yield [i, i]

    rows = Parts().rows(lists())
    assert asked == []
    assert [next(rows), next(rows)] == [0, 0]
    assert asked == [0]
    next(rows)
    assert asked == [0, 1]


def test_what_it_draws_from_is_freed_with_the_iterator():
    class Source:
        def __iter__(self):
            yield [1, 2]

    source, parts = Source(), Parts()
    freed = weakref.ref(source)
    rows = parts.rows(iter(source))
    next(rows)
    gc.disable()
    try:
        del source, rows
        assert freed() is None
    finally:
        gc.enable()
