"""Made-up datapoints, to try a pipeline or to measure it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from numbers import Real
from operator import length_hint
from typing import Any

import numpy as np

from ..base import RNGDataFlow
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.rng import checked_seed
from .memory import numbers


class FakeData(RNGDataFlow):
    """Yield arrays of random numbers, of given shapes.

    Numbers are drawn evenly between the ends of ``domain`` and then converted to ``dtype``: integers are cut off, so
    that they stay below the upper end.

    >>> df = FakeData([(2, 3), ()], size=5, dtype=["float32", "uint8"], domain=[(0, 1), (0, 256)])
    >>> [(component.shape, component.dtype.name) for component in next(iter(df))]
    [((2, 3), 'float32'), ((), 'uint8')]

    Its length is ``size``. A datapoint depends on its number, the pass and the seed only.

    Args:
        shapes: list of shapes, one for each component; ``()`` gives a numpy scalar.
        size: datapoints per pass.
        random: draw each datapoint; else one is drawn for each pass, and repeated without a copy of its arrays.
        dtype: data type of all components, or a list of one for each.
        domain: (min, max) of all components, or a list of one for each.
        seed: seed of the numbers, instead of the root seed.

    Raises:
        TypeError: at construction, if an argument is of the wrong kind, such as a single shape.
        ValueError: at construction, if a number is negative, min is above max, or a list has the wrong length.
    """

    def __init__(
        self, shapes: Sequence[Sequence[int]], size: int = 1000, random: bool = True, dtype: Any = "float32",
        domain: Any = (0, 1), *, seed: int | None = None,
    ) -> None:  # fmt: skip
        check.instance((list, tuple), "a list of shapes", shapes=shapes)
        for shape in shapes:
            if not isinstance(shape, list | tuple):
                raise TypeError(
                    f"shapes must be a list of shapes, got {check.seen(shape)} in it; one component of shape (3, 4) is "
                    "FakeData([(3, 4)])"
                )
            for length in shape:
                check.integer(0, **{"each length in shapes": length})
        check.integer(0, size=size)
        check.flag(random=random)
        self.shapes = shapes
        self._size = int(size)
        self.random = random
        self.dtype = dtype
        self.domain = domain
        self._seed = checked_seed(seed)
        dtypes = map(_as_dtype, _one_each("dtype", dtype, len(shapes)))
        domains = map(_ends, _one_each("domain", domain, len(shapes)))
        self._components = [*zip(map(tuple, shapes), dtypes, domains, strict=True)]

    def __len__(self) -> int:
        return self._size

    def _walk(self, at: Place, run: Run) -> Walk:
        draw = run.generator(self, at["pass"])
        if self.random:
            rest, place = numbers(self, at, run, self._size, shuffle=False)
            return map(self._draw, map(draw, rest)), place
        path, left = at["pass"], repeat(self._draw(draw(0)), self._size - at.get("index", 0))
        return map(list.copy, left), lambda: {"pass": path, "index": self._size - length_hint(left)}

    def _draw(self, rng: np.random.Generator) -> list[Any]:
        """Return a new datapoint."""
        return [*map(_component, repeat(rng), self._components)]


def _component(rng: np.random.Generator, form: tuple[tuple[int, ...], np.dtype[Any], tuple[float, float]]) -> Any:
    shape, dtype, (low, high) = form
    # Twice as fast for the most common type, and as even as its 24 bits allow.
    drawn: Any = rng.random(shape, np.float32 if dtype == np.float32 else np.float64)
    if (low, high) != (0, 1):
        drawn *= high - low
        drawn += low
    return drawn.astype(dtype, copy=False) if shape else np.asarray(drawn).astype(dtype)[()]


def _as_dtype(dtype: Any) -> np.dtype[Any]:
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):  # numpy's, which name no argument
        raise TypeError(f"dtype must be one of numpy's, such as 'float32', got {check.seen(dtype)}") from None
    return found


def _one_each(name: str, given: Any, count: int) -> Iterator[Any]:
    """Return ``given`` for each of ``count`` components, or its parts if it is a list of so many."""
    if not isinstance(given, list | tuple) or _is_pair(given):
        return repeat(given, count)
    if len(given) != count:
        raise ValueError(f"{name} must be one for all components, or a list of {count}, got {len(given)}")
    return iter(given)


def _is_pair(domain: Any) -> bool:
    """Say whether this is one (min, max), and not a list of them."""
    return isinstance(domain, list | tuple) and len(domain) == 2 and all(isinstance(end, Real) for end in domain)


def _ends(ends: Any) -> tuple[float, float]:
    if not _is_pair(ends):
        raise TypeError(f"domain must be a (min, max) tuple of numbers, or a list of such tuples, got {ends!r}")
    low, high = map(float, ends)
    if not -np.inf < low <= high < np.inf:
        raise ValueError(f"domain must be (min, max) with a finite min of at most max, got {ends!r}")
    return low, high
