"""What all formats say of a file that is to be verified, and holds pickles."""

from __future__ import annotations

from ..errors import UsageError


def holds_pickles(path: str) -> UsageError:
    """Return the error for a file that cannot be looked through without running what it holds."""
    return UsageError(
        f"{path!r} holds pickles, and loading one runs whatever code its writer put there; if you trust where it comes "
        "from, pass allow_pickle=True"
    )
