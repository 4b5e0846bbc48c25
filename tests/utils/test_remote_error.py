"""An exception that crosses a process is the same exception, with its traceback as its cause."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

from dataflow.errors import DataFlowTerminated, WorkerDied, WorkerError
from dataflow.utils.remote_error import RemoteTraceback, pack, unpack


class TwoArguments(Exception):
    def __init__(self, key, row):
        super().__init__(f"no {key} in row {row}")
        self.key, self.row = key, row


class AddsToItsText(Exception):
    def __init__(self, name):
        super().__init__(f"cannot read {name}")


class KeywordOnly(Exception):
    def __init__(self, *, code):
        super().__init__()
        self.code = code

    def __str__(self):
        return f"code {self.code}"


class OwnPath(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)


class HoldsALock(Exception):
    def __init__(self):
        super().__init__("busy")
        self.lock = threading.Lock()


class CannotBeReduced(Exception):
    def __reduce__(self):
        raise ValueError("I stay")


class CannotBeRebuilt(Exception):
    def __reduce__(self):
        return int, ("x",)


class CannotBeShown(Exception):
    def __str__(self):
        raise ValueError("hidden")


def crossed(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return unpack(pack(caught))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 3),
        KeyError("key"),
        IndexError(),
        FileNotFoundError(2, "gone", "/a/path"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ImportError("no module", name="mod", path="/p"),
        StopIteration(4),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        DataFlowTerminated("closed"),
        TwoArguments("label", 7),
        AddsToItsText("a.png"),
        KeywordOnly(code=5),
        OwnPath("/another"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_type_text_and_attributes_survive(error):
    copy = crossed(error)
    assert type(copy) is type(error)
    assert (str(copy), copy.args, vars(copy)) == (str(error), error.args, vars(error))


def test_members_of_a_group_survive():
    group = crossed(ExceptionGroup("two", [TwoArguments("label", 7), ExceptionGroup("inner", [OwnPath("/p")])]))
    assert type(group) is ExceptionGroup
    first, inner = group.exceptions
    (second,) = inner.exceptions
    assert (first.key, first.row) == ("label", 7)
    assert (second.errno, second.filename) == (2, "/p")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (HoldsALock(), "HoldsALock: busy"),
        (CannotBeReduced("x"), "CannotBeReduced: x"),
        (CannotBeRebuilt("x"), "CannotBeRebuilt: x"),
        (CannotBeShown("x"), r"CannotBeShown: \(its text cannot be shown\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_does_not_survive_becomes_a_worker_error_with_its_name_and_text(error, text):
    with pytest.raises(WorkerError, match=text):
        raise crossed(error)


def test_the_cause_is_the_remote_traceback_with_causes_and_notes_of_its_own():
    def fail():
        try:
            {}["deep"]
        except KeyError as error:
            error.add_note("a note")
            raise ValueError("shallow") from error

    try:
        fail()
    except ValueError as error:
        copy = unpack(pack(error))
    assert isinstance(copy.__cause__, RemoteTraceback)
    for part in ("in fail", "KeyError: 'deep'", "a note", "direct cause", "ValueError: shallow"):
        assert part in str(copy.__cause__)


def test_notes_survive():
    error = ValueError()
    error.add_note("in MapData, datapoint 17")
    assert crossed(error).__notes__ == ["in MapData, datapoint 17"]


def test_a_class_that_the_reader_does_not_have_becomes_a_worker_error(monkeypatch):
    data = pack(TwoArguments("label", 7))
    monkeypatch.delattr(f"{__name__}.TwoArguments")
    with pytest.raises(WorkerError, match="TwoArguments: no label in row 7"):
        raise unpack(data)


def test_it_survives_a_second_border():
    copy = crossed(crossed(TwoArguments("label", 7)))
    assert (type(copy), copy.row) == (TwoArguments, 7)
    assert str(copy.__cause__).count("TwoArguments: no label in row 7") == 2


def test_the_errors_of_workers_pickle_with_their_attributes():
    error = WorkerDied("gone", stage="Stage", worker=1, pid=7)
    error.exitcode, error.samples = -9, (4, 5)
    copy = pickle.loads(pickle.dumps(error))
    assert vars(copy) == {"stage": "Stage", "worker": 1, "pid": 7, "exitcode": -9, "samples": (4, 5)}
