from __future__ import annotations

import contextvars
import inspect
import json
import logging
import os
import pickle
import signal
import threading
from itertools import islice

import numpy as np
import pytest

import dataflow
from dataflow import (
    BatchData,
    DataFlow,
    DataFromList,
    FixedSizeData,
    MapData,
    ProxyDataFlow,
    RepeatedData,
    RNGDataFlow,
    ShuffleData,
    as_flow,
    proxies,
    set_seed,
)
from dataflow.errors import EndlessLength, UnknownLength, UsageError
from dataflow.testing import check_dataflow, numbers


class Source(DataFlow):
    """Neither super().__init__() nor a length."""

    def __init__(self, rows=((1,), (2,), (3,))):
        self.rows = rows

    def __iter__(self):
        for row in self.rows:
            yield list(row)


class Dice(RNGDataFlow):
    def __init__(self, count=9):
        self.count = count

    def __iter__(self):
        for i in range(self.count):
            yield [i, int(self.rng.randint(1000)), float(self.rng.randn())]


class OwnReset(RNGDataFlow):
    """Overrides reset_state without super()."""

    def __init__(self, ds):
        self.anything = {"flows": [ds]}

    def reset_state(self):
        self.resets = getattr(self, "resets", 0) + 1

    def __iter__(self):
        for dp in self.anything["flows"][0]:
            yield [*dp, int(self.rng.randint(1000))]


class Odd(ProxyDataFlow):
    def __iter__(self):
        for dp in self.ds:
            if dp[0] % 2:
                yield dp


class Signs(MapData):
    def __iter__(self):
        for dp in super().__iter__():
            yield dp
            yield [-x for x in dp]


class MoreSigns(Signs):
    def __iter__(self):
        for dp in super().__iter__():
            yield [*dp, int(np.sign(dp[0]))]


class Twice(ProxyDataFlow):
    def __iter__(self):
        yield from self.ds
        yield from self.ds


class Mixin:
    def __iter__(self):
        for dp in self.ds:
            yield [dp, dp]


class FromMixin(Mixin, ProxyDataFlow):
    pass


class NotAGenerator(ProxyDataFlow):
    def __iter__(self):
        return map(tuple, self.ds)


class OnTheFly(DataFlow):
    def __iter__(self):
        for start in (0, 10):
            yield from DataFromList([[start + i] for i in range(4)])


def shuffled(count=8):
    return DataFromList([[i] for i in range(count)])


def drawn(dp, rng):
    kind = dp[0] % 3
    value = rng.standard_normal() if kind == 0 else rng.integers(100) if kind == 1 else rng.permutation(4).tolist()
    return [*dp, value if kind == 2 else float(value)]


FLOWS = {
    "user source": lambda: Source(),
    "user random source": lambda: Dice(),
    "user proxy": lambda: Odd(shuffled()),
    "reset without super, child in a dict in a list": lambda: OwnReset(shuffled()),
    "override of a built-in with super": lambda: Signs(shuffled(), abs_all),
    "override of an override, two levels deep": lambda: MoreSigns(MapData(shuffled(), abs_all), abs_all),
    "child iterated twice in one pass": lambda: Twice(shuffled()),
    "iter from a mixin": lambda: FromMixin(shuffled()),
    "iter that is no generator": lambda: NotAGenerator(shuffled()),
    "flows made while iterating": lambda: OnTheFly(),
    "shuffle over repeat": lambda: ShuffleData(RepeatedData(shuffled(5), 4), 6),
    "user proxy over a flow that carries over": lambda: Odd(FixedSizeData(shuffled(5), 3)),
    "twice over a flow that carries over": lambda: Twice(FixedSizeData(shuffled(5), 3)),
    "fixed size over a user proxy": lambda: FixedSizeData(Twice(shuffled(5)), 7),
    "function that draws of every kind": lambda: MapData(shuffled(), drawn),
    "all of it": lambda: BatchData(
        ShuffleData(MoreSigns(Odd(RepeatedData(Twice(shuffled()), 2)), abs_all), 6), 2, use_list=True
    ),
}


def abs_all(dp):
    return [abs(x) for x in dp]


