"""Randomness that can be found again: every stream is named by a seed and a path of ints.

One root seed serves a whole graph. Below it nothing is stored: a stream is the Philox generator of Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3" (SC 2011), whose key comes from ``numpy.random.SeedSequence`` and whose
counter is the number of the sample, so that any sample of any pass can be drawn again without the ones before it.
"""

from __future__ import annotations

import inspect
import logging
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np

from . import check

logger = logging.getLogger(__name__)

_default_seed: int | None = None


def set_seed(seed: int | None) -> None:
    """Give every flow without a seed of its own the root seed ``seed``; None goes back to drawing one.

    It counts from the next ``reset_state`` or, for a flow that has not run yet, from its first pass.

    Args:
        seed: an integer of at least 0, or None.
    """
    global _default_seed
    _default_seed = checked_seed(seed)


def checked_seed(seed: int | None) -> int | None:
    """Return ``seed`` as a plain int or None, or raise."""
    if seed is None:
        return None
    check.integer(0, seed=seed)
    return int(seed)


def default_seed() -> int | None:
    """Return what ``set_seed`` was given last."""
    return _default_seed


def draw_seed(whose: str) -> int:
    """Draw a root seed from the operating system, and log it so that the run can be repeated."""
    seed = secrets.randbits(63)
    logger.info("root seed of %s: %d (repeat this run with dataflow.set_seed)", whose, seed)
    return seed


def random_state(sequence: np.random.SeedSequence) -> np.random.RandomState:
    """Return a new legacy generator, as ``RNGDataFlow.rng`` promises."""
    return np.random.RandomState(np.random.MT19937(sequence))


class KeyedGenerator:
    """One Generator that can be put at the start of any of 2**64 independent streams.

    >>> draw = KeyedGenerator(np.random.SeedSequence(7))
    >>> first, second = draw(0).random(), draw(1).random()
    >>> draw(0).random() == first
    True

    Setting the state of one generator takes 0.8 us, making a new one 6 us. Nothing of the stream before is left
    over: a Generator, unlike a RandomState, caches no Gaussian, and the state that is set has an empty buffer.
    """

    def __init__(self, sequence: np.random.SeedSequence) -> None:
        self._bits = np.random.Philox(key=sequence.generate_state(2, np.uint64))
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state
        self._counter = self._state["state"]["counter"]

    def __call__(self, n: int) -> np.random.Generator:
        """Return the generator, put at the start of stream ``n``; the one returned before is the same object."""
        self._counter[3] = n
        self._bits.state = self._state
        return self._generator


def wants_rng(func: Callable[..., Any]) -> bool:
    """Say whether ``func`` declares a parameter ``rng`` that is still free, beside the datapoint it is given.

    >>> wants_rng(lambda dp, rng: dp), wants_rng(lambda dp: dp)
    (True, False)
    """
    try:
        parameters = list(inspect.signature(func).parameters.values())
    except (TypeError, ValueError):  # builtins without a signature
        return False
    for position, parameter in enumerate(parameters):
        if parameter.name == "rng" and position > 0:
            bound = getattr(func, "keywords", {})  # functools.partial(func, rng=...) has its own
            return parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and "rng" not in bound
    return False
