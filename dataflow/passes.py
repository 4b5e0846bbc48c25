"""Passes: what happens between ``iter(df)`` and the end, and how a pass is continued in another process.

Who holds whom, for ``for dp in BatchData(MyFlow(DataFromList(rows)), 32)``::

    Pass --> Log.rows --> BatchData's iterator --> counted(MyFlow) --> DataFromList's iterator
     |         |                                       |
     |         +-- Run: seed, number of every flow     +-- Scope: path, rng of this pass of MyFlow
     +-- state_dict(): Log.header + the place of every iterator, asked from the end of the chain

The life of one pass:

1.  ``iter(df)`` calls ``begin``. Inside the running ``__iter__`` of a user's class (a Scope is active here)
    the new iterator belongs to that pass, and steps 2 to 4 are left out.
2.  Flows that this process has not reset yet are reset; a state that was loaded says where to start.
3.  ``walk(flow, at, run)`` goes down the graph. Each flow returns an iterator and a function ``place``, which says in
    a small JSON-able dict where ``walk`` must start to continue behind the datapoint delivered last.
4.  The Log delivers, and notes the place every ROUND datapoints or so. After an error the position is that Mark and a
    count, and not what was read ahead. Where workers decide the order a count says nothing: there the place is noted
    before every datapoint, or asked once more if it is the place of these workers alone.
5.  The pass ends, fails or is dropped: the Log freezes its last state and lets go of everything else.
"""

from __future__ import annotations

import copy
import functools
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UsageError
from .utils.rng import KeyedGenerator, random_state
from .utils.tally import tally

if TYPE_CHECKING:
    from .base import DataFlow

Place = dict[str, Any]
Walk = tuple[Iterator[Any], Callable[[], Place]]
Walker = Callable[["DataFlow", Place, "Run"], Walk]
# What a stream is drawn from: a seed and a spawn key.
Key = tuple[int, tuple[int, ...]]
# What a copy of a part of the graph must know: the root seed, and the seed and number of each of its flows.
Part = tuple[int, list[tuple[int, int]]]

VERSION = 1
# How often the place is noted, in datapoints; where that takes more than 1 % of the time, half as often.
ROUND = 1024
# Flows that a user's __iter__ makes on the fly are numbered from here; their path tells them apart.
ADOPTED = 1 << 20
# The last number of a spawn key: what the stream is drawn for.
FLOW, SAMPLE = 0, 1


class Run:
    """What the flows of one graph share while they run: the root seed, and the number of each."""

    def __init__(self, root: DataFlow, seed: int, first: int = 0, replica: tuple[int, ...] = ()) -> None:
        self.seed = seed
        self.replica = replica
        self.in_order = False  # whether maps that have no fixed order must keep that of what is below them
        # Replica 0 draws what the flow itself would: zeros at the end count for nothing.
        self._suffix = replica[: max((depth for depth, i in enumerate(replica, 1) if i), default=0)]
        self.flows: list[DataFlow] = []
        self.here: list[DataFlow] = []  # those that run in this process
        self._keys: dict[int, tuple[int, int]] = {}
        self._next = first
        self._number(root, seed)
        self._read_again: set[int] = set()
        for flow in reversed(self.flows):  # what draws from others comes before them
            if flow._replays or id(flow) in self._read_again:
                self._read_again.update(map(id, flow._children()))

    def keeps_order(self, flow: DataFlow) -> bool:
        """Say whether ``flow`` must yield in a fixed order: flows above it may read from it again to go back."""
        return self.in_order or id(flow) in self._read_again

    @property
    def unordered(self) -> list[DataFlow]:
        """The flows that yield in another order each time."""
        return [flow for flow in self.flows if flow._unordered and (flow._remote or not self.keeps_order(flow))]

    def _number(self, flow: DataFlow, seed: int, here: bool = True) -> None:
        """Number ``flow`` and what is below it, sources first; only random flows count."""
        if id(flow) in self._keys:
            return
        self._keys[id(flow)] = (seed, -1)  # a graph with a cycle ends here
        for child in flow._children():
            self._number(child, seed if child._seed is None else child._seed, here and not flow._remote)
        self._keys[id(flow)] = (seed, self._next)
        self._next += flow._random
        self.flows.append(flow)
        if here:
            self.here.append(flow)

    def part(self, root: DataFlow) -> Part:
        """Return how ``root`` and the flows below it are numbered, for a copy of them in a worker."""
        return self.seed, [self._keys[id(flow)] for flow in graph(root)]

    @classmethod
    def of_replica(cls, root: DataFlow, part: Part, replica: tuple[int, ...]) -> Run:
        """Return the run of a worker's copy of ``root``, numbered as the original is."""
        seed, keys = part
        run = cls(root, seed, replica=replica)
        run._keys = {id(flow): key for flow, key in zip(run.flows, keys, strict=True)}
        return run

    def key(self, flow: DataFlow, path: list[int], use: int = FLOW) -> Key:
        """Return what the stream that ``flow`` draws in the pass ``path`` is drawn from."""
        seed, number = self._keys[id(flow)]
        # The last number tells how many of those before it name a replica: no two streams have one key.
        return seed, (number, *path, *self._suffix, use + 2 * len(self._suffix))

    def sequence(self, flow: DataFlow, path: list[int], use: int = FLOW) -> np.random.SeedSequence:
        """Return the seed of the stream that ``flow`` draws in the pass ``path``."""
        seed, spawn_key = self.key(flow, path, use)
        return np.random.SeedSequence(seed, spawn_key=spawn_key)

    def generator(self, flow: DataFlow, path: list[int], use: int = FLOW) -> KeyedGenerator:
        """Return the streams that ``flow`` draws in the pass ``path``: one for each block, or one for each sample."""
        return KeyedGenerator(self.sequence(flow, path, use))

    def adopt(self, flow: DataFlow) -> Run:
        """Return the run to walk ``flow`` in: this one, or one more for a flow that is not part of the graph."""
        if id(flow) in self._keys:
            return self
        run = Run(flow, self.seed, ADOPTED, self.replica)
        run.in_order = True  # to go back is to run again what has opened it
        return run

    def release(self) -> None:
        """Free the flows that a pass of this run holds for itself."""
        for flow in self.flows:
            if flow._holder is not None and flow._holder[1]() is self:
                flow._holder = None


