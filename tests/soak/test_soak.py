"""A turn of ``make soak``, and that it sees what it is there to see."""

from __future__ import annotations

import mmap
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import dataflow

from . import run
from .figures import Usage, trend, typical, usage
from .line import KINDS, Kind, Line, Lost, skip
from .run import Figures, Turn, soak

SHRINK = 50


@pytest.fixture(scope="module")
def figures() -> dict[str, Figures]:
    found = soak([*KINDS], 0.0, threading.Event(), shrink=SHRINK, kill_every=0.0, settle=0.0)
    return {line.name: line for line in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_turn_loses_nothing_and_leaves_nothing(name: str, figures: dict[str, Figures]):
    line = figures[name]
    assert line.problems() == []
    assert line.done["received"] >= 240
    assert line.done["skipped"] > 0
    assert line.done["faults"] == (KINDS[name].faults == 1)
    assert line.done["kills"] == KINDS[name].processes
    assert line.ended["before"] == line.ended["after"]


@pytest.mark.slow
def test_a_line_that_dies_is_a_problem():
    (line,) = soak(["no such workers"], 0.0, threading.Event())
    assert "KeyError: 'no such workers'" in line.problems()[0]


class Spoiled(dataflow.ProxyDataFlow):
    """Hands on a flow, but for what ``spoil`` makes of two datapoints that follow each other."""

    def __init__(self, ds: Any, spoil: Callable[[Any, Any], list[Any]]) -> None:
        super().__init__(ds)
        self.spoil = spoil

    def __iter__(self) -> Iterator[Any]:
        it = iter(self.ds)
        for dp in it:
            yield from self.spoil(dp, next(it)) if dp[0] == 100 else [dp]


def turn(spoil: Callable[[Any, Any], list[Any]], folder: pathlib.Path) -> Line:
    """Do a turn with a flow that has no workers, and that may lose something."""
    kind = Kind(lambda ds, func: Spoiled(dataflow.MapData(ds, func, on_error=skip()), spoil), processes=False)
    line = Line(kind, SHRINK, folder, stand=lambda: None)
    line.turn(kill=False)
    return line


def test_a_flow_as_it_should_be_passes(tmp_path: pathlib.Path):
    line = turn(lambda a, b: [a, b], tmp_path)
    assert (line.received, line.skipped, line.faults) == (243, 12, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda a, b: [b], id="missing"),
        pytest.param(lambda a, b: [a, a, b], id="double"),
        pytest.param(lambda a, b: [b, a], id="out of order"),
        pytest.param(lambda a, b: [a, [b[0], b[1][:-1]]], id="shorter"),
        pytest.param(lambda a, b: [[a[0], np.zeros_like(a[1])], b], id="changed"),
    ],
)
def test_a_datapoint_that_is_not_as_it_should_be_is_seen(spoil: Any, tmp_path: pathlib.Path):
    with pytest.raises(Lost, match=r"datapoint 10\d "):
        turn(spoil, tmp_path)


def test_memory_that_is_used_again_too_early_is_seen(tmp_path: pathlib.Path):
    memory = np.zeros(1 << 26, np.uint8)

    def reuse(dp: Any, following: Any) -> list[Any]:
        for _, array in (same := [dp, following]):
            memory[: array.size] = array
        return [[n, memory[: array.size]] for n, array in same]

    with pytest.raises(Lost, match="datapoint 100 has other bytes"):
        turn(reuse, tmp_path)


def test_a_trend_is_that_of_most_points():
    values = [3.0 + 2 * i for i in range(20)]
    assert trend(range(20), values) == (2.0, 2.0, 2.0)
    values[4], values[15] = 500.0, -500.0
    found = trend(range(20), values)
    assert found.value == 2.0
    assert found.low <= 2.0 <= found.high


def test_what_is_typical_stands_between_what_is_not():
    assert typical([5.0]) == (5.0, 5.0, 5.0)
    assert typical([900.0, *range(1, 100), -900.0]) == (50.0, 40.0, 61.0)


def steady(growth: float = 0.0, drift: float = 0.0, descriptors: int = 20) -> Figures:
    """Make up the figures of half an hour: MB more in 10 minutes, percent beside a young one, descriptors at the end.

    The machine gives a tenth less from minute to minute.
    """
    line, young = Figures("made up", alone=20), Figures("made up")
    line.young = young
    for minute in range(31):
        noise = (-1) ** minute
        used = Usage(300 + growth * minute / 10 + noise, 3, descriptors if minute == 30 else 20, 5)
        new = Turn(60.0 * minute, used, 1000 * 0.9**minute + noise, killed=False)
        line.turns.append(new._replace(rate=new.rate * (1 + drift / 100) + noise / 10))
        if minute >= line.alone:
            young.turns.append(new if minute >= 23 else new._replace(rate=1.0))  # it has yet to begin
    return line


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param(steady(growth=1.2), "memory grows by 1.20 MB", id="memory"),
        pytest.param(steady(drift=-6), r"speed is -[56]\.\d % beside", id="slower"),
        pytest.param(steady(descriptors=21), "up to 21 descriptors in the second half, and up to 20", id="descriptors"),
    ],
)
def test_what_grows_or_slows_down_is_a_problem(line: Figures, problem: str):
    assert steady(growth=0.8, drift=-4).problems() == []
    with pytest.raises(AssertionError, match=problem):
        assert not line.problems(), line.problems()


def test_what_may_be_chance_is_no_problem():
    line = steady(drift=-6)
    assert line.young is not None
    line.young.turns[3:] = [
        turn._replace(rate=turn.rate * (0.8, 1.0)[n % 2]) for n, turn in enumerate(line.young.turns[3:])
    ]
    assert line.drift.low < 0 < 5 < line.drift.value
    assert line.problems() == []


@pytest.mark.slow
def test_a_line_is_compared_with_a_young_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "YOUNG", 1.0)
    (line,) = soak(["MapData"], 3.0, threading.Event(), shrink=SHRINK, settle=0.0)
    assert line.young is not None
    assert line.alone == 1
    assert len(line.turns) == len(line.young.turns) + 1 > run.YOUTH + 2
    assert -99 < line.drift.low <= line.drift.value <= line.drift.high
    assert line.young.ended["before"] == line.young.ended["after"]
    line.young.failure = "it ended with -6"
    assert any("it ended with -6" in problem for problem in line.problems())


def test_memory_of_this_process_and_of_files_without_a_name_is_counted():
    def megabytes() -> float:
        return usage(os.getpid()).megabytes

    before, content = megabytes(), bytes(20_000_000)
    with mmap.mmap(-1, len(content), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(content)
        assert megabytes() - before == pytest.approx(20, abs=4)
    file = os.memfd_create("test")
    try:
        before = megabytes()
        os.write(file, content)
        assert megabytes() - before == pytest.approx(20, abs=4)
    finally:
        os.close(file)
