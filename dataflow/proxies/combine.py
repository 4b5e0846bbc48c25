"""Draw from several flows: one by chance, all mixed, side by side, or one after another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial, reduce
from itertools import chain, count, repeat
from numbers import Real
from operator import add, is_not, itemgetter, length_hint
from typing import Any

import numpy as np

from ..base import DataFlow, RNGDataFlow, as_flow, length
from ..errors import EndlessLength, UnknownLength
from ..passes import Place, Run, Walk, carried_over, locate
from ..utils import check
from ..utils.parts import Parts
from ..utils.rng import KeyedGenerator, checked_seed

# Choices are drawn this many at a time: 20 us a block, 20 ns a choice.
BLOCK = 1024
# What `next` gives instead of a datapoint of a flow that has ended.
GONE = object()
# How far a flow goes, in the order in which JoinData asks.
KNOWN, UNKNOWN, ENDLESS = range(3)


class RandomChooseData(RNGDataFlow):
    """Choose at random, for each datapoint, the flow that it comes from.

    A pass ends when the flow that was chosen has no more, so it has no length.

    >>> a, b = DataFromList([["a"]] * 100, shuffle=False), DataFromList([["b"]] * 100, shuffle=False)
    >>> list(RandomChooseData([(a, 0.0), (b, 1.0)])) == [["b"]] * 100
    True

    Args:
        df_lists: flows, which are equally likely, or (flow, probability) tuples.
        seed: seed of the choices, instead of the root seed.

    Raises:
        TypeError: at construction, if some have a probability and some do not, or something is not a flow.
        ValueError: at construction, if there is no flow, or the probabilities are negative or do not sum to 1.
    """

    def __init__(self, df_lists: Any, *, seed: int | None = None) -> None:
        weighted = isinstance(df_lists, list | tuple) and any(map(_is_pair, df_lists))
        if weighted and not all(map(_is_pair, df_lists)):
            raise TypeError("df_lists must be all flows or all (flow, probability) tuples, got some of each")
        self.probabilities = _probabilities(df_lists) if weighted else None
        self.df_lists = _flows([flow for flow, _ in df_lists] if weighted else df_lists)
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        if all(_extent(flow)[0] == ENDLESS for flow in self.df_lists):
            raise _endless(self)
        return super().__len__()

    def _walk(self, at: Place, run: Run) -> Walk:
        path, k = at["pass"], at.get("k", 0)
        its, ups = _walks(self.df_lists, at.get("ds") or _starts(self.df_lists, path), run)
        parts, ended = Parts(), 0
        picks = parts.rows(self._picks(run.generator(self, path), k))

        def end() -> Iterator[Any]:
            nonlocal ended
            ended = 1
            yield from ()

        # The StopIteration of the flow that was chosen ends the map. That choice is made again if the pass continues.
        rows = chain(map(next, map(its.__getitem__, picks)), end())
        return rows, lambda: {"pass": path, "k": k + parts.given - ended, "ds": [up() for up in ups]}

    def _picks(self, draw: KeyedGenerator, k: int) -> Iterator[list[int]]:
        """Yield the numbers of the chosen flows, from choice ``k`` on."""
        block, skip = divmod(k, BLOCK)
        for block in count(block):
            yield draw(block).choice(len(self.df_lists), BLOCK, p=self.probabilities)[skip:].tolist()
            skip = 0


class RandomMixData(RNGDataFlow):
    """Mix several flows perfectly: every order that keeps each flow's own is equally likely.

    >>> a, b = DataFromList([[1], [2]], shuffle=False), DataFromList([[3]], shuffle=False)
    >>> sorted(RandomMixData([a, b]))
    [[1], [2], [3]]

    Each datapoint of each flow comes once. Its length is the sum of theirs. Where a flow yields fewer than it says, the
    others close the gaps; where it yields more, they come at the end.

    Args:
        df_lists: flows that have a length.
        seed: seed of the order, instead of the root seed.

    Raises:
        ValueError: at construction, if there is no flow.
        UnknownLength: at construction, if a flow has no length; it is a TypeError.
    """

    def __init__(self, df_lists: Any, *, seed: int | None = None) -> None:
        self.df_lists = _flows(df_lists)
        for i, flow in enumerate(self.df_lists):
            if length(flow) is None:
                raise UnknownLength(
                    f"RandomMixData needs the length of every flow, and df_lists[{i}], {flow!r}, has none. "
                    "Cut it with FixedSizeData(ds, size), or use RandomChooseData."
                )
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return sum(map(len, self.df_lists))

    def _walk(self, at: Place, run: Run) -> Walk:
        path, slot = at["pass"], at.get("slot", 0)
        its, ups = _walks(self.df_lists, at.get("ds") or _starts(self.df_lists, path), run)
        # Kept in the place: a cache, for one, knows its length better once it is full.
        sizes = at.get("sizes") or [len(flow) for flow in self.df_lists]
        order = run.generator(self, path)(0).permutation(np.repeat(np.arange(len(its)), sizes))
        slots = iter(order[slot:].tolist())
        drawn = map(next, map(its.__getitem__, slots), repeat(GONE))
        rows = chain(filter(partial(is_not, GONE), drawn), *its)

        def place() -> Place:
            done = len(order) - length_hint(slots)
            return {"pass": path, "slot": done, "sizes": sizes, "ds": [up() for up in ups]}

        return rows, place


class JoinData(DataFlow):
    """Join the datapoints of several flows, the first with the first and so on, into one.

    Lists are concatenated and dicts merged; where two dicts have the same key, the later one wins.

    >>> a, b = DataFromList([[1, 2]], shuffle=False), DataFromList([["x"], ["y"]], shuffle=False)
    >>> list(JoinData([a, b]))
    [[1, 2, 'x']]
    >>> list(JoinData([DataFromList([{"a": 1, "b": 2}]), DataFromList([{"c": 3}])]))
    [{'a': 1, 'b': 2, 'c': 3}]

    It ends with the shortest flow, and its length is the shortest. Nothing is taken from the others that is not
    joined, if the shortest one knows its length. The list may hold one flow several times, for passes of it that are
    independent: where it is shuffled, each has an order of its own.

    Args:
        df_lists: flows of lists, or flows of dicts.

    Raises:
        ValueError: at construction, if there is no flow.
        TypeError: while iterating, if one flow yields a list and another a dict.
        EndlessLength: from ``len``, if no flow ever ends.
    """

    def __init__(self, df_lists: Any) -> None:
        self.df_lists = _flows(df_lists)

    def __len__(self) -> int:
        ending = [flow for flow in self.df_lists if _extent(flow)[0] != ENDLESS]
        if not ending:
            raise _endless(self)
        return min(map(len, ending))

    def _walk(self, at: Place, run: Run) -> Walk:
        path, n = at["pass"], at.get("n", 0)
        starts = at.get("ds") or [{"pass": [*path, i]} for i in range(len(self.df_lists))]
        its, ups = _walks(self.df_lists, starts, run)
        order = sorted(range(len(its)), key=lambda i: _extent(self.df_lists[i]))

        def rows() -> Iterator[Any]:
            nonlocal n
            for n, dps in enumerate(_zipped(its, order), n + 1):
                try:
                    joined = _joined(dps)
                except TypeError as error:
                    locate(error, self, n - 1)
                    raise
                yield joined

        return rows(), lambda: {"pass": path, "n": n, "ds": [up() for up in ups]}


class ConcatData(DataFlow):
    """Yield all datapoints of one flow, then all of the next, and so on.

    >>> list(ConcatData([DataFromList([[1], [2]], shuffle=False), DataFromList([[3]], shuffle=False)]))
    [[1], [2], [3]]

    Its length is the sum of theirs.

    Args:
        df_lists: flows; one may stand in the list several times.

    Raises:
        ValueError: at construction, if there is no flow.
    """

    def __init__(self, df_lists: Any) -> None:
        self.df_lists = _flows(df_lists)

    def __len__(self) -> int:
        return sum(map(len, self.df_lists))

    def _walk(self, at: Place, run: Run) -> Walk:
        path, i = at["pass"], at.get("i", 0)
        # What the other flows, before and after flow i, keep from one pass to the next.
        keeps = any(flow._carries for flow in run.flows)
        carried = carried_over(self, at, run) if keeps else {}
        starts = _starts(self.df_lists, path)
        it, up = self.df_lists[i]._walk(at.get("ds") or starts[i], run)

        def parts() -> Iterator[Iterator[Any]]:
            nonlocal i, up, carried
            yield it
            for i in range(i + 1, len(self.df_lists)):
                carried = carried_over(self, {"pass": path}, run) if keeps else {}
                part, up = self.df_lists[i]._walk(starts[i], run)
                yield part

        def place() -> Place:
            position = {"pass": path, "i": i, "ds": up()}
            return {**position, "carried": carried} if keeps else position

        return chain.from_iterable(parts()), place


def _flows(df_lists: Any) -> list[DataFlow]:
    """Return the elements of ``df_lists`` as flows."""
    check.instance((list, tuple), "a list of flows", df_lists=df_lists)
    if not df_lists:
        raise ValueError("df_lists must hold at least one flow, got an empty list")
    return [_flow(i, x) for i, x in enumerate(df_lists)]


def _flow(i: int, x: Any) -> DataFlow:
    if _is_pair(x):
        raise TypeError(
            f"df_lists[{i}] must be a flow, got a {type(x).__name__} like (flow, probability). "
            "Only RandomChooseData takes probabilities, and then one for each flow."
        )
    try:
        return as_flow(x)
    except TypeError as error:
        raise TypeError(f"df_lists[{i}]: {error}") from None


def _is_pair(x: Any) -> bool:
    """Say whether ``x`` is meant as (flow, probability); else it may be a list of datapoints, which is a flow."""
    if not isinstance(x, list | tuple):
        return False
    return any(isinstance(part, DataFlow) for part in x[:2]) or (len(x) == 2 and isinstance(x[1], Real))


def _probabilities(pairs: Any) -> list[float]:
    """Return the second parts of (flow, probability) tuples."""
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or not isinstance(pair[1], Real):
            raise TypeError(f"df_lists[{i}] must be (flow, probability), got ({', '.join(map(check.seen, pair))})")
        if not float(pair[1]) >= 0:  # nan too
            raise ValueError(f"the probability in df_lists[{i}] must be at least 0, got {pair[1]}")
    probabilities = [float(probability) for _, probability in pairs]
    total = math.fsum(probabilities)
    if not math.isclose(total, 1):
        raise ValueError(f"the probabilities in df_lists must sum to 1, got {total:g}; divide each by their sum")
    return probabilities


def _extent(flow: DataFlow) -> tuple[int, int]:
    """Return how far a flow goes, and its length if that is known."""
    try:
        return KNOWN, len(flow)
    except EndlessLength:
        return ENDLESS, 0
    except (NotImplementedError, TypeError):
        return UNKNOWN, 0


def _endless(flow: DataFlow) -> EndlessLength:
    return EndlessLength(f"{flow!r} never ends, so it has no length; cut it with FixedSizeData(ds, size)")


def _starts(flows: list[DataFlow], path: list[int]) -> list[Place]:
    """Return the start of the pass for each flow; one that stands in the list again must not draw the same again."""
    seen: Counter[int] = Counter()
    starts: list[Place] = []
    for flow in flows:
        again = seen[id(flow)]
        seen[id(flow)] += 1
        starts.append({"pass": [*path, again] if again else path})
    return starts


def _walks(
    flows: list[DataFlow], starts: list[Place], run: Run
) -> tuple[list[Iterator[Any]], list[Callable[[], Place]]]:
    walks = [flow._walk(start, run) for flow, start in zip(flows, starts, strict=True)]
    return [it for it, _ in walks], [up for _, up in walks]


def _zipped(its: list[Iterator[Any]], order: list[int]) -> Iterator[tuple[Any, ...]]:
    """Zip iterators, but ask them in ``order``: when the first has no more, nothing has been taken from the others."""
    rows = zip(*(its[i] for i in order), strict=False)
    if order == sorted(order):
        return rows
    return map(itemgetter(*map(order.index, range(len(its)))), rows)


def _joined(dps: tuple[Any, ...]) -> Any:
    """Return one datapoint made of several."""
    if type(dps[0]) is list:
        try:
            joined = reduce(add, dps)  # 170 ns for two; to look at the types first takes 320
        except TypeError:
            joined = None
        if type(joined) is list:  # and not an array, which a list can be added to
            return joined
    if all(isinstance(dp, list | tuple) for dp in dps):
        return [*chain.from_iterable(dps)]
    if all(isinstance(dp, dict) for dp in dps):
        merged: dict[Any, Any] = {}
        for dp in dps:
            merged.update(dp)
        return merged
    for i, dp in enumerate(dps):
        if not isinstance(dp, list | tuple | dict):
            raise TypeError(
                f"cannot join {check.seen(dp)}, which df_lists[{i}] yields: a datapoint must be a list or dict. "
                "Wrap it, e.g. MapData(ds, lambda x: [x])"
            )
    other = next(i for i, dp in enumerate(dps) if isinstance(dp, dict) is not isinstance(dps[0], dict))
    raise TypeError(
        f"cannot join {check.seen(dps[0])}, which df_lists[0] yields, with {check.seen(dps[other])}, which "
        f"df_lists[{other}] yields. Make them alike, e.g. MapData(ds, lambda dp: list(dp.values()))"
    )