class Scope:
    """One pass of a user-written ``__iter__``: where the iterators that it opens belong, and its generator."""

    def __init__(self, flow: DataFlow, path: list[int], run: Run) -> None:
        self.flow = flow
        self.path = path
        self.run = run
        self._children = 0
        self._rng: np.random.RandomState | None = None

    @property
    def rng(self) -> np.random.RandomState:
        """The generator of this pass, made at first use."""
        if self._rng is None:
            self._rng = random_state(self.run.sequence(self.flow, self.path))
        return self._rng

    def open(self, flow: DataFlow, walk: Walker) -> Iterator[Any]:
        """Walk ``flow`` as a part of this pass: ``super().__iter__()``, or the j-th child, which appends j."""
        if flow is self.flow:
            return walk(flow, {"pass": self.path}, self.run)[0]
        flow._make_ready()
        path = [*self.path, self._children]
        self._children += 1
        return walk(flow, {"pass": path}, self.run.adopt(flow))[0]


_scope: ContextVar[Scope | None] = ContextVar("dataflow pass", default=None)


class _Active:
    """The Scope whose code runs here and now, if any."""

    @property
    def scope(self) -> Scope | None:
        return _scope.get()

    def within(self, scope: Scope) -> Callable[..., Any]:
        """Return what calls a function with ``scope`` active, as ``run(function, *args)``.

        That is 5 ns, where to set a variable and to set it back takes 100 and a Python frame. The other variables of
        the context are what they are now.
        """
        context = copy_context()
        context.run(_scope.set, scope)
        return context.run

    def __reduce__(self) -> str:
        return "active"  # the walk of a class that travels by value refers to this very object


active = _Active()


def graph(root: DataFlow) -> list[DataFlow]:
    """List ``root`` and every flow below it once, sources first."""
    return Run(root, 0).flows


def begin(flow: DataFlow, walk: Walker) -> Iterator[Any]:
    """Start a pass of ``flow``, or a part of the pass that the code around is in."""
    if active.scope is not None:
        return active.scope.open(flow, walk)
    flow._make_ready()
    state = flow._loaded or flow._fresh_state()
    flow._root_seed = state["seed"]
    run = Run(flow, state["seed"])
    if state["done"]:
        # Finish what was finished: that leaves caches and kept iterators as they were, and yields nothing.
        deque(walk(flow, state["at"], run)[0], maxlen=0)
        state = flow._fresh_state(state["pass"] + 1)
    rows, place = _resumed(flow, walk, state, run)
    flow._loaded, flow._count = None, state["pass"] + 1
    flow._latest = log = Log(rows, place, run, {key: state[key] for key in ("version", "graph", "seed", "pass")})
    it = Pass(log)
    flow._pass = weakref.ref(it)
    return it


def _resumed(flow: DataFlow, walk: Walker, state: Place, run: Run) -> Walk:
    """Walk ``flow`` from ``state`` on: from a place, or so many datapoints behind it."""
    at, skip = state["at"], state.get("skip", 0)
    if skip and run.unordered:
        for member in run.unordered:
            if member._remote or member not in run.here:
                raise UsageError(
                    f"this state was taken after an error and counts datapoints in a fixed order, and {member!r} has "
                    "none. Build it with as many workers as it had when the state was taken."
                )
        before = Run(flow, run.seed)
        before.in_order = True
        rows, place = walk(flow, at, before)
        deque(islice(rows, skip), maxlen=0)
        at, skip = place(), 0
        del rows, place
        before.release()
    rows, place = walk(flow, at, run)
    deque(islice(rows, skip), maxlen=0)
    return rows, place