@pytest.mark.parametrize("name", FLOWS)
def test_user_classes_and_compositions_keep_the_contract(name):
    check_dataflow(FLOWS[name], exact_length=False)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="__iter__"):
        DataFlow()


def test_a_class_without_iter_is_abstract():
    class Nothing(DataFlow):
        pass

    with pytest.raises(TypeError, match="__iter__"):
        Nothing()


def test_a_proxy_hands_on():
    assert list(ProxyDataFlow(numbers(3))) == [[0], [1], [2]]
    assert len(ProxyDataFlow(numbers(3))) == 3


def test_list_and_len_of_a_flow_without_length():
    assert list(Source()) == [[1], [2], [3]]
    with pytest.raises(UnknownLength, match=r"Source\(\) does not know its length; .*FixedSizeData"):
        len(Source())
    with pytest.raises(NotImplementedError):
        len(Source())


def test_endless_is_a_value_error_too():
    with pytest.raises(ValueError, match="never ends"):
        len(RepeatedData(numbers(3), -1))
    with pytest.raises(EndlessLength):
        len(BatchData(RepeatedData(numbers(3), -1), 2))


def test_a_flow_is_true_whatever_its_length():
    assert bool(Source())
    assert bool(numbers(0))


def test_reset_reaches_every_flow_once_even_without_super():
    df = OwnReset(inner := OwnReset(numbers(2)))
    BatchData(df, 1).reset_state()
    assert (df.resets, inner.resets) == (1, 1)


def test_the_first_pass_resets_and_a_reset_by_hand_is_not_repeated():
    df = OwnReset(numbers(2))
    list(df)
    list(df)
    assert df.resets == 1
    df = OwnReset(numbers(2))
    df.reset_state()
    list(df)
    assert df.resets == 1


def test_reset_repeats_the_stream_under_a_seed():
    set_seed(3)
    df = shuffled()
    first = list(df)
    assert list(df) != first
    df.reset_state()
    assert list(df) == first


def test_reset_draws_a_new_seed_without_one(caplog):
    df = shuffled(50)
    with caplog.at_level(logging.INFO, "dataflow"):
        first = list(df)
        df.reset_state()
        assert list(df) != first
    seeds = [record.args[1] for record in caplog.records]
    assert len(set(seeds)) == 2
    set_seed(seeds[0])
    assert list(shuffled(50)) == first


def test_a_seed_given_to_a_source_seeds_the_graph():
    def make():
        return MapData(DataFromList([[i] for i in range(9)], seed=4), drawn)

    assert list(make()) == list(make())


def test_a_flow_with_its_own_seed_ignores_the_root_seed():
    def order(root):
        set_seed(root)
        return list(DataFromList([[i] for i in range(9)], seed=4))

    assert order(1) == order(2)


@pytest.mark.parametrize("seed", [-1, 1.5, "7", True], ids=repr)
def test_a_wrong_seed_is_an_error(seed):
    with pytest.raises((TypeError, ValueError), match="seed must be an integer of at least 0"):
        set_seed(seed)


def test_two_shuffled_sources_draw_different_orders():
    set_seed(1)
    df = Twice(shuffled(20))
    rows = list(df)
    assert rows[:20] != rows[20:]
    assert sorted(rows[:20]) == sorted(rows[20:])


def test_inserting_a_flow_that_draws_nothing_changes_no_value():
    set_seed(1)
    plain = ShuffleData(MapData(shuffled(), drawn), 4)
    padded = ProxyDataFlow(ShuffleData(ProxyDataFlow(MapData(MapData(ProxyDataFlow(shuffled()), abs_all), drawn)), 4))
    assert list(padded) == list(plain)


def test_rng_is_a_random_state_keyed_by_place_and_pass():
    set_seed(5)
    df = Dice(1)
    words = [np.random.SeedSequence(5, spawn_key=(0, number, 0)) for number in range(2)]
    wanted = [np.random.RandomState(np.random.MT19937(word)).randint(1000) for word in words]
    assert [dp[1] for _ in range(2) for dp in df] == wanted
    assert isinstance(df.rng, np.random.RandomState)


