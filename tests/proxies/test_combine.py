from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pytest

from dataflow import (
    BatchData,
    CacheData,
    ConcatData,
    DataFlow,
    DataFromList,
    FixedSizeData,
    JoinData,
    MapData,
    ProxyDataFlow,
    RandomChooseData,
    RandomMixData,
    RepeatedData,
    ShuffleData,
    set_seed,
)
from dataflow.errors import EndlessLength, UnknownLength, UsageError
from dataflow.proxies import combine
from dataflow.testing import FailsAt, check_dataflow, numbers


def rows(*values):
    return DataFromList([[value] for value in values], shuffle=False)


def endless(*values):
    return RepeatedData(rows(*values), -1)


def shuffled(count=10):
    return DataFromList([[i] for i in range(count)])


def even(dp):
    return dp if dp[0] % 2 == 0 else None


class NoLength(DataFlow):
    def __init__(self, count):
        self.count = count

    def __iter__(self):
        for i in range(self.count):
            yield [i]


class WrongLength(NoLength):
    def __init__(self, count, said):
        self.count = count
        self.said = said

    def __len__(self):
        return self.said


class Watched(ProxyDataFlow):
    """Counts the datapoints that were taken from it."""

    taken = 0

    def __iter__(self):
        for dp in self.ds:
            self.taken += 1
            yield dp


ALL = [RandomChooseData, RandomMixData, JoinData, ConcatData]


@pytest.mark.parametrize("kind", ALL)
class TestArguments:
    def test_an_empty_list_is_an_error(self, kind):
        with pytest.raises(ValueError, match="df_lists must hold at least one flow, got an empty list"):
            kind([])

    @pytest.mark.parametrize("wrong", [numbers(3), None, 3, "flows", {"a": numbers(3)}], ids=str)
    def test_something_else_than_a_list_is_an_error(self, kind, wrong):
        with pytest.raises(TypeError, match="df_lists must be a list of flows, got"):
            kind(wrong)

    def test_an_element_that_is_no_flow_is_named(self, kind):
        with pytest.raises(TypeError, match=r"df_lists\[1\]: ds must be a DataFlow or another iterable.*got 3 \(int\)"):
            kind([numbers(3), 3])

    def test_the_list_may_be_a_tuple_of_anything_iterable(self, kind):
        assert sorted(kind(([[1], [2]],))) == [[1], [2]]

    def test_the_callers_list_is_not_kept(self, kind):
        flows = [numbers(3)]
        df = kind(flows)
        flows.clear()
        assert sorted(islice(df, 3)) == [[0], [1], [2]]


@pytest.mark.parametrize("kind", [RandomMixData, JoinData, ConcatData])
def test_only_random_choose_data_takes_probabilities(kind):
    with pytest.raises(TypeError, match=r"df_lists\[0\] must be a flow, got a tuple .*Only RandomChooseData"):
        kind([(numbers(3), 0.5), (numbers(3), 0.5)])


@pytest.mark.parametrize("kind", [RandomChooseData, RandomMixData])
@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)])
def test_a_wrong_seed_is_an_error(kind, seed, error):
    with pytest.raises(error, match="seed must be an integer of at least 0"):
        kind([numbers(3)], seed=seed)


