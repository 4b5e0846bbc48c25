"""The table of faults: which happen to which kind of workers under which start method, and what a run of one says."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from . import program, supervisor

HERE = pathlib.Path(__file__).parent
METHODS = ("fork", "spawn", "forkserver")
LIMIT = 30.0
# The faults that `make test` also tries in new interpreters.
ELSEWHERE = (
    "killed",
    "unpicklable_result",
    "unpicklable_func",
    "consumer_killed_while_the_gil_is_held",
    "unguarded_script",
)
ELSEWHERE_KINDS = ("process", "zmq-map")
SCRIPT_KINDS = ("process", "zmq-map", "zmq-run")


# What a program raises, and what it means; an AssertionError of any other kind is "wrong".
VERDICTS = {"SilentLoss:": "silent loss", "Leftover:": "leftover"}


class Case(NamedTuple):
    fault: str
    kind: str
    method: str

    def __str__(self) -> str:
        return f"{self.fault}-{self.kind}-{self.method}"


class Verdict(NamedTuple):
    """What became of a case: "" for all is well, "hang", "leftover", "silent loss", or "wrong"."""

    what: str
    why: str
    seconds: float


def cases() -> Iterator[Case]:
    """Yield the whole cross product; threads have no start method."""
    kinds = {name: fault.kinds for name, fault in program.FAULTS.items()}
    for name, suited in {**kinds, "unguarded_script": SCRIPT_KINDS}.items():
        for kind in suited:
            for method in METHODS[:1] if kind.startswith("thread") else METHODS:
                yield Case(name, kind, method)


def few_cases() -> Iterator[Case]:
    """Yield each fault once a kind under fork, and some in new interpreters."""
    for case in cases():
        if case.method == "fork" or (case.fault in ELSEWHERE and case.kind in ELSEWHERE_KINDS):
            yield case


def attempt(case: Case, part: bool = False) -> Verdict:
    """Make one fault happen; of one that goes through many moments or errors, only a random part."""
    if case.fault == "unguarded_script":
        report = supervisor.run(HERE / "unguarded.py", case[1:], limit=LIMIT)
        code, said = 0, "[[10], [20], [30]]\n"
    else:
        fault = program.FAULTS[case.fault]
        arguments = [*case, *(["part"] if part else [])]
        report = supervisor.run(HERE / "program.py", arguments, limit=LIMIT, send=fault.send, to_group=fault.to_group)
        code, said = fault.code, ""
    what = why = ""
    if report.code is None:
        what, why = "hang", f"no end after {LIMIT:g} s"
    elif report.code != code:
        what = next((word for name, word in VERDICTS.items() if f"\n{name}" in report.err), "wrong")
        why = f"exit code {report.code} instead of {code}"
    elif report.left:
        what, why = "leftover", ", ".join(report.left)
    elif said not in report.out or (code == 0 and report.err):
        what, why = "wrong", "it printed something else"
    if what:
        why = f"{case}: {why}\n{report.out}{report.err}"
    return Verdict(what, why, report.seconds)
