from __future__ import annotations

import io
import json
import pickle
import queue
import sys
from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    CacheData,
    DataFlow,
    DataFromGenerator,
    DataFromList,
    DataFromQueue,
    FakeData,
    FixedSizeData,
    LocallyShuffleData,
    MapData,
    PrintData,
    RepeatedData,
    ShuffleData,
    TestDataSpeed,
    set_seed,
)
from dataflow.errors import UsageError
from dataflow.testing import FailsAt, check_dataflow, numbers, same
from dataflow.utils.speed import SpeedReport


class TestPrintData:
    def test_prints_the_first_datapoints_and_hands_on_all(self, capsys):
        df = PrintData(DataFromList([[0.5, np.arange(3)], [1.5, np.arange(4)], [2.5, 0]], shuffle=False), num=2)
        assert len(list(df)) == len(df) == 3
        assert capsys.readouterr().out == (
            "Contents of DataFlow (DataFromList):\n"
            "datapoint 0/2 with 2 components consists of\n"
            "  0: float with value 0.5\n"
            "  1: ndarray:int64 of shape (3,) in range [0, 2]\n"
            "datapoint 1/2 with 2 components consists of\n"
            "  0: float with value 1.5\n"
            "  1: ndarray:int64 of shape (4,) in range [0, 3]\n"
        )

    def test_hands_on_the_very_datapoints(self):
        received = []
        source = MapData(numbers(3), lambda dp: received.append(dp) or dp)
        handed_on = list(PrintData(source, num=2))
        assert all(a is b for a, b in zip(handed_on, received, strict=True))

    def test_prints_each_datapoint_when_it_comes_and_reads_nothing_ahead(self, capsys):
        it = iter(PrintData(FailsAt(numbers(3), 1, ValueError("no")), num=2))
        assert capsys.readouterr().out == ""
        next(it)
        assert capsys.readouterr().out.count("datapoint") == 1

    def test_dicts_and_nested_parts(self, capsys):
        list(PrintData(DataFromList([{"x": {"y": [1, 2]}}], shuffle=False), max_list=1, max_depth=3))
        assert capsys.readouterr().out == (
            "Contents of DataFlow (DataFromList):\n"
            "datapoint 0/1 with 1 components consists of\n"
            "  x: dict of len 1\n"
            "    y: list of len 2\n"
            "      0: int with value 1\n"
            "      ...\n"
        )

    def test_says_what_is_no_datapoint(self, capsys):
        list(PrintData([np.zeros(2)]))
        assert "datapoint 0/1 is no list or dict of components, but ndarray:float64 of" in capsys.readouterr().out

    def test_is_called_by_its_name(self, capsys):
        list(PrintData(numbers(1), name="train"))
        assert capsys.readouterr().out.startswith("Contents of DataFlow (train):\n")

    def test_label_is_the_old_argument_for_name(self):
        with pytest.warns(DeprecationWarning, match="'label' is an old name, use 'name'"):
            assert PrintData(numbers(1), label="train").name == "train"

    def test_counts_over_passes_until_the_next_reset(self, capsys):
        df = PrintData(numbers(2), num=3)
        list(df), list(df), list(df)
        assert capsys.readouterr().out.count("datapoint ") == 3
        df.reset_state()
        list(df)
        out = capsys.readouterr().out
        assert out.count("Contents") == 1
        assert out.count("datapoint ") == 2

    def test_overlapping_passes_print_no_more_than_they_should(self, capsys):
        df = PrintData(numbers(4), num=3)
        first, second = iter(df), iter(df)
        rest = [next(first), next(second), *first, *second]
        assert rest == [[0], [0], [1], [2], [3], [1], [2], [3]]
        assert capsys.readouterr().out.count("datapoint ") == 3

    def test_none_is_printed_if_none_is_asked_for(self, capsys):
        assert list(PrintData(numbers(2), num=0)) == [[0], [1]]
        assert capsys.readouterr().out == ""

    def test_its_stream_and_position_are_those_of_its_flow(self, capsys):
        set_seed(1)
        plain = ShuffleData(FakeData([(2,)], size=9), 4)
        printed = PrintData(ShuffleData(PrintData(FakeData([(2,)], size=9)), 4), num=3)
        assert same(list(printed), list(plain))
        it, other = iter(printed), iter(plain)
        next(it), next(other)
        assert printed.state_dict()["at"] == plain.state_dict()["at"]

    def test_keeps_the_contract(self, capsys):
        check_dataflow(lambda: PrintData(DataFromList([[i] for i in range(6)]), num=3), new_process=False)

    def test_a_terminal_that_cannot_show_a_character_sees_its_number(self, monkeypatch):
        ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", ascii_only)
        list(PrintData(DataFromList([["é"]])))
        ascii_only.seek(0)
        assert r"str with value \xe9" in ascii_only.read()

    def test_nothing_is_printed_into_a_missing_stdout(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        assert list(PrintData(numbers(1))) == [[0]]

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"num": -1}, ValueError, "num must be an integer of at least 0, got -1"),
            ({"max_depth": 1.5}, TypeError, "max_depth must be an integer of at least 0, got 1.5"),
            ({"max_list": None}, TypeError, "max_list must be an integer of at least 0, got None"),
            ({"name": 5}, TypeError, "name must be a string, got 5"),
        ],
        ids=str,
    )
    def test_wrong_arguments_are_refused(self, options, error, message):
        with pytest.raises(error, match=message):
            PrintData(numbers(1), **options)