class TestRandomChooseData:
    def test_flows_are_chosen_equally_often(self):
        df = RandomChooseData([endless("a"), endless("b"), endless("c"), endless("d")], seed=0)
        counts = Counter(dp[0] for dp in islice(df, 10_000))
        assert counts.keys() == {"a", "b", "c", "d"}
        assert all(2_300 < count < 2_700 for count in counts.values())

    @pytest.mark.parametrize("pair", [tuple, list])
    def test_flows_are_chosen_by_probability(self, pair):
        df = RandomChooseData([pair([endless("a"), 0.9]), pair([endless("b"), 0.1])], seed=0)
        counts = Counter(dp[0] for dp in islice(df, 10_000))
        assert 8_800 < counts["a"] < 9_200

    def test_a_flow_of_probability_zero_is_never_chosen(self):
        df = RandomChooseData([(endless("a"), 0), (rows("b", "c"), 1)])
        assert list(df) == [["b"], ["c"]]

    @pytest.mark.parametrize(
        "probabilities",
        [[0.1] * 10, [0.6, 0.3, 0.1], [0.3, 0.7], [1], [np.float32(0.5), np.float64(0.5)]],
        ids=str,
    )
    def test_probabilities_need_not_sum_to_one_exactly(self, probabilities):
        df = RandomChooseData([(numbers(3), p) for p in probabilities])
        assert df.probabilities == [float(p) for p in probabilities]

    def test_the_order_of_each_flow_is_kept(self):
        df = RandomChooseData([numbers(100), MapData(numbers(100), lambda dp: [dp[0] + 1000])], seed=3)
        got = [dp[0] for dp in df]
        small, large = [x for x in got if x < 1000], [x - 1000 for x in got if x >= 1000]
        assert small == list(range(len(small)))
        assert large == list(range(len(large)))

    def test_it_ends_when_the_chosen_flow_is_exhausted(self):
        got = [dp[0] for dp in RandomChooseData([rows("a", "a", "a"), rows("b", "b", "b")], seed=2)]
        counts = Counter(got)
        assert max(counts.values()) == 3

    def test_each_pass_chooses_anew(self):
        df = RandomChooseData([endless("a"), endless("b")], seed=1)
        first, second = list(islice(df, 50)), list(islice(df, 50))
        assert first != second

    def test_choices_do_not_repeat_after_a_block(self):
        got = [dp[0] for dp in islice(RandomChooseData([endless(0), endless(1)], seed=1), 4096)]
        blocks = [got[start : start + 1024] for start in range(0, 4096, 1024)]
        assert all(a != b for i, a in enumerate(blocks) for b in blocks[:i])

    def test_a_pass_of_empty_flows_is_empty(self):
        assert list(RandomChooseData([rows(), rows()])) == []

    def test_one_flow_may_stand_in_the_list_twice(self):
        df = shuffled(50)
        one, two = [], []
        set_seed(4)
        for dp in RandomChooseData([MapData(df, lambda dp: [*dp, "one"]), df]):
            (one if len(dp) == 2 else two).append(dp[0])
        assert len(set(one)) == len(one) > 5
        assert len(set(two)) == len(two) > 5

    def test_the_same_flow_twice_draws_two_orders(self):
        df = shuffled(100)
        its = [dp[0] for dp in RandomChooseData([df, df], seed=4)]
        assert max(Counter(its).values()) == 2
        assert len(set(its)) < len(its)

    def test_it_has_no_length(self):
        with pytest.raises(UnknownLength, match="does not know its length"):
            len(RandomChooseData([numbers(3), endless(1)]))

    def test_of_endless_flows_it_is_endless(self):
        with pytest.raises(EndlessLength, match=r"never ends.*FixedSizeData"):
            len(RandomChooseData([endless(1), endless(2)]))

    @pytest.mark.parametrize(
        ("probabilities", "seen"), [([0.5, 0.6], "1.1"), ([0.5, 0.4], "0.9"), ([1, 1], "2"), ([0, 0], "0")], ids=str
    )
    def test_a_wrong_sum_is_named(self, probabilities, seen):
        with pytest.raises(ValueError, match=rf"must sum to 1, got {seen}; divide each by their sum"):
            RandomChooseData([(numbers(3), p) for p in probabilities])

    @pytest.mark.parametrize("wrong", [-0.5, float("nan")])
    def test_a_negative_probability_is_named(self, wrong):
        with pytest.raises(ValueError, match=rf"df_lists\[1\] must be at least 0, got {wrong}"):
            RandomChooseData([(numbers(3), 1.5), (numbers(3), wrong)])

    @pytest.mark.parametrize(
        ("wrong", "seen"),
        [("1", r"a DataFromList, '1' \(str\)"), (None, "a DataFromList, None")],
    )
    def test_a_probability_that_is_no_number_is_named(self, wrong, seen):
        with pytest.raises(TypeError, match=rf"df_lists\[0\] must be \(flow, probability\), got \({seen}\)"):
            RandomChooseData([(numbers(3), wrong)])

    def test_a_pair_of_three_is_an_error(self):
        with pytest.raises(TypeError, match=r"df_lists\[0\] must be \(flow, probability\)"):
            RandomChooseData([(numbers(3), 0.5, 0.5)])

    @pytest.mark.parametrize("flows", [[(numbers(3), 1.0), numbers(3)], [numbers(3), (numbers(3), 1.0)]], ids=len)
    def test_mixing_both_forms_is_an_error(self, flows):
        with pytest.raises(TypeError, match=r"all flows or all \(flow, probability\) tuples, got some of each"):
            RandomChooseData(flows)

    @pytest.mark.parametrize("end", [1, 2, 3])
    def test_the_position_behind_the_end_leaves_other_flows_where_they_were(self, end):
        def make():
            kept = FixedSizeData(shuffled(7), 3)
            return RandomChooseData([kept, rows(*"ab" * end)], seed=1)

        df, resumed = make(), make()
        list(df)
        resumed.load_state_dict(df.state_dict())
        assert list(resumed) == list(df)

    def test_it_keeps_the_contract_over_blocks(self, monkeypatch):
        monkeypatch.setattr(combine, "BLOCK", 4)
        check_dataflow(lambda: RandomChooseData([(numbers(15), 0.4), (shuffled(15), 0.6)]), new_process=False)


