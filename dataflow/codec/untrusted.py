"""Read msgpack that nobody vouches for."""

from __future__ import annotations

import functools
from typing import Any

from ..utils.deps import need

# The longest list whose length is taken on trust: at msgpack's deepest nesting, 1024, it makes 8 MB of pointers.
_TRUSTED = 1024


@functools.cache
def msgpack() -> Any:
    """Return the package, loaded on first use."""
    return need("msgpack", by="dataflow's codec")


def unpack(data: Any, **options: Any) -> Any:
    """Return the one value that ``data`` holds, taking memory in proportion to ``data`` only.

    msgpack makes room for as many items as a list claims to have, at every level of nesting anew; so where a
    long list is claimed, a pass that builds nothing first finds out whether the items are there.

    Raises:
        ValueError: if ``data`` is not exactly one msgpack value.
    """
    package = msgpack()
    read = functools.partial(package.unpackb, data, strict_map_key=False, **options)
    try:
        return read(max_array_len=min(len(data), _TRUSTED))
    except ValueError:
        unpacker = package.Unpacker(max_buffer_size=len(data) or 1)
        unpacker.feed(data)
        try:
            unpacker.skip()
        except package.OutOfData:
            raise ValueError("cut short, or longer lists are claimed than are there") from None
        return read()
