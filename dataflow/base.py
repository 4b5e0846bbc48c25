"""The contract that every flow keeps: ``DataFlow``, and the two classes that most flows start from."""

from __future__ import annotations

import copy
import functools
import inspect
import os
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

import numpy as np

from .errors import UnknownLength, UsageError
from .passes import VERSION, Log, Place, Run, Walk, active, begin, counted, graph
from .utils import check
from .utils.gauge import Gauge
from .utils.rng import default_seed, draw_seed, random_state

if TYPE_CHECKING:
    import weakref

    from .passes import Exclusive, Pass
    from .policies import ErrorPolicy
    from .proxies import (
        BatchData,
        CacheData,
        MapData,
        MapDataComponent,
        RepeatedData,
        SelectComponent,
        ShuffleData,
    )

P = ParamSpec("P")
T = TypeVar("T")

# Every reset gets a number of its own, so that one that runs can tell which children it has reached.
_stamps = count(1)


class DataFlow(ABC):  # noqa: B024  # __iter__ is abstract, out of a type checker's sight
    """Yield datapoints, each a list or dict of components; base class of every flow.

    A subclass writes ``__iter__``, and ``__len__`` where it knows its length; neither ``super().__init__()`` nor
    ``super().reset_state()`` is needed. ``iter(df)`` starts a pass, and a flow may be iterated any number of times.

    >>> class Squares(DataFlow):
    ...     def __iter__(self):
    ...         for i in range(4):
    ...             yield [i, i * i]
    >>> [dp for dp in Squares()]
    [[0, 0], [1, 1], [2, 4], [3, 9]]

    Raises:
        TypeError: at construction, if the class has no ``__iter__``.
    """

    # What a flow keeps while it runs; none of it is pickled. A built-in class names its own on top.
    _transient: ClassVar[tuple[str, ...]] = (
        "_count", "_loaded", "_latest", "_pass", "_root_seed", "_holder", "_reset_stamp", "_reset_pid", "_own_rng",
    )  # fmt: skip
    _count: int = 0
    _loaded: Place | None = None
    _latest: Log | None = None
    _pass: weakref.ref[Pass] | None = None
    _root_seed: int | None = None
    _holder: tuple[weakref.ref[Exclusive], weakref.ref[Run]] | None = None
    _reset_stamp: int = 0
    _reset_pid: int = 0

    # The seed given to this very flow.
    _seed: int | None = None
    # True: draws random numbers, so it is numbered (DataFlow and what only hands on are not).
    _random: bool = False
    # True: a pass starts where the one before has left something (a cache, a buffer, a kept iterator).
    _carries: bool = False
    # True: the order of a pass is not always the same, so that it cannot be found again by counting.
    _unordered: bool = False
    # True: to go back, it may read again from what is below it, which must come in the same order then.
    _replays: bool = False
    # How full the buffer runs between workers and this flow, while it has any.
    _gauge: Gauge | None = None
    # True: what is below runs in workers; it is numbered with the graph, and neither reset nor closed here.
    _remote: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "get_data" in own and "__iter__" not in own and "_walk" not in own:
            _warn_old(f"{cls.__name__}.get_data()", "__iter__()")
            cls.__iter__ = own["get_data"]  # type: ignore[method-assign]
            cls.get_data = DataFlow.get_data  # type: ignore[method-assign]
        if "size" in own and callable(own["size"]) and "__len__" not in own:
            _warn_old(f"{cls.__name__}.size()", "__len__()")
            cls.__len__ = own["size"]  # type: ignore[method-assign]
        if "reset_state" in own:
            cls.reset_state = _completed(own["reset_state"])  # type: ignore[method-assign,assignment]
        cls._bind_walk()

    @classmethod
    def _bind_walk(cls) -> None:
        """Make ``__iter__`` and ``_walk`` of this class two doors to the same walk."""
        own = vars(cls)
        if "_walk" in own:
            walk = own["_walk"]
        elif not hasattr(cls.__iter__, "walk") and not getattr(cls.__iter__, "__isabstractmethod__", False):
            walk = counted(cls.__iter__)  # written by a user, here or in a mixin
            cls._replays = True
        else:
            return

        @functools.wraps(cls.__iter__ if "__iter__" in own else DataFlow.__iter__)
        def __iter__(self: DataFlow) -> Iterator[Any]:  # noqa: N807  # it becomes the method
            return begin(self, walk)

        __iter__.__isabstractmethod__ = False  # type: ignore[attr-defined]  # wraps() copied the mark
        __iter__.walk = walk  # type: ignore[attr-defined]
        cls._walk = walk  # type: ignore[method-assign]
        cls.__iter__ = __iter__  # type: ignore[method-assign]

    def __iter__(self) -> Iterator[Any]:
        """Start a pass and yield its datapoints; endless flows never stop."""
        raise NotImplementedError

    if not TYPE_CHECKING:  # a type checker cannot know which classes get theirs from __init_subclass__
        __iter__ = abstractmethod(__iter__)

    def _walk(self, at: Place, run: Run) -> Walk:
        """Return an iterator over the pass from ``at`` on, and the function that tells its place; see passes.py.

        ``__init_subclass__`` writes it for a class that has only ``__iter__``.
        """
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the size of one pass, as far as it is known; a subclass says how exact that is.

        Raises:
            UnknownLength: if the size cannot be known.
        """
        raise UnknownLength(f"{self!r} does not know its length; count it, or cut it with FixedSizeData(ds, size)")

    def __bool__(self) -> bool:
        # Not by length: `if df:` asks whether there is a flow, also where the length is unknown.
        return True

    def reset_state(self) -> None:
        """Return this flow and all below it to their initial state, ready to be iterated in this process.

        Calling it twice is harmless, and so is never: the first pass in a process does it. With a seed the stream
        starts again from its beginning; without one a new root seed is drawn.
        """
        self._complete_reset(next(_stamps))

    def _complete_reset(self, stamp: int) -> None:
        """Reset the children that no reset has reached since ``stamp``, and mark this flow as reset."""
        for child in self._here():
            if child._reset_stamp < stamp:
                child.reset_state()
        self._count, self._root_seed, self._latest, self._holder = 0, None, None, None
        self._reset_stamp, self._reset_pid = next(_stamps), os.getpid()

    def _make_ready(self) -> None:
        """Reset what this process has not reset yet."""
        pid = os.getpid()
        if self._reset_pid != pid:
            self.reset_state()
        for flow in Run(self, 0).here:
            if flow._reset_pid != pid:
                flow.reset_state()

    def close(self) -> None:
        """End the running pass and free what it holds (files, workers, sockets). The flow may be iterated again."""
        self._holder = None
        if self._pass is not None and (running := self._pass()) is not None:
            running.close()
        for child in self._here():
            child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _children(self) -> list[DataFlow]:
        """List the flows that this one draws from, whatever attribute holds them."""
        found: list[DataFlow] = []
        for value in [*getattr(self, "__dict__", {}).values()]:  # another thread may give it one more
            _find_flows(value, found)
        return found

    def _here(self) -> list[DataFlow]:
        """List the children that run in this process."""
        return [] if self._remote else self._children()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self._transient}

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the pass begun last, as a small JSON-able dict.

        It is behind the datapoint that the consumer received last, whatever was read ahead. Taken after the end of a
        pass, it is the start of the next. It exists between two datapoints only: let the handler of a signal set a
        flag, and save in the loop.

        >>> df = DataFromList([[1], [2], [3]], shuffle=False)
        >>> it = iter(df)
        >>> next(it), df.state_dict()["at"]
        ([1], {'pass': [0], 'index': 1})

        Raises:
            UsageError: if something in the graph cannot go back, such as a queue; the message names it. Or if it is
                called while a datapoint is read, by the handler of a signal or another thread.
        """
        if self._loaded is not None:
            return copy.deepcopy(self._loaded)
        if self._latest is not None:
            return self._latest.state()
        self._make_ready()
        return self._fresh_state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state`` at the next ``iter``, in this or another process, exactly.

        The graph must be built as it was when the state was taken. It implies ``reset_state``; one that follows
        before the next pass changes nothing.

        Args:
            state: what ``state_dict`` returned, also after a trip through JSON.

        Raises:
            TypeError: if it is no dict.
            UsageError: if it is the state of another graph or of another version of this library.
        """
        check.instance(Mapping, "a dict that state_dict() returned", state=state)
        if missing := {"version", "graph", "seed", "pass", "at", "done"} - state.keys():
            raise UsageError(f"this is not a state of a dataflow: it has no {', '.join(sorted(missing))}")
        if state["version"] != VERSION:
            raise UsageError(f"this state has format {state['version']!r}, and this dataflow reads format {VERSION}")
        self._make_ready()
        if state["graph"] != self._graph_names():
            raise UsageError(
                f"this state is of another graph: it was taken from {' <- '.join(reversed(state['graph']))}, "
                f"and this flow is {' <- '.join(reversed(self._graph_names()))}. Build the flow as it was."
            )
        self.reset_state()
        self._loaded = copy.deepcopy(dict(state))

    def _graph_names(self) -> list[str]:
        return [flow._state_name for flow in graph(self)]

    @property
    def _state_name(self) -> str:
        """What this flow is called in a state, which loads into flows of the same names."""
        return type(self).__name__

    def _fresh_state(self, number: int | None = None) -> Place:
        """Return the state at the start of pass ``number``, or of the next pass."""
        if self._root_seed is None:
            seed = first_given(self._seed, default_seed(), *(flow._seed for flow in graph(self)))
            self._root_seed = draw_seed(repr(self)) if seed is None else seed
        number = self._count if number is None else number
        return {
            "version": VERSION, "graph": self._graph_names(), "seed": self._root_seed, "pass": number,
            "at": {"pass": [number]}, "done": False,
        }  # fmt: skip

    def pipe(self, stage: Callable[Concatenate[Self, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return ``stage(self, *args, **kwargs)``: ``df.pipe(BatchData, 32)`` for any class or function."""
        return stage(self, *args, **kwargs)

    def map(self, func: Callable[..., Any], *, on_error: ErrorPolicy | None = None) -> MapData:
        """Return ``MapData`` of this flow."""
        from .proxies import MapData

        return MapData(self, func, on_error=on_error)

    def map_component(
        self, func: Callable[..., Any], index: Any = 0, *, on_error: ErrorPolicy | None = None
    ) -> MapDataComponent:
        """Return ``MapDataComponent`` of this flow."""
        from .proxies import MapDataComponent

        return MapDataComponent(self, func, index, on_error=on_error)

    def select(self, idxs: Any) -> SelectComponent:
        """Return ``SelectComponent`` of this flow."""
        from .proxies import SelectComponent

        return SelectComponent(self, idxs)

    def batch(self, batch_size: int, remainder: bool = False, use_list: bool = False) -> BatchData:
        """Return ``BatchData`` of this flow."""
        from .proxies import BatchData

        return BatchData(self, batch_size, remainder, use_list)

    def repeat(self, num: int) -> RepeatedData:
        """Return ``RepeatedData`` of this flow."""
        from .proxies import RepeatedData

        return RepeatedData(self, num)

    def cache(self, shuffle: bool = False, *, seed: int | None = None) -> CacheData:
        """Return ``CacheData`` of this flow."""
        from .proxies import CacheData

        return CacheData(self, shuffle, seed=seed)

    def shuffle(self, buffer_size: int, *, seed: int | None = None) -> ShuffleData:
        """Return ``ShuffleData`` of this flow: finite, each datapoint once."""
        from .proxies import ShuffleData

        return ShuffleData(self, buffer_size, seed=seed)

    def get_data(self) -> Iterator[Any]:
        """Return ``iter(self)``; the old name."""
        _warn_old("df.get_data()", "iter(df)")
        return iter(self)

    def size(self) -> int:
        """Return ``len(self)``; the old name."""
        _warn_old("df.size()", "len(df)")
        return len(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._shown_options())})"

    def _shown_options(self) -> Iterator[str]:
        """Yield ``name=value`` for each argument of the constructor that differs from its default."""
        for name, parameter in inspect.signature(type(self).__init__).parameters.items():
            held = vars(self)  # an option that is called like a verb is held with an underscore
            value = held.get(f"_{name}", held.get(name, parameter.default))
            if value is not parameter.default and not _equal(value, parameter.default):
                yield f"{name}={_short(value)}"