class Mark:
    """Know the way back to behind the datapoint that a walk gave last, also when it has failed.

    Args:
        place: tells where the walk stands.
        exact: a count says nothing about it, since what it gives comes in another order each time.
    """

    def __init__(self, place: Callable[[], Place], exact: bool) -> None:
        self._place, self.exact = place, exact
        self.note(0)

    def note(self, given: int) -> None:
        """Note the place, before the datapoint is asked for that comes after ``given`` of them."""
        self._at, self._given = self._place(), given

    def back(self, given: int) -> tuple[Place, int]:
        """Return a place, and how many of the ``given`` datapoints came behind it."""
        if self.exact and given != self._given:  # Ctrl-C before it was noted, so before anything more was read
            self.note(given)
        return self._at, given - self._given


class Log:
    """Deliver one pass and know where it stands."""

    running: weakref.ref[Iterator[Any]]

    def __init__(self, it: Iterator[Any], place: Callable[[], Place], run: Run, header: Place) -> None:
        self._it, self._place, self._run = it, place, run
        self._header = header
        self._frozen: Place | None = None

    def rows(self) -> Iterator[Any]:
        """Yield the pass; the only Python frame between a flow's iterator and the consumer."""
        it, given = tally(self._it)
        root, unordered = self._run.flows[-1], self._run.unordered
        mark = Mark(self._place, exact=any(flow is not root for flow in unordered))
        noted, every, last = 0, 1 if mark.exact else ROUND, time.perf_counter()
        try:
            while True:
                yield from islice(it, every)
                if given() < noted + every:
                    break
                start = time.perf_counter()
                noted = given()
                mark.note(noted)
                if not mark.exact and time.perf_counter() - start > 0.01 * (start - last):
                    every *= 2
                last = start
        except GeneratorExit:
            self.finish()
            raise
        except BaseException:
            self._run.release()
            # Workers right here know what they have delivered, and nobody above them has read ahead.
            at, skip = (self._place(), 0) if unordered and not mark.exact else mark.back(given())
            self._freeze(at=at, skip=skip, done=False)
            raise
        self.finish(done=True)

    def finish(self, done: bool = False) -> None:
        """Keep the last state and let go of the iterators."""
        if self._frozen is None:
            self._freeze(at=self._place(), done=done)

    def _freeze(self, **position: Any) -> None:
        self._frozen = {**self._header, **position}
        # Deleted, not kept as None: a reference would keep files open and flows held.
        del self._it, self._place, self._run

    def state(self) -> Place:
        running = self.running()
        if self._frozen is None and getattr(running, "gi_running", False):
            raise UsageError(
                "state_dict() was called while the pass is reading a datapoint, by a signal handler, another thread or "
                "a function of the flow. Let it set a flag, and call state_dict() between two datapoints."
            )
        state = self._frozen or {**self._header, "at": self._place(), "done": False}
        refuse_lost(state)
        return copy.deepcopy(state)


class Pass(chain[Any]):
    """The iterator over one pass. ``itertools.chain`` gives it a C-level ``__next__``; it adds the position."""

    _log: Log
    _rows: Iterator[Any]

    def __new__(cls, log: Log) -> Pass:
        rows = log.rows()
        self = super().__new__(cls, rows)
        self._log, self._rows = log, rows
        log.running = weakref.ref(rows)  # which refers to the log
        return self

    def state_dict(self) -> Place:
        """Return the position of this pass; see ``DataFlow.state_dict``."""
        return self._log.state()

    def close(self) -> None:
        """End the pass now; what was received last stays its position."""
        try:
            self._rows.close()  # type: ignore[attr-defined]  # a generator
        except ValueError:  # it runs: in another thread, or below the signal handler that calls this. It ends by itself
            return
        self._log.finish()

    def __del__(self) -> None:
        if not sys.is_finalizing():  # nobody asks any more, and modules may be gone
            self._log.finish()  # a generator that was never started runs no clean-up of its own


class Exclusive(chain[Any]):
    """Iterate ``it``; from the first datapoint until the end, or until it is dropped, hold ``flow`` for itself."""

    def __new__(cls, flow: DataFlow, it: Iterator[Any], run: Run) -> Exclusive:
        door = _Door(flow, run)
        self = super().__new__(cls, door, it, door.leave())
        door.me = weakref.ref(self)
        return self