class TestRandomMixData:
    def test_it_yields_everything_once_in_the_order_of_each_flow(self):
        got = [dp[0] for dp in RandomMixData([rows(*"abcde"), rows(*range(7)), rows("x")], seed=0)]
        assert [x for x in got if x in list("abcde")] == list("abcde")
        assert [x for x in got if isinstance(x, int)] == list(range(7))
        assert len(got) == 13

    def test_every_order_is_possible(self):
        df = RandomMixData([rows("a", "a"), rows("b", "b")], seed=0)
        orders = Counter("".join(dp[0] for dp in df) for _ in range(600))
        assert orders.keys() == {"aabb", "abab", "abba", "baab", "baba", "bbaa"}
        assert all(60 < count < 140 for count in orders.values())

    @pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0), (2, 0, 0), (0, 0, 2)], ids=str)
    def test_empty_flows_are_fine_anywhere(self, counts):
        df = RandomMixData([numbers(count) for count in counts])
        assert len(df) == len(list(df)) == sum(counts)

    def test_a_flow_that_ends_early_is_passed_over(self):
        df = RandomMixData([MapData(numbers(10), even), rows(*"abc")], seed=1)
        assert len(df) == 13
        assert sorted(map(str, (dp[0] for dp in df))) == [*"02468", *"abc"]

    def test_a_flow_that_has_more_is_yielded_to_its_end(self):
        df = RandomMixData([WrongLength(6, said=2), rows("a")], seed=1)
        got = [dp[0] for dp in df]
        assert sorted(map(str, got)) == [*"012345", "a"]
        assert got[3:] == [2, 3, 4, 5]

    def test_each_pass_mixes_anew(self):
        df = RandomMixData([numbers(20), rows(*"abcdefghij")], seed=1)
        assert list(df) != list(df)

    def test_the_same_flow_twice_comes_twice(self):
        df = shuffled(20)
        assert Counter(dp[0] for dp in RandomMixData([df, df])) == dict.fromkeys(range(20), 2)

    @pytest.mark.parametrize(
        "flow", [NoLength(3), endless(1), RandomChooseData([numbers(3)])], ids=lambda flow: type(flow).__name__
    )
    def test_a_flow_without_length_is_named(self, flow):
        with pytest.raises(UnknownLength, match=rf"df_lists\[1\], {type(flow).__name__}\(.*has none.*FixedSizeData"):
            RandomMixData([numbers(3), flow])

    def test_a_cache_may_learn_its_length(self):
        check_dataflow(
            lambda: RandomMixData([CacheData(MapData(shuffled(9), even)), shuffled(3)]),
            exact_length=False, new_process=False,
        )  # fmt: skip

    def test_flows_longer_than_they_say_keep_the_contract(self):
        check_dataflow(
            lambda: RandomMixData([WrongLength(6, said=2), shuffled(3)]), exact_length=False, new_process=False
        )


