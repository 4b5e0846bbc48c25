from __future__ import annotations

import io
import sys
import threading

import pytest
import tqdm

from dataflow.utils.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def at_terminal(monkeypatch):
    # Not a fixture: pytest puts its own stderr in place between the two.
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_a_terminal_sees_a_bar_after_a_second(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with progress(4, "reading") as bar:
        bar.update()
        assert terminal.getvalue() == ""
        bar.start_t -= 2  # two seconds later
        bar.update(2)
    assert "reading:  75%" in terminal.getvalue()
    assert "3/4" in terminal.getvalue()
    assert " datapoints/s" in terminal.getvalue()


def test_what_is_done_within_a_second_shows_nothing(monkeypatch):
    terminal = at_terminal(monkeypatch)
    with progress(4, "reading") as bar:
        bar.update(4)
    assert terminal.getvalue() == ""


def test_what_is_no_terminal_sees_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with progress(4, "reading") as bar:
        bar.start_t = -1e9
        bar.update(4)
    assert sys.stderr.getvalue() == ""


def test_counts_what_is_iterated(monkeypatch):
    terminal = at_terminal(monkeypatch)
    bar = progress(3, "reading", unit=" files", rows=["a", "b", "c"])
    bar.start_t -= 2
    assert list(bar) == ["a", "b", "c"]
    assert "3/3" in terminal.getvalue()
    assert "files" in terminal.getvalue()


@pytest.mark.parametrize("total", [None, 0])
def test_an_unknown_total_is_counted_up(monkeypatch, total):
    terminal = at_terminal(monkeypatch)
    with progress(total, "reading") as bar:
        bar.start_t -= 2
        bar.update(2)
    assert "reading: 2 datapoints" in terminal.getvalue()


def test_starts_no_thread(monkeypatch):
    at_terminal(monkeypatch)
    before = threading.active_count()
    with progress(4, "reading") as bar:
        bar.update()
        assert threading.active_count() == before


def test_the_bars_of_the_user_stay_as_they_are():
    progress(4, "reading").close()
    assert tqdm.tqdm.monitor_interval == 10
