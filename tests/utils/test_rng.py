from __future__ import annotations

import functools
import logging

import numpy as np
import pytest

import dataflow
from dataflow.utils import rng
from dataflow.utils.rng import KeyedGenerator, wants_rng

SEQUENCE = np.random.SeedSequence(7, spawn_key=(1, 0, 1))


def fresh(n):
    key = SEQUENCE.generate_state(2, np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, n], np.uint64)))


class TestKeyedGenerator:
    @pytest.mark.parametrize("n", [0, 1, 2, 1023, 2**32, 2**63, 2**64 - 1])
    def test_stream_n_is_that_of_a_fresh_philox(self, n):
        draw = KeyedGenerator(SEQUENCE)
        assert draw(n).random(5).tolist() == fresh(n).random(5).tolist()

    @pytest.mark.parametrize(
        "use",
        [
            pytest.param(lambda g: g.normal(), id="a Gaussian"),
            pytest.param(lambda g: g.integers(10, dtype=np.int32), id="half a word"),
            pytest.param(lambda g: g.bytes(3), id="bytes"),
            pytest.param(lambda g: g.permutation(7), id="a permutation"),
            pytest.param(lambda g: g.random(3), id="part of a buffer"),
        ],
    )
    def test_nothing_of_a_stream_is_left_over(self, use):
        draw = KeyedGenerator(SEQUENCE)
        use(draw(1))
        again = draw(2)
        expected = fresh(2)
        assert (
            again.integers(1 << 16, size=3, dtype=np.uint32).tolist()
            == expected.integers(1 << 16, size=3, dtype=np.uint32).tolist()
        )
        assert again.normal() == expected.normal()

    def test_streams_may_be_drawn_in_any_order(self):
        draw = KeyedGenerator(SEQUENCE)
        forward = [draw(n).random() for n in range(5)]
        assert [draw(n).random() for n in reversed(range(5))] == forward[::-1]
        assert len(set(forward)) == 5

    def test_it_is_one_object_moved(self):
        draw = KeyedGenerator(SEQUENCE)
        assert draw(0) is draw(1)

    def test_two_of_them_do_not_disturb_each_other(self):
        one, two = KeyedGenerator(SEQUENCE), KeyedGenerator(SEQUENCE)
        generator = one(3)
        first = generator.random()
        two(4).random(100)
        assert [first, generator.random()] == fresh(3).random(2).tolist()


class Drawing:
    def __call__(self, dp, rng):
        return dp

    def method(self, dp, rng):
        return dp

    @staticmethod
    def static(dp, rng):
        return dp


def scaled(scale, dp, rng=None):
    return dp


@pytest.mark.parametrize(
    ("func", "wanted"),
    [
        pytest.param(lambda dp, rng: dp, True, id="positional"),
        pytest.param(lambda dp, *, rng: dp, True, id="keyword"),
        pytest.param(lambda dp, rng=None: dp, True, id="default"),
        pytest.param(Drawing(), True, id="object"),
        pytest.param(Drawing().method, True, id="method"),
        pytest.param(Drawing.static, True, id="static method"),
        pytest.param(functools.partial(scaled, 2), True, id="partial"),
        pytest.param(functools.partial(scaled, 2, rng=None), False, id="partial that binds it"),
        pytest.param(lambda dp: dp, False, id="none"),
        pytest.param(lambda rng: rng, False, id="the datapoint itself"),
        pytest.param(lambda dp, **options: dp, False, id="keywords"),
        pytest.param(lambda dp, *rng: dp, False, id="variable"),
        pytest.param(len, False, id="builtin"),
        pytest.param(dict, False, id="no signature"),
        pytest.param(np.add, False, id="ufunc"),
    ],
)
def test_a_declared_parameter_is_found(func, wanted):
    assert wants_rng(func) is wanted


class TestSeed:
    def test_it_is_public_and_resets(self):
        dataflow.set_seed(5)
        assert rng.default_seed() == 5
        dataflow.set_seed(None)
        assert rng.default_seed() is None

    def test_a_numpy_integer_becomes_a_plain_one(self):
        dataflow.set_seed(np.int64(5))
        assert type(rng.default_seed()) is int

    @pytest.mark.parametrize(
        ("wrong", "error"), [(-1, ValueError), (0.5, TypeError), ("1", TypeError), (True, TypeError)], ids=repr
    )
    def test_a_wrong_seed_is_an_error_and_changes_nothing(self, wrong, error):
        dataflow.set_seed(3)
        with pytest.raises(error, match="seed must be an integer of at least 0, got"):
            dataflow.set_seed(wrong)
        assert rng.default_seed() == 3

    def test_a_drawn_seed_is_logged_with_how_to_repeat_it(self, caplog):
        with caplog.at_level(logging.INFO, logger="dataflow"):
            seed = rng.draw_seed("MyFlow()")
        assert caplog.messages == [f"root seed of MyFlow(): {seed} (repeat this run with dataflow.set_seed)"]
        assert rng.checked_seed(seed) == seed

    def test_drawn_seeds_differ(self):
        assert len({rng.draw_seed("x") for _ in range(20)}) == 20

    def test_random_state_is_mt19937_of_the_sequence(self):
        expected = np.random.RandomState(np.random.MT19937(SEQUENCE))
        assert rng.random_state(SEQUENCE).randint(1000, size=5).tolist() == expected.randint(1000, size=5).tolist()