class ProxyDataFlow(DataFlow):
    """Hand on another flow unchanged; base class of flows that draw from one flow.

    >>> class Doubled(ProxyDataFlow):
    ...     def __iter__(self):
    ...         for dp in self.ds:
    ...             yield [component * 2 for component in dp]
    >>> list(Doubled(DataFromList([[1], [2]], shuffle=False)))
    [[2], [4]]

    Args:
        ds: the flow to draw from, or anything that ``as_flow`` takes.
    """

    def __init__(self, ds: Any) -> None:
        self.ds = as_flow(ds)

    def __len__(self) -> int:
        return len(self.ds)

    def _walk(self, at: Place, run: Run) -> Walk:
        return self.ds._walk(at, run)


class RNGDataFlow(DataFlow):
    """A flow that draws random numbers; base class of random sources.

    ``self.rng`` is a ``numpy.random.RandomState``. Each pass has one of its own, which depends on the root seed, on
    the number of the pass and on where the flow stands in its graph, and on nothing else.

    >>> class Dice(RNGDataFlow):
    ...     def __iter__(self):
    ...         for _ in range(3):
    ...             yield [int(self.rng.randint(1, 7))]
    >>> set_seed(1)
    >>> list(Dice()) == list(Dice())
    True
    """

    _random = True
    _own_rng: np.random.RandomState | None = None
    _given_rng: np.random.RandomState | None = None

    @property
    def rng(self) -> np.random.RandomState:
        """The generator of the pass that asks; outside of a pass, one that starts with ``reset_state``."""
        if self._given_rng is not None:
            return self._given_rng
        if active.scope is not None and active.scope.flow is self:
            return active.scope.rng
        if self._own_rng is None:
            self._own_rng = random_state(np.random.SeedSequence(first_given(self._seed, default_seed())))
        return self._own_rng

    @rng.setter
    def rng(self, rng: np.random.RandomState | None) -> None:
        self._given_rng = rng

    def _complete_reset(self, stamp: int) -> None:
        super()._complete_reset(stamp)
        self._own_rng = None