def test_map_draws_what_a_fresh_generator_draws():
    set_seed(5)
    key = np.random.SeedSequence(5, spawn_key=(0, 0, 1)).generate_state(2, np.uint64)
    wanted = [drawn([i], np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, i + 1]))) for i in range(9)]
    df = MapData(numbers_without_rng(9), drawn)
    assert list(df) == wanted


class numbers_without_rng(DataFlow):  # noqa: N801  # reads as a function above
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for i in range(self.count):
            yield [i]


def test_passes_of_one_random_flow_have_generators_of_their_own():
    set_seed(2)
    alone = list(Dice())
    df = Dice()
    first = iter(df)
    got = [next(first)]
    list(islice(iter(df), 4))
    assert got + list(first) == alone


def test_rng_may_be_replaced():
    df = Dice(2)
    df.rng = np.random.RandomState(1)
    same = np.random.RandomState(1)
    wanted = [[i, same.randint(1000), same.randn()] for i in range(2)]
    assert list(df) == wanted


def test_rng_outside_of_a_pass_starts_again_at_reset():
    set_seed(3)
    df = Dice(1)
    value = df.rng.randint(1000)
    df.reset_state()
    assert df.rng.randint(1000) == value


def test_position_of_a_shared_source_under_two_roots():
    set_seed(1)
    source = shuffled(12)
    alone = list(RepeatedData(shuffled(12), 2))
    df, other = RepeatedData(source, 2), BatchData(source, 4)
    it = iter(df)
    got = [next(it) for _ in range(3)]
    next(iter(other))
    assert got + list(it) == alone


def test_state_of_another_graph_names_both():
    state = shuffled().state_dict()
    with pytest.raises(UsageError, match=r"taken from DataFromList, and this flow is BatchData <- DataFromList"):
        BatchData(shuffled(), 2).load_state_dict(state)


@pytest.mark.parametrize(
    ("state", "match"),
    [
        ({}, "has no at, done, graph, pass, seed, version"),
        ({"version": 99, "graph": [], "seed": 1, "pass": 0, "at": {}, "done": False}, "format 99"),
    ],
    ids=["empty", "version"],
)
def test_what_is_no_state_is_an_error(state, match):
    with pytest.raises(UsageError, match=match):
        shuffled().load_state_dict(state)


def test_a_state_must_be_a_dict():
    with pytest.raises(TypeError, match="state must be a dict that state_dict"):
        shuffled().load_state_dict("nothing")


def test_state_behind_an_error_is_behind_the_last_datapoint_received():
    class Boom(Exception):
        pass

    def fails(dp):
        if dp[0] == 5 and broken:
            raise Boom
        return dp

    broken = True
    df = BatchData(MapData(numbers(9), fails), 3)
    it = iter(df)
    assert next(it)[0].tolist() == [0, 1, 2]
    with pytest.raises(Boom):
        next(it)
    state = json.loads(json.dumps(df.state_dict()))
    assert json.loads(json.dumps(it.state_dict())) == state
    broken = False
    resumed = BatchData(MapData(numbers(9), fails), 3)
    resumed.load_state_dict(state)
    assert [dp[0].tolist() for dp in resumed] == [[3, 4, 5], [6, 7, 8]]


def test_state_behind_an_error_far_into_a_pass():
    def fails(dp):
        if dp[0] == 5000:
            raise ValueError("five thousand")
        return dp

    df = MapData(numbers(6000), fails)
    with pytest.raises(ValueError, match="five thousand"):
        list(df)
    state = df.state_dict()
    assert state["skip"] < 2000
    resumed = MapData(numbers(6000), lambda dp: dp)
    resumed.load_state_dict(state)
    assert next(iter(resumed)) == [5000]


def test_a_state_that_fails_to_load_is_not_lost():
    df = Source()
    it = iter(df)
    next(it)
    state = df.state_dict()
    resumed = MapData(ProxyDataFlow(Source()), Exception)
    with pytest.raises(UsageError):
        resumed.load_state_dict(state)
    other = Source()
    other.load_state_dict(state)
    assert other.state_dict() == state
    assert list(other) == [[2], [3]]


