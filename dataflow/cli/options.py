"""Types of command-line arguments."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer of at least ``minimum``."""

    def integer(text: str) -> int:
        wanted = f"must be an integer of at least {minimum}, got {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(wanted) from None
        if number < minimum:
            raise argparse.ArgumentTypeError(wanted)
        return number

    return integer