def as_flow(x: Any) -> DataFlow:
    """Return ``x`` if it is a flow, else a flow over ``x``, which must be iterable (a Pipeline, a list).

    >>> list(as_flow([[1], [2]]))
    [[1], [2]]

    Raises:
        TypeError: if ``x`` is not iterable, or is text.
    """
    if isinstance(x, DataFlow):
        return x
    if not hasattr(x, "__iter__") or isinstance(x, str | bytes | type):
        raise TypeError(f"ds must be a DataFlow or another iterable of datapoints, got {check.seen(x)}")
    from .sources import DataFromIterable

    return DataFromIterable(x)


def length(ds: DataFlow) -> int | None:
    """Return ``len(ds)``, or None where it is unknown."""
    try:
        return len(ds)
    except (NotImplementedError, TypeError):
        return None


def first_given(*seeds: int | None) -> int | None:
    """Return the first seed that is not None."""
    return next((seed for seed in seeds if seed is not None), None)


def _completed(reset: Callable[[Any], None]) -> Callable[[Any], None]:
    """Make a class's own ``reset_state`` do what the contract asks even without a call to ``super()``."""

    @functools.wraps(reset)
    def reset_state(self: DataFlow) -> None:
        stamp = next(_stamps)
        reset(self)
        self._complete_reset(stamp)

    return reset_state