class _Door:
    """An empty iterator that takes hold of a flow, or raises for as long as another pass holds it."""

    me: weakref.ref[Exclusive]

    def __init__(self, flow: DataFlow, run: Run) -> None:
        self.flow, self.run = flow, run

    def __iter__(self) -> _Door:
        return self

    def __next__(self) -> Any:
        holder = self.flow._holder
        if holder is not None and holder[0]() is not None and holder[0] is not self.me:
            raise UsageError(
                f"{self.flow!r} is already being iterated, and two passes of it cannot run at once. End the other "
                "pass first: finish it, drop its iterator, or call df.close(); or make a second flow."
            )
        # Both weakly: the run refers to the flow, which must go with its last reference, and its workers with it.
        self.flow._holder = (self.me, weakref.ref(self.run))
        raise StopIteration

    def leave(self) -> Iterator[Any]:
        """Let go of the flow; an empty iterator too."""
        self.flow._holder = None
        yield from ()


def counted(iterate: Callable[[Any], Iterator[Any]]) -> Walker:
    """Make a walk of a user-written ``__iter__``: its position is a count, and to go back is to skip."""

    @functools.wraps(iterate)
    def walk(flow: DataFlow, at: Place, run: Run) -> Walk:
        path, skip = at["pass"], at.get("count", 0)
        if at.get("end"):
            return iter(()), lambda: {**at}
        outer = active.scope
        if outer is not None and outer.flow is flow:  # called by super().__iter__() in a subclass
            scope, carried = outer, {}
        else:
            scope, carried = Scope(flow, path, run), carried_over(flow, at, run)
        given: Callable[[], int] = int  # none yet
        ended = False

        def rows() -> Iterator[Any]:
            nonlocal given, ended
            call = active.within(scope)
            step = iter(call(iterate, flow)).__next__
            it, given = tally(map(call, repeat(step)))
            held = [it, step]
            del it, step
            try:
                yield from held[0]
            except Exception as error:
                locate(error, flow, given())
                raise
            finally:
                call(held.clear)  # a generator that is dropped runs its `finally` in the context of its other code
            ended = True

        def place() -> Place:
            position = {"pass": path, "count": max(given(), skip)}
            if carried:
                position["carried"] = carried
            elif ended:
                position["end"] = True
            return position

        it = rows()
        if carried:  # now, so that the flows below stand where this pass has left them, even if it is not continued
            deque(islice(it, skip), maxlen=0)
        elif skip:
            it = islice(it, skip, None)
        return it, place

    walk.counted = True  # type: ignore[attr-defined]
    return walk


def carried_over(flow: DataFlow, at: Place, run: Run) -> dict[str, Place]:
    """Return the places from which the flows below that carry something over start this pass, by their number.

    What a user's class does with them is not known, so to go back is to put them there and let it run again.
    """
    places = {}
    for number, member in enumerate(Run(flow, 0).here):
        if member._carries:
            walks = (vars(kind).get("_walk") for kind in type(member).__mro__)
            walk = next(walk for walk in walks if walk is not None and not hasattr(walk, "counted"))
            start = at.get("carried", {}).get(str(number)) or {"pass": at["pass"]}
            places[str(number)] = walk(member, start, run)[1]()
    return places


def _inside(scope: Scope | None, function: Callable[..., Any], *args: Any) -> Any:
    """Call ``function`` with ``scope`` active."""
    before = _scope.set(scope)
    try:
        return function(*args)
    finally:
        _scope.reset(before)


def below(at: Place) -> Place:
    """Return the place for the flow below: the one kept in ``at``, or the start of the same pass."""
    return at.get("ds") or {"pass": at["pass"]}


def lost(path: list[int], why: str) -> Place:
    """Return the place of a flow that cannot go back; asking for the state raises UsageError with ``why``."""
    return {"pass": path, "lost": why}


def refuse_lost(place: Any) -> None:
    """Raise if a flow somewhere in ``place`` cannot go back."""
    if isinstance(place, dict):
        if "lost" in place:
            raise UsageError(f"this flow has no position that can be saved: {place['lost']}")
        for part in place.values():
            refuse_lost(part)
    elif isinstance(place, list):
        for part in place:
            refuse_lost(part)


def goes_back(place: Any) -> bool:
    """Say whether a walk that starts from ``place`` yields again what it has yielded."""
    if isinstance(place, dict):
        return "lost" not in place and all(map(goes_back, place.values()))
    return not isinstance(place, list) or all(map(goes_back, place))


def locate(error: BaseException, flow: DataFlow, number: int) -> None:
    """Note on ``error`` where it happened, unless a flow nearer to the cause has done so."""
    if not any(note.startswith("in ") and ", datapoint " in note for note in getattr(error, "__notes__", ())):
        error.add_note(f"in {flow!r}, datapoint {number}")