def jitter(dp, rng):
    return [*dp, float(rng.normal())]


def rows():
    for i in range(5):
        yield [i]


def kept_size():
    return FixedSizeData(DataFromList([[i] for i in range(5)]), 3)


FLOWS = {
    "list": lambda: DataFromList([[i] for i in range(8)]),
    "drawing": lambda: MapData(FakeData([(2,)], 8), jitter),
    "batches of a shuffle": lambda: BatchData(ShuffleData(numbers(8), 3), 2),
    "kept iterator": kept_size,
    "cache": lambda: CacheData(MapData(numbers(6), jitter), shuffle=True),
    "of a kept buffer": lambda: FixedSizeData(LocallyShuffleData(DataFromList([[i] for i in range(9)]), 4), 5),
    "short": lambda: numbers(1),
    "empty": lambda: numbers(0),
}


class TestTestDataSpeed:
    def test_start_prints_the_report_and_returns_it(self, capsys):
        report = TestDataSpeed(numbers(20), size=10, warmup=2).start()
        out = capsys.readouterr().out
        assert isinstance(report, SpeedReport)
        assert (report.datapoints, report.complete) == (10, True)
        assert out.startswith("Speed of DataFromList(lst=list of 20, shuffle=False):\n  10 datapoints in ")
        assert "peak memory" in out

    def test_a_flow_that_is_too_short_is_measured_as_far_as_it_goes(self, capsys):
        report = TestDataSpeed(numbers(8), size=10, warmup=2).start()
        assert (report.datapoints, report.complete) == (6, False)
        assert "and then the flow ended: fewer than warmup + size" in capsys.readouterr().out

    @pytest.mark.parametrize(("count", "warmup"), [(0, 0), (2, 2), (2, 3)])
    def test_a_flow_with_nothing_to_measure_says_so(self, count, warmup, capsys):
        report = TestDataSpeed(numbers(count), size=10, warmup=warmup).start()
        assert (report.datapoints, report.complete) == (0, False)
        assert "no datapoint to measure: the flow is empty, or has no more" in capsys.readouterr().out

    def test_an_endless_flow_is_cut(self, capsys):
        assert TestDataSpeed(RepeatedData(numbers(3), -1), size=10).start().datapoints == 10

    def test_iterating_tests_and_then_yields_the_whole_flow(self, capsys):
        df = TestDataSpeed(numbers(4), size=3)
        assert list(df) == [[0], [1], [2], [3]]
        assert capsys.readouterr().out.count("Speed of") == 1
        assert len(df) == 4

    def test_a_pass_that_is_continued_in_its_middle_is_not_tested(self, capsys):
        df = TestDataSpeed(numbers(4), size=3)
        it = iter(df)
        next(it)
        state = json.loads(json.dumps(df.state_dict()))
        capsys.readouterr()
        again = TestDataSpeed(numbers(4), size=3)
        again.load_state_dict(state)
        assert list(again) == [[1], [2], [3]]
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())
    def test_a_flow_is_after_start_as_if_untested(self, make, capsys):
        set_seed(4)
        plain, tested = make(), make()
        for _ in range(3):
            TestDataSpeed(tested, size=2, warmup=1).start()
            assert same(list(tested), list(plain))
            assert tested.state_dict() == plain.state_dict()

    @pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())
    def test_iterating_yields_what_the_flow_would(self, make, capsys):
        set_seed(4)
        plain, tested = make(), TestDataSpeed(make(), size=2, warmup=1)
        for _ in range(3):
            assert same(list(tested), list(plain))

    def test_a_pass_that_was_given_up_is_not_continued_after_a_test(self, capsys):
        df = numbers(3)
        next(iter(df))
        TestDataSpeed(df, size=2).start()
        assert list(df) == [[0], [1], [2]]

    def test_a_running_pass_does_not_notice_the_test(self, capsys):
        df = numbers(3)
        it = iter(df)
        next(it)
        TestDataSpeed(df, size=2).start()
        assert df.state_dict()["at"] == {"pass": [0], "index": 1}
        assert list(it) == [[1], [2]]

    def test_a_loaded_state_is_still_loaded_after_a_test(self, capsys):
        df = numbers(4)
        it = iter(df)
        next(it), next(it)
        again = numbers(4)
        again.load_state_dict(df.state_dict())
        TestDataSpeed(again, size=9).start()
        assert list(again) == [[2], [3]]

    def test_a_seed_that_is_set_after_the_test_counts(self, capsys):
        df = DataFromList(list(range(50)))
        TestDataSpeed(df, size=5).start()
        set_seed(7)
        assert list(df) == list(DataFromList(list(range(50))))

    def test_a_flow_that_is_being_iterated_and_cannot_be_twice_says_so(self, capsys):
        df = kept_size()
        it = iter(df)
        next(it)
        with pytest.raises(UsageError, match="already being iterated"):
            TestDataSpeed(df).start()

    def test_what_a_queue_gave_for_the_test_is_not_lost(self, capsys):
        tasks = queue.Queue()
        for i in range(20):
            tasks.put([i])
        df = TestDataSpeed(BatchData(DataFromQueue(tasks), 2, use_list=True), size=2, warmup=1)
        df.start()
        df.start()
        assert capsys.readouterr().out.count("Speed of") == 2
        assert list(islice(iter(df), 4)) == [[[0, 1]], [[2, 3]], [[4, 5]], [[6, 7]]]
        assert list(islice(iter(df), 4)) == [[[8, 9]], [[10, 11]], [[12, 13]], [[14, 15]]]
        assert capsys.readouterr().out == ""

    def test_what_a_test_took_from_a_queue_leaves_no_position(self, capsys):
        tasks = queue.Queue()
        tasks.put([0])
        df = TestDataSpeed(DataFromQueue(tasks), size=1)
        df.start()
        next(iter(df))
        with pytest.raises(UsageError, match="has tested a flow that cannot go back"):
            df.state_dict()

    @pytest.mark.parametrize("size", [3, 5, 9], ids=["longer", "exact", "shorter"])
    @pytest.mark.parametrize("start", [True, False], ids=["started", "iterated"])
    def test_a_generator_object_is_yielded_whole_and_once(self, size, start, capsys):
        df = TestDataSpeed(DataFromGenerator(rows()), size)
        if start:
            df.start()
        assert list(df) == [[0], [1], [2], [3], [4]]
        with pytest.warns(UserWarning, match="Pass a callable"):
            assert list(df) == []

    def test_close_forgets_what_was_kept(self, capsys):
        df = TestDataSpeed(DataFromGenerator(rows()), size=3)
        df.start()
        df.close()
        assert list(islice(iter(df), 1)) == [[3]]

    def test_an_error_of_the_flow_comes_out_and_leaves_it_as_it_was(self, capsys):
        df = FailsAt(numbers(4), 2, KeyError("no"))
        with pytest.raises(KeyError, match="no"):
            TestDataSpeed(df, size=3).start()
        assert list(islice(iter(df), 2)) == [[0], [1]]

    def test_an_interrupt_comes_out_and_leaves_the_flow_as_it_was(self, capsys):
        def interrupted(dp):
            if dp == [2] and not calls:
                calls.append(dp)
                raise KeyboardInterrupt
            return dp

        calls = []
        df = MapData(numbers(4), interrupted)
        with pytest.raises(KeyboardInterrupt):
            TestDataSpeed(df, size=4).start()
        assert list(df) == [[0], [1], [2], [3]]

    def test_frees_what_the_flow_holds(self, capsys):
        closed = []

        class Opened(DataFlow):
            def __iter__(self):
                try:
                    yield from rows()
                finally:
                    closed.append(True)

        TestDataSpeed(Opened(), size=2).start()
        assert closed == [True]

    def test_keeps_the_contract(self, capsys):
        check_dataflow(lambda: TestDataSpeed(DataFromList([[i] for i in range(6)]), size=3), new_process=False)

    def test_pickles_after_a_test_without_what_it_kept(self, capsys):
        df = TestDataSpeed(numbers(3), size=2)
        list(df)
        assert list(pickle.loads(pickle.dumps(df))) == [[0], [1], [2]]

    def test_start_test_is_the_old_name(self, capsys):
        with pytest.warns(DeprecationWarning, match=r"start_test\(\) is an old name, use start\(\)"):
            assert TestDataSpeed(numbers(3), size=2).start_test().datapoints == 2

    def test_is_not_collected_by_pytest(self):
        assert TestDataSpeed.__test__ is False

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"size": 0}, "size must be an integer of at least 1, got 0"),
            ({"warmup": -1}, "warmup must be an integer of at least 0, got -1"),
        ],
        ids=str,
    )
    def test_wrong_numbers_are_refused(self, options, message):
        with pytest.raises(ValueError, match=message):
            TestDataSpeed(numbers(3), **options)