def _find_flows(value: Any, found: list[DataFlow], depth: int = 3) -> None:
    """Append the flows in ``value`` to ``found``; long containers count only where they start with a flow."""
    if isinstance(value, DataFlow):
        found.append(value)
    elif isinstance(value, dict) and depth:
        _find_flows(list(value.values()), found, depth)
    elif isinstance(value, list | tuple) and value and depth:
        first = value[0][0] if isinstance(value[0], list | tuple) and value[0] else value[0]
        if len(value) <= 64 or isinstance(first, DataFlow):
            for part in value:
                _find_flows(part, found, depth - 1)


def _warn_old(old: str, new: str) -> None:
    warnings.warn(f"{old} is an old name, use {new}", DeprecationWarning, stacklevel=4)


def _equal(value: Any, default: Any) -> bool:
    try:
        return type(value) is type(default) and bool(value == default)
    except Exception:  # an array, or a user's type whose == does anything: show the value
        return False


def _short(value: Any) -> str:
    """Show an option in one short line."""
    if isinstance(value, DataFlow):
        return type(value).__name__
    if isinstance(value, np.ndarray):
        return f"array{value.shape}"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, list | tuple) and (
        len(value) > 4 or any(isinstance(part, list | tuple | dict | DataFlow) for part in value)
    ):
        return f"{type(value).__name__} of {len(value)}"
    return reprlib.repr(value).replace("\n", " ")
