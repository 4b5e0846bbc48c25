"""What cannot be sent to another process is named by the place that holds it."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest

from dataflow.utils.pickling import explain

LOCK = threading.Lock()


class Holds:
    def __init__(self, value):
        self.value = value

    def method(self, dp):
        return dp


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


class LeavesOut(Holds):
    """Has one lock that does not travel, and one that would."""

    def __init__(self):
        super().__init__(LOCK)
        self.other = [LOCK]

    def __getstate__(self):
        return {"other": self.other}


def closure():
    lock = LOCK
    return lambda dp: (lock, dp)


def of_empty_cell():
    func = lambda dp: (LOCK, later)  # noqa: E731  # it travels by value for having no name
    if LOCK is None:
        later = 1
    return func


def local_class():
    class Local:
        lock = LOCK

    return Local


def heir():
    class Heir(local_class()):
        pass

    return Heir()


@pytest.mark.parametrize(
    ("make", "place"),
    [
        pytest.param(lambda: {"a": [1, LOCK]}, "func['a'][1]", id="dict and list"),
        pytest.param(closure, "func's variable lock", id="variable of a closure"),
        pytest.param(lambda: lambda dp: (LOCK, dp), "func's global LOCK", id="global"),
        pytest.param(lambda: lambda: lambda dp: (LOCK, dp), "func's global LOCK", id="global of a function inside"),
        pytest.param(of_empty_cell, "func's global LOCK", id="a variable without a value"),
        pytest.param(lambda: lambda dp, lock=LOCK: dp, "func.__defaults__[0]", id="default"),
        pytest.param(lambda: lambda dp, *, lock=LOCK: dp, "func.__kwdefaults__['lock']", id="keyword-only default"),
        pytest.param(lambda: partial(max, LOCK), "func.args[0]", id="argument of a partial"),
        pytest.param(lambda: partial(max, key=LOCK), "func.keywords['key']", id="keyword of a partial"),
        pytest.param(lambda: partial(lambda dp: LOCK), "func.func's global LOCK", id="function of a partial"),
        pytest.param(lambda: Holds([LOCK]), "func.value[0]", id="attribute"),
        pytest.param(lambda: Holds(LOCK).method, "func.__self__.value", id="method"),
        pytest.param(lambda: Slotted(LOCK), "func.value", id="slot"),
        pytest.param(LeavesOut, "func.other[0]", id="an object that says what travels"),
        pytest.param(local_class, "func.lock", id="class"),
        pytest.param(lambda: local_class()(), "func's class.lock", id="class of an object"),
        pytest.param(heir, "func's class.__bases__[0].lock", id="base class"),
    ],
)
def test_the_innermost_place_is_named_with_a_way_out(make, place):
    assert explain([("fine", 1), ("func", make())], TypeError("no")) == (
        f"{place} is a lock and cannot be sent to another process: cannot pickle '_thread.lock' object. "
        "Take it out, or make it anew in the process that uses it."
    )


def test_where_no_part_is_to_blame_there_still_is_a_way_out():
    assert explain([("dp", 1)], TypeError("no")) == (
        "this cannot be sent to another process: no. Take it out, or make it anew in the process that uses it."
    )


def test_what_a_function_of_the_main_module_uses_is_found_although_it_has_a_name_there():
    program = (
        "import threading\n"
        "from dataflow.utils import pickling\n"
        "lock = threading.Lock()\n"
        "def func(dp): return lock\n"
        "class Func:\n"
        "    def __call__(self, dp): return func(dp)\n"
        "try: pickling.travel(Func(), main_by_value=True)\n"
        "except TypeError as error: print(pickling.explain([('map_func', Func())], error))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("map_func's class.__call__'s global func's global lock is a lock and cannot be sent")
