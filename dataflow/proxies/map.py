"""Apply a function to each datapoint, or to one component of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..base import ProxyDataFlow
from ..passes import SAMPLE, Place, Run, Walk, below, locate
from ..policies import ErrorPolicy, ErrorReport, Forgiving, Trial, checked, settled
from ..utils import check
from ..utils.rng import KeyedGenerator, wants_rng
from ..utils.tally import tally
from .component import look_up


class MapData(Forgiving, ProxyDataFlow):
    """Apply a function to each datapoint, and drop those for which it returns None.

    A function that declares a parameter ``rng`` is given a ``numpy.random.Generator`` for its sample. What it draws
    depends on the root seed, the pass and the number of the sample only, so a parallel map draws the same.

    >>> ds = DataFromList([[1], [2], [3]], shuffle=False)
    >>> list(MapData(ds, lambda dp: [dp[0] * 10] if dp[0] != 2 else None))
    [[10], [30]]

    Its length is ``len(ds)``, which is too large where datapoints are dropped.

    Args:
        ds: flow of lists or dicts.
        func: datapoint -> datapoint | None. It should not change arrays in place, unless nobody else holds them.
        on_error: what to do where ``func`` raises: ``Skip``, ``Replace`` or ``Retry``; None raises it.

    Raises:
        TypeError: at construction, if ``func`` cannot be called.
        TooManyErrors: while iterating, if ``on_error`` loses more datapoints than it allows.
        Exception: while iterating, whatever ``func`` raises, with a note that says at which datapoint.
    """

    _transient = (*ProxyDataFlow._transient, "_report")

    def __init__(self, ds: Any, func: Callable[..., Any], *, on_error: ErrorPolicy | None = None) -> None:
        super().__init__(ds)
        check.function(func=func)
        self.func = func
        self.on_error = checked(on_error)
        self._random = wants_rng(func)

    def _walk(self, at: Place, run: Run) -> Walk:
        it, up = self.ds._walk(below(at), run)
        path, start, ahead = at["pass"], at.get("n", 0), at.get("given", [])
        rows, given = tally(it, start)
        apply = self._applied(self.func)
        if self._random:
            apply = _drawing(apply, run.generator(self, path, SAMPLE), given)
        if ahead:
            apply = _passing_over(ahead, apply, lambda: given() - start)

        policy = self.on_error
        report = None if policy is None else self._new_report(policy)

        def results() -> Iterator[Any]:
            for dp in rows:
                try:  # costs nothing until it raises
                    result = apply(dp)
                except Exception as error:
                    if policy is None or report is None:
                        locate(error, self, given() - 1)
                        raise
                    result = settle(policy, report, error, dp)
                if result is not None:
                    yield result

        def settle(policy: ErrorPolicy, report: ErrorReport, error: Exception, dp: Any) -> Any:
            try:
                result, fate = settled(policy, error, Trial(dp, given() - 1, partial(apply, dp)))
            except Exception as unsettled:
                locate(unsettled, self, given() - 1)
                raise
            finally:
                del error  # which refers to this frame
            report.note(fate)
            return result

        def place() -> Place:
            n = given()
            left = [[max(first - (n - start), 0), stop - (n - start)] for first, stop in ahead if stop > n - start]
            return {"pass": path, "n": n, "ds": up(), **({"given": left} if left else {})}

        return results(), place

    def _applied(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function on whole datapoints that applies ``func``."""
        return func


def _drawing(func: Callable[..., Any], draw: KeyedGenerator, number: Callable[[], int]) -> Callable[[Any], Any]:
    """Give ``func`` the generator of its sample."""
    return lambda dp: func(dp, rng=draw(number()))


def _passing_over(
    spans: list[list[int]], func: Callable[[Any], Any], number: Callable[[], int]
) -> Callable[[Any], Any]:
    """Drop the datapoints in ``spans`` [first, stop): a parallel map delivered them out of turn."""
    delivered = {i for first, stop in spans for i in range(first, stop)}
    return lambda dp: None if number() - 1 in delivered else func(dp)


class MapDataComponent(MapData):
    """Apply a function to one component of each datapoint, and drop datapoints for which it returns None.

    The datapoint is copied, one level deep, before the component is replaced. A parameter ``rng`` of the function is
    served as in ``MapData``.

    >>> ds = DataFromList([[1, "a"], [2, "b"]], shuffle=False)
    >>> list(MapDataComponent(ds, lambda x: x * 10, index=0))
    [[10, 'a'], [20, 'b']]

    Its length is ``len(ds)``, which is too large where datapoints are dropped.

    Args:
        ds: flow of lists or dicts; a tuple comes out as a list.
        func: component -> component | None.
        index: index or key of the component.
        on_error: as in ``MapData``; it is about the whole datapoint.

    Raises:
        TypeError: at construction, if ``func`` cannot be called.
        IndexError: while iterating, if a datapoint has no such component (KeyError for a dict).
    """

    def __init__(
        self, ds: Any, func: Callable[..., Any], index: Any = 0, *, on_error: ErrorPolicy | None = None
    ) -> None:
        super().__init__(ds, func, on_error=on_error)
        self.index = index

    def _applied(self, func: Callable[..., Any]) -> Callable[..., Any]:
        index = self.index

        def apply(dp: Any, **rng: Any) -> Any:
            try:  # costs nothing until it raises
                component = dp[index]
            except (IndexError, KeyError, TypeError):
                look_up(dp, index, "index")  # raises, and says what there is
                raise
            component = func(component, **rng)
            if component is None:
                return None
            changed = dict(dp) if isinstance(dp, dict) else list(dp)
            changed[index] = component
            return changed

        return apply


class SelectComponent(MapData):
    """Select and reorder components.

    >>> list(SelectComponent(DataFromList([["a", "b", "c"]], shuffle=False), [2, 1]))
    [['c', 'b']]
    >>> list(SelectComponent(DataFromList([{"x": 1, "y": 2}], shuffle=False), ["y"]))
    [{'y': 2}]

    Args:
        ds: flow of lists or dicts; a list gives a list, a dict a dict.
        idxs: indices, or keys, of the components to keep, in their new order.

    Raises:
        TypeError: at construction, if ``idxs`` is not a list or tuple.
        IndexError: while iterating, if a datapoint has no such component (KeyError for a dict).
    """

    def __init__(self, ds: Any, idxs: Any) -> None:
        check.instance((list, tuple), "a list of indices or keys", idxs=idxs)
        super().__init__(ds, partial(_select, list(idxs)))
        self.idxs = idxs


def _select(idxs: Sequence[Any], dp: Any) -> Any:
    try:
        if isinstance(dp, dict):
            return {key: dp[key] for key in idxs}
        return [dp[index] for index in idxs]
    except (IndexError, KeyError, TypeError):
        for index in idxs:
            look_up(dp, index, "idxs")
        raise
