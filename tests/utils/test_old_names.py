from __future__ import annotations

import inspect

import pytest

from dataflow.utils.old_names import renamed


@renamed(nr="num", nr_proc="num_proc")
def function(ds, num=1, *, num_proc=2):
    """Do something."""
    return ds, num, num_proc


def test_new_names_pass_without_a_warning():
    assert function("ds", 3, num_proc=4) == ("ds", 3, 4)


def test_an_old_name_works_and_warns_at_the_callers_line():
    with pytest.warns(DeprecationWarning, match="the argument 'nr' is an old name, use 'num'") as caught:
        assert function("ds", nr=3) == ("ds", 3, 2)
    assert caught[0].filename == __file__


def test_two_old_names_give_two_warnings():
    with pytest.warns(DeprecationWarning, match="is an old name") as caught:
        assert function("ds", nr_proc=4, nr=3) == ("ds", 3, 4)
    assert len(caught) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_names_are_an_error():
    with pytest.raises(TypeError, match="'nr' is the old name of 'num'; pass only one of them"):
        function("ds", num=3, nr=3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_old_name_beside_a_positional_argument_is_an_error():
    with pytest.raises(TypeError, match="multiple values for argument 'num'"):
        function("ds", 3, nr=3)


def test_an_unknown_name_stays_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'number'"):
        function("ds", number=3)


def test_the_signature_and_the_docstring_stay():
    assert str(inspect.signature(function)) == "(ds, num=1, *, num_proc=2)"
    assert function.__doc__ == "Do something."
