from __future__ import annotations

import json
import queue
import threading
from collections import deque

import numpy as np
import pytest

from dataflow import (
    BatchData,
    DataFlow,
    DataFromGenerator,
    DataFromIterable,
    DataFromList,
    DataFromQueue,
    MapData,
    as_flow,
    set_seed,
)
from dataflow.errors import UnknownLength, UsageError
from dataflow.testing import check_dataflow, numbers


def rows():
    for i in range(4):
        yield [i]


class Rows:
    """Iterable, of unknown length."""

    def __iter__(self):
        return rows()


class Again:
    """An iterator that starts again at every iter(), as tutorials write them."""

    def __iter__(self):
        self.n = 0
        return self

    def __next__(self):
        self.n += 1
        if self.n > 2:
            raise StopIteration
        return [self.n]


class Indexed:
    """Iterable by the old protocol only."""

    def __getitem__(self, index):
        return [[10], [20]][index]


FOUR = [[0], [1], [2], [3]]


class TestDataFromGenerator:
    def test_a_callable_is_called_once_for_each_pass(self):
        calls = []

        def gen():
            calls.append(1)
            return FOUR

        df = DataFromGenerator(gen)
        assert [list(df), list(df), len(calls)] == [FOUR, FOUR, 2]

    @pytest.mark.parametrize(
        "gen",
        [
            pytest.param(rows, id="generator function"),
            pytest.param(Rows, id="class"),
            pytest.param(Rows(), id="iterable"),
            pytest.param(FOUR, id="list"),
            pytest.param(tuple(FOUR), id="tuple"),
            pytest.param(lambda: numbers(4), id="callable that returns a flow"),
            pytest.param(numbers(4), id="flow"),
        ],
    )
    def test_keeps_the_contract(self, gen):
        assert list(DataFromGenerator(gen)) == FOUR
        check_dataflow(lambda: DataFromGenerator(gen), new_process=False)

    @pytest.mark.parametrize("gen", [rows, FOUR], ids=["callable", "list"])
    def test_never_has_a_length(self, gen):
        with pytest.raises(UnknownLength, match=r"does not know its length; count it, or cut it with FixedSizeData"):
            len(DataFromGenerator(gen))

    def test_can_be_batched_without_a_length(self):
        assert [dp[0].tolist() for dp in BatchData(DataFromGenerator(rows()), 2)] == [[0, 1], [2, 3]]

    def test_a_second_pass_of_a_generator_object_is_empty_with_a_warning(self):
        df = DataFromGenerator(rows())
        assert list(df) == FOUR
        with pytest.warns(UserWarning, match=r"this pass is empty: .* Pass a callable that makes a new one"):
            assert list(df) == []

    def test_a_generator_object_that_is_empty_from_the_start_is_no_mistake(self):
        assert list(DataFromGenerator(iter(()))) == []

    def test_a_generator_object_goes_on_after_a_break(self):
        df = DataFromGenerator(rows())
        assert next(iter(df)) == [0]
        assert list(df) == [[1], [2], [3]]

    def test_two_passes_of_a_generator_object_cannot_overlap(self):
        df = DataFromGenerator(rows())
        first = iter(df)
        next(first)
        with pytest.raises(UsageError, match=r"already being iterated.*df\.close\(\)"):
            next(iter(df))
        assert list(first) == [[1], [2], [3]]

    def test_an_iterator_that_starts_again_is_taken_at_its_word(self):
        df = DataFromGenerator(Again())
        assert [list(df), list(df)] == [[[1], [2]], [[1], [2]]]

    def test_a_generator_object_has_no_position(self):
        df = DataFromGenerator(rows())
        next(iter(df))
        with pytest.raises(UsageError, match=r"no position .* Pass a callable .* DataFromGenerator\(rows\)"):
            df.state_dict()

    def test_flows_inside_of_a_callable_are_part_of_the_pass(self):
        inner = DataFromList([[i] for i in range(8)])

        def gen():
            for dp in inner:
                yield [dp[0] * 10]

        set_seed(1)
        df = DataFromGenerator(gen)
        passes = [list(df), list(df), list(df)]
        it = iter(df)
        head = [next(it), next(it), next(it)]
        state = json.loads(json.dumps(df.state_dict()))
        again = DataFromGenerator(gen)
        again.load_state_dict(state)
        assert passes[0] != passes[1]
        assert head + list(again) == head + list(it)

    def test_what_a_consumer_changes_does_not_reach_a_list(self):
        lst = [[0], [1]]
        for dp in DataFromGenerator(lst):
            dp.clear()
        assert lst == [[0], [1]]

    def test_an_error_of_the_generator_says_at_which_datapoint(self):
        def gen():
            yield [0]
            raise KeyError("no such row")

        for df in (DataFromGenerator(gen), DataFromGenerator(gen())):
            with pytest.raises(KeyError, match="no such row") as caught:
                list(df)
            assert [note.partition(",")[2] for note in caught.value.__notes__] == [" datapoint 1"]

    def test_size_is_an_old_argument_that_is_ignored(self):
        with pytest.warns(DeprecationWarning, match=r"ignores size; cut it with FixedSizeData\(ds, size\)"):
            df = DataFromGenerator(rows, size=2)
        assert list(df) == FOUR
        assert "size" not in repr(df)

    @pytest.mark.parametrize("gen", [5, None, "text"], ids=repr)
    def test_what_cannot_be_iterated_is_refused(self, gen):
        with pytest.raises(TypeError, match="gen must be an iterable, or a callable that returns one, got"):
            DataFromGenerator(gen)

    def test_a_callable_that_returns_no_iterable_is_named(self):
        with pytest.raises(TypeError, match=r"gen must return an iterable of datapoints, but .*func.* got None"):
            list(DataFromGenerator(func))