def test_an_iterator_that_was_never_asked_leaves_no_pass_behind():
    df = numbers(3)
    it = iter(df)
    del it
    assert df._latest._frozen is not None


def test_closing_an_iterator_ends_it():
    df = numbers(3)
    it = iter(df)
    next(it)
    it.close()
    assert list(it) == []
    assert df.state_dict()["at"] == {"pass": [0], "index": 1}


def test_a_position_is_refused_to_a_signal_handler_while_a_datapoint_is_read():
    asked = []

    def save(*_):
        with pytest.raises(UsageError, match=r"set a flag, and call state_dict\(\) between two datapoints"):
            asked.append(df.state_dict())
        with pytest.raises(UsageError, match="while the pass is reading a datapoint"):
            asked.append(it.state_dict())

    def signalled(dp):
        signal.raise_signal(signal.SIGUSR1)
        return dp

    before = signal.signal(signal.SIGUSR1, save)
    try:
        df = MapData(numbers(3), signalled)
        it = iter(df)
        assert next(it) == [0]
        assert asked == []
        assert df.state_dict()["at"]["n"] == 1
        assert list(it) == [[1], [2]]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_with_closes():
    with FixedSizeData(numbers(3), 2) as df:
        it = iter(df)
        next(it)
    assert list(it) == []
    assert list(df) == [[1], [2]]


def test_a_second_overlapping_pass_names_the_way_out():
    df = FixedSizeData(numbers(3), 2)
    first = iter(df)
    next(first)
    with pytest.raises(UsageError, match=r"FixedSizeData\(ds=DataFromList, size=2\) is already .*df\.close\(\)"):
        next(iter(df))
    del first
    assert list(df) == [[1], [2]]


def test_a_pass_that_raised_frees_its_flow():
    df = MapData(FixedSizeData(numbers(3), 2), lambda dp: 1 / dp[0] if dp[0] == 0 else dp)
    with pytest.raises(ZeroDivisionError) as kept:  # its traceback keeps the frames alive
        list(df)
    assert next(iter(df)) == [1]
    assert kept


def test_a_forked_process_starts_afresh():
    set_seed(1)
    df = shuffled()
    whole = list(df)
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, pickle.dumps(list(df)))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        rows = pickle.load(pipe)
    os.waitpid(pid, 0)
    assert rows == whole


def test_another_thread_is_outside_of_a_running_iter():
    class Outer(ProxyDataFlow):
        def __iter__(self):
            for dp in self.ds:
                found = []
                thread = threading.Thread(target=lambda found=found: found.extend(numbers(2)))
                thread.start()
                thread.join()
                yield [dp, found]

    assert list(Outer(numbers(1))) == [[[0], [[0], [1]]]]


def test_a_pass_of_a_class_of_ones_own_goes_on_in_another_thread():
    df = Odd(numbers(8))
    it = iter(df)
    rows = [next(it)]
    thread = threading.Thread(target=lambda: rows.append(next(it)))
    thread.start()
    thread.join()
    state = df.state_dict()
    assert rows == [[1], [3]]
    again = Odd(numbers(8))
    again.load_state_dict(state)
    assert [*again] == [*it] == [[5], [7]]


def test_a_running_flow_sees_the_context_in_which_its_pass_began():
    color = contextvars.ContextVar("color", default="red")

    class Colors(DataFlow):
        def __iter__(self):
            yield [color.get()]
            color.set("green")
            yield [color.get()]
            yield [color.get()]

    it = iter(Colors())
    color.set("blue")
    assert next(it) == ["blue"]  # it begins with the first datapoint
    color.set("yellow")
    assert [*it] == [["green"], ["green"]]
    assert color.get() == "yellow"


@pytest.mark.parametrize("how", ["dropped", "closed", "ended"])
def test_a_generator_ends_in_the_context_in_which_it_began(how):
    color, seen = contextvars.ContextVar("color", default="red"), []

    class Colors(DataFlow):
        def __iter__(self):
            token = color.set("green")
            try:
                with np.errstate(all="ignore"):
                    yield from [[1], [2]]
            finally:
                color.reset(token)
                seen.append(color.get())

    it = iter(Colors())
    next(it)
    if how == "closed":
        it.close()
    elif how == "ended":
        list(it)
    del it
    assert seen == ["red"]