class TestJoinData:
    def test_lists_are_concatenated(self):
        assert list(JoinData([DataFromList([["c1", "c2"]]), DataFromList([["c3", "c4"]])])) == [
            ["c1", "c2", "c3", "c4"]
        ]

    def test_dicts_are_merged(self):
        df = JoinData([DataFromList([{"a": 1, "b": 2}]), DataFromList([{"c": 3}])])
        assert list(df) == [{"a": 1, "b": 2, "c": 3}]

    def test_later_keys_win(self):
        df = JoinData([DataFromList([{"a": 1, "b": 2}]), DataFromList([{"a": 3}])])
        assert list(df) == [{"a": 3, "b": 2}]

    @pytest.mark.parametrize(("first", "second"), [((1,), [2]), ([1], (2,)), ((1,), (2,))], ids=str)
    def test_tuples_count_as_lists(self, first, second):
        assert list(JoinData([DataFromList([first]), DataFromList([second])])) == [[1, 2]]

    def test_more_than_two(self):
        assert list(JoinData([rows(1), rows(2), rows(3), rows(4)])) == [[1, 2, 3, 4]]

    def test_one_flow_is_handed_on(self):
        assert list(JoinData([numbers(3)])) == [[0], [1], [2]]

    def test_components_stay_in_the_order_of_the_list_whoever_is_asked_first(self):
        df = JoinData([endless("e"), NoLength(9), numbers(7), rows("a", "b"), numbers(5)])
        assert list(df) == [["e", 0, 0, "a", 0], ["e", 1, 1, "b", 1]]

    def test_it_ends_with_the_shortest(self):
        df = JoinData([numbers(5), numbers(2), numbers(4)])
        assert list(df) == [[0, 0, 0], [1, 1, 1]]
        assert len(df) == 2

    def test_nothing_is_taken_that_is_not_joined(self):
        flows = [
            Watched(numbers(9)),
            Watched(numbers(2)),
            Watched(endless(1)),
            Watched(NoLength(9)),
            Watched(numbers(3)),
        ]
        assert len(list(JoinData(flows))) == 2
        assert [flow.taken for flow in flows] == [2, 2, 2, 2, 2]

    def test_a_longer_flow_goes_on_where_the_joined_part_ended(self):
        kept = FixedSizeData(numbers(10), 5)
        df = JoinData([kept, rows("a", "b")])
        assert list(df) == [[0, "a"], [1, "b"]]
        assert list(df) == [[2, "a"], [3, "b"]]

    def test_an_empty_flow_gives_an_empty_flow(self):
        df = JoinData([numbers(3), rows()])
        assert list(df) == []
        assert len(df) == 0

    def test_endless_flows_do_not_count_for_the_length(self):
        assert len(JoinData([endless(1), numbers(4), endless(2)])) == 4

    def test_an_unknown_length_makes_it_unknown(self):
        with pytest.raises(UnknownLength):
            len(JoinData([numbers(4), NoLength(3)]))

    def test_of_endless_flows_it_is_endless(self):
        with pytest.raises(EndlessLength, match=r"JoinData.*never ends.*FixedSizeData"):
            len(JoinData([endless(1), endless(2)]))

    def test_the_same_flow_in_two_slots_has_two_iterators(self):
        df = numbers(3)
        assert list(JoinData([df, df])) == [[0, 0], [1, 1], [2, 2]]

    def test_the_same_shuffled_flow_in_two_slots_has_two_orders(self):
        df = shuffled(50)
        left, right = zip(*JoinData([df, df]), strict=True)
        assert sorted(left) == sorted(right) == list(range(50))
        assert left != right

    def test_a_flow_that_cannot_run_twice_at_once_says_so(self):
        df = FixedSizeData(numbers(3), 2)
        with pytest.raises(UsageError, match=r"FixedSizeData.*make a second flow"):
            list(JoinData([df, df]))

    @pytest.mark.parametrize(
        ("datapoints", "match"),
        [
            ([[1], {"a": 1}], r"a list, which df_lists\[0\] yields, with a dict, which df_lists\[1\]"),
            ([{"a": 1}, [1]], r"a dict, which df_lists\[0\] yields, with a list, which df_lists\[1\]"),
            ([{"a": 1}, {"b": 1}, [("c", 1)]], r"a dict, which df_lists\[0\] yields, with a list, which df_lists\[2\]"),
            ([(1,), {"a": 1}], r"a tuple, which df_lists\[0\] yields, with a dict, which df_lists\[1\]"),
        ],
        ids=["list-dict", "dict-list", "pairs-in-third", "tuple-dict"],
    )
    def test_a_list_with_a_dict_names_both(self, datapoints, match):
        df = JoinData([DataFromList([dp]) for dp in datapoints])
        with pytest.raises(TypeError, match=match):
            list(df)

    @pytest.mark.parametrize("wrong", [5, "text", np.zeros(1), None], ids=lambda x: type(x).__name__)
    @pytest.mark.parametrize("slot", [0, 1])
    def test_a_datapoint_that_is_no_list_is_named(self, wrong, slot):
        datapoints = [wrong, [1]] if slot == 0 else [[1], wrong]
        df = JoinData([DataFromList([dp]) for dp in datapoints])
        with pytest.raises(
            TypeError, match=rf"which df_lists\[{slot}\] yields: a datapoint must be a list or dict.*Map"
        ):
            list(df)

    def test_an_error_says_at_which_datapoint(self):
        df = JoinData([DataFromList([[1], [2]], shuffle=False), DataFromList([[1], {"a": 2}], shuffle=False)])
        with pytest.raises(TypeError) as caught:
            list(df)
        assert caught.value.__notes__ == ["in JoinData(df_lists=list of 2), datapoint 1"]

    def test_the_datapoints_of_the_flows_are_not_changed(self):
        first, second = {"a": 1}, {"a": 2}
        df = JoinData([MapData(numbers(1), lambda _: first), MapData(numbers(1), lambda _: second)])
        assert list(df) == [{"a": 2}]
        assert (first, second) == ({"a": 1}, {"a": 2})

    def test_caches_of_equal_length_are_both_complete_after_a_pass(self):
        flows = [CacheData(Watched(numbers(4))) for _ in range(2)]
        df = JoinData(flows)
        list(df)
        list(df)
        assert [flow.ds.taken for flow in flows] == [4, 4]

    def test_flows_that_keep_something_keep_the_contract(self):
        check_dataflow(
            lambda: JoinData(
                [CacheData(shuffled(5), True), CacheData(shuffled(7)), FixedSizeData(shuffled(3), 6), shuffled(9)]
            ),
            new_process=False,
        )