def func():
    pass


class TestDataFromIterable:
    @pytest.mark.parametrize(
        ("iterable", "expected"),
        [
            pytest.param(FOUR, FOUR, id="list"),
            pytest.param((0, 1), [0, 1], id="tuple"),
            pytest.param(range(3), [0, 1, 2], id="range"),
            pytest.param({"a": [1], "b": [2]}.values(), [[1], [2]], id="values"),
            pytest.param({7}, [7], id="set"),
            pytest.param(deque(FOUR), FOUR, id="deque"),
            pytest.param(Rows(), FOUR, id="object"),
            pytest.param(Indexed(), [[10], [20]], id="object with an index"),
            pytest.param(numbers(4), FOUR, id="flow"),
        ],
    )
    def test_yields_what_is_in_it(self, iterable, expected):
        df = DataFromIterable(iterable)
        assert [list(df), list(df)] == [expected, expected]

    @pytest.mark.parametrize("iterable", [FOUR, tuple(FOUR), range(4), Rows(), deque(FOUR), numbers(4)], ids=repr)
    def test_keeps_the_contract(self, iterable):
        check_dataflow(lambda: DataFromIterable(iterable), new_process=False)

    def test_has_the_length_of_the_iterable(self):
        assert len(DataFromIterable(FOUR)) == 4
        assert len(DataFromIterable(deque(FOUR))) == 4

    def test_has_no_length_if_the_iterable_has_none(self):
        with pytest.raises(UnknownLength, match="DataFromIterable"):
            len(DataFromIterable(Rows()))

    @pytest.mark.parametrize("container", [list, tuple, deque], ids=["list", "tuple", "deque"])
    @pytest.mark.parametrize("dp", [[1], {"x": 1}], ids=["lists", "dicts"])
    def test_what_a_consumer_changes_does_not_reach_a_container(self, container, dp):
        stored = container([dp])
        for received in DataFromIterable(stored):
            received.clear()
        assert stored == container([dp])
        assert len(dp) == 1

    def test_a_second_pass_of_an_iterator_is_empty_with_a_warning(self):
        df = DataFromIterable(iter(FOUR))
        assert list(df) == FOUR
        with pytest.warns(UserWarning, match="Pass a callable that makes a new one"):
            assert list(df) == []

    def test_an_iterator_has_no_position(self):
        df = MapData(DataFromIterable(iter(FOUR)), lambda dp: dp)
        next(iter(df))
        with pytest.raises(UsageError, match=r"DataFromIterable.* cannot start again. Pass a callable"):
            df.state_dict()

    def test_a_function_is_refused_in_favour_of_data_from_generator(self):
        with pytest.raises(TypeError, match=r"got the function rows; for a function .*, DataFromGenerator"):
            DataFromIterable(rows)

    @pytest.mark.parametrize("iterable", [5, None, "text", b"text", list], ids=repr)
    def test_what_cannot_be_iterated_is_refused(self, iterable):
        with pytest.raises(TypeError, match="iterable must be an iterable of datapoints, got"):
            DataFromIterable(iterable)

    def test_every_proxy_takes_an_iterable_in_place_of_a_flow(self):
        assert [dp[0].tolist() for dp in BatchData([[1], [2]], 2)] == [[1, 2]]
        assert isinstance(as_flow([[1]]), DataFlow)


class TestDataFromQueue:
    def test_yields_what_comes_out_of_the_queue(self):
        tasks = queue.Queue()
        for value in ([1], {"x": 2}, np.arange(3), None):
            tasks.put(value)
        it = iter(DataFromQueue(tasks))
        assert [next(it), next(it), next(it).tolist(), next(it)] == [[1], {"x": 2}, [0, 1, 2], None]

    def test_waits_while_the_queue_is_empty(self):
        tasks, received = queue.Queue(), []
        it = iter(DataFromQueue(tasks))
        waiting = threading.Thread(target=lambda: received.append(next(it)))
        waiting.start()
        tasks.put([1])
        waiting.join()
        assert received == [[1]]

    def test_the_next_pass_goes_on_with_the_queue(self):
        tasks = queue.SimpleQueue()
        tasks.put([1])
        tasks.put([2])
        df = DataFromQueue(tasks)
        assert [next(iter(df)), next(iter(df))] == [[1], [2]]

    def test_has_no_length(self):
        with pytest.raises(UnknownLength, match="DataFromQueue"):
            len(DataFromQueue(queue.Queue()))

    def test_has_no_position(self):
        tasks = queue.Queue()
        tasks.put([1])
        df = DataFromQueue(tasks)
        next(iter(df))
        with pytest.raises(UsageError, match=r"cannot put back what it took out of the queue. Let whoever fills"):
            df.state_dict()

    @pytest.mark.parametrize("wrong", [[1], None, "queue"], ids=repr)
    def test_needs_a_method_get(self, wrong):
        with pytest.raises(TypeError, match=r"queue must have a method get\(\), got"):
            DataFromQueue(wrong)