def test_errors_name_the_nearest_flow_and_the_datapoint():
    class Stumbles(ProxyDataFlow):
        def __iter__(self):
            for dp in self.ds:
                if dp[0] == 2:
                    raise LookupError("two")
                yield dp

    with pytest.raises(LookupError) as caught:
        list(MapData(Odd(Stumbles(numbers(5))), lambda dp: dp))
    assert caught.value.__notes__ == ["in Stumbles(ds=DataFromList), datapoint 2"]


def test_as_flow_takes_flows_and_iterables():
    df = numbers(2)
    assert as_flow(df) is df
    assert list(as_flow([[1], [2]])) == [[1], [2]]
    assert [dp[0].tolist() for dp in BatchData([[1], [2]], 2)] == [[1, 2]]


@pytest.mark.parametrize("wrong", [3, None, "text", list], ids=repr)
def test_as_flow_refuses_what_has_no_datapoints(wrong):
    with pytest.raises(TypeError, match="ds must be a DataFlow or another iterable of datapoints"):
        as_flow(wrong)


def test_pipe_hands_over_every_argument():
    assert numbers(3).pipe(lambda df, *args, **kwargs: (len(df), args, kwargs), 1, two=2) == (3, (1,), {"two": 2})


VERBS = {
    "map": "MapData",
    "map_component": "MapDataComponent",
    "select": "SelectComponent",
    "batch": "BatchData",
    "repeat": "RepeatedData",
    "cache": "CacheData",
    "shuffle": "ShuffleData",
}


@pytest.mark.parametrize(("verb", "stage"), VERBS.items())
def test_a_verb_hands_every_argument_to_its_stage(verb, stage, monkeypatch):
    signature = inspect.signature(getattr(proxies, stage))
    ds, *options = signature.parameters.values()
    given_options = list(inspect.signature(getattr(DataFlow, verb)).parameters.values())[1:]
    assert [(p.name, p.kind, p.default) for p in given_options] == [(p.name, p.kind, p.default) for p in options]

    seen = []
    monkeypatch.setattr(proxies, stage, lambda *a, **k: seen.append(signature.bind(*a, **k).arguments))
    df = numbers(0)
    given = {option.name: object() for option in options}
    getattr(df, verb)(**given)
    assert seen == [{ds.name: df, **given}]


@pytest.mark.parametrize("name", [name for name in dataflow.__all__ if isinstance(getattr(dataflow, name), type)])
def test_no_attribute_hides_a_verb(name):
    kind = getattr(dataflow, name)
    if issubclass(kind, DataFlow):
        for verb in [*VERBS, "pipe", "size"]:
            assert getattr(kind, verb) is getattr(DataFlow, verb)


def test_old_method_names_warn():
    with pytest.warns(DeprecationWarning, match=r"df\.get_data\(\) is an old name, use iter\(df\)"):
        assert list(numbers(2).get_data()) == [[0], [1]]
    with pytest.warns(DeprecationWarning, match=r"df\.size\(\) is an old name, use len\(df\)"):
        assert numbers(2).size() == 2


def test_classes_with_old_method_names_work():
    with pytest.warns(DeprecationWarning, match="Old"):

        class Old(ProxyDataFlow):
            def get_data(self):
                for dp in self.ds:
                    yield [dp[0] + 1]

            def size(self):
                return 7

    assert list(Old(numbers(2))) == [[1], [2]]
    assert len(Old(numbers(2))) == 7


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(BatchData(numbers(9), 2)) == "BatchData(ds=DataFromList, batch_size=2)"
    assert repr(BatchData(numbers(9), 2, use_list=True)) == "BatchData(ds=DataFromList, batch_size=2, use_list=True)"
    assert repr(numbers(9)) == "DataFromList(lst=list of 9, shuffle=False)"
    assert repr(MapData(numbers(9), abs_all)) == "MapData(ds=DataFromList, func=abs_all)"