class TestConcatData:
    def test_one_after_another(self):
        assert list(ConcatData([rows("a", "b"), rows(), rows("c")])) == [["a"], ["b"], ["c"]]

    def test_its_length_is_the_sum(self):
        assert len(ConcatData([numbers(2), numbers(0), numbers(3)])) == 5

    def test_a_flow_without_length_has_none_here_either(self):
        with pytest.raises(UnknownLength):
            len(ConcatData([numbers(2), NoLength(3)]))

    def test_empty_flows_give_an_empty_flow(self):
        assert list(ConcatData([rows(), rows()])) == []

    def test_flows_start_when_it_is_their_turn(self):
        flows = [Watched(numbers(2)), Watched(numbers(2))]
        it = iter(ConcatData(flows))
        next(it)
        next(it)
        assert [flow.taken for flow in flows] == [2, 0]

    def test_the_same_shuffled_flow_twice_has_two_orders(self):
        df = shuffled(50)
        got = list(ConcatData([df, df]))
        assert sorted(got[:50]) == sorted(got[50:])
        assert got[:50] != got[50:]

    def test_it_is_one_to_one_with_its_flow(self):
        set_seed(5)
        assert list(ConcatData([shuffled(20)])) == list(shuffled(20))

    @pytest.mark.parametrize(
        "flows",
        [
            pytest.param(
                lambda: [FixedSizeData(shuffled(3), 5), shuffled(2), CacheData(shuffled(4), True)], id="each its own"
            ),
            pytest.param(lambda: [FixedSizeData(shuffled(4), 3)] * 3, id="one three times"),
            pytest.param(lambda: [CacheData(shuffled(4), True)] * 3, id="one cache three times"),
            pytest.param(
                lambda: [MapData(FixedSizeData(ShuffleData(shuffled(5), 2), 3), list), numbers(2)], id="below"
            ),
        ],
    )
    def test_what_its_flows_keep_is_part_of_the_position(self, flows):
        check_dataflow(lambda: ConcatData(flows()), new_process=False)

    def test_the_error_of_a_flow_comes_through(self):
        it = iter(ConcatData([numbers(1), FailsAt(numbers(2), 0, KeyError("lost"))]))
        assert next(it) == [0]
        with pytest.raises(KeyError, match="lost"):
            next(it)


@pytest.mark.parametrize("kind", ALL)
def test_repr_is_one_short_line(kind):
    assert repr(kind([numbers(2), numbers(3)])) == f"{kind.__name__}(df_lists=list of 2)"


def test_they_compose():
    df = BatchData(ConcatData([JoinData([rows(1, 2), rows("a", "b")]), JoinData([rows(3), rows("c")])]), 3)
    ((x, y),) = list(df)
    assert x.tolist() == [1, 2, 3]
    assert y.tolist() == ["a", "b", "c"]
