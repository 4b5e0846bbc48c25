"""Look at tar files: what they are, and which of their datapoints are damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..codec.record import FIRST_BYTE
from ..errors import CorruptDataError, UsageError
from ..sources.tar_file import WHOLE, Component, Index, check_last, datapoints, maker
from ..utils.open_file import is_url, open_binary, size_of
from ..utils.shards import last_paths, shard_paths
from ..utils.tar_reader import TarReader
from .pickles import holds_pickles

# What a record of ours begins with.
OURS = bytes([FIRST_BYTE])

Run = list[tuple[Component, bytearray]]


def inspect(path: Any) -> dict[str, Any]:
    """Tell what tar files are; see ``TarSerializer.inspect``."""
    shards = shard_paths(path)
    reader = TarReader(open_binary(shards[0]), size_of(shards[0]))
    try:
        _, first = next(datapoints(reader, _components), (0, []))
    except CorruptDataError as error:
        raise CorruptDataError(f"{shards[0]!r}, record 0: {error}") from error
    extensions = [component.extension for component in first]
    checked = [component.member.crc is not None or component.extension == WHOLE for component in first]
    return {
        "format": "tar",
        "codec": None if not first else "dataflow" if extensions == [WHOLE] else "by extension",
        "datapoints": None if any(map(is_url, shards)) else Index(shards, set(), verify=False).first[-1],
        "bytes": sum(map(size_of, shards)),
        "checksums": "every record" if all(checked) else "none",
        "files": len(shards),
        "extensions": extensions,
    }


def damages(path: Any, *, allow_pickle: bool, on_record: Callable[[], None] | None) -> Iterator[tuple[int | None, str]]:
    """Read every datapoint of tar files, and yield those that are damaged; see ``TarSerializer.damages``."""
    make = maker(decode=True, allow_pickle=allow_pickle, verify=True)
    ours: bool | None = None  # not known yet

    def fault_of(run: Run) -> str | None:
        nonlocal ours
        if ours is None:
            component, data = run[0]
            ours = component.extension == WHOLE and data[:1] == OURS
        try:
            make(run)
        except UsageError as error:
            if not ours:
                raise
            return str(error)
        except Exception as error:  # a damaged pickle raises anything, and what is behind it is to be read too
            return str(error)
        return None

    number, lasts = 0, last_paths(path)
    for shard in shard_paths(path):
        reader = TarReader(open_binary(shard), size_of(shard))
        while True:
            try:
                for _, fault in datapoints(reader, fault_of):
                    if fault is not None:
                        yield number, f"{shard!r}: {fault}"
                    number += 1
                    if on_record is not None:
                        on_record()
                check_last(reader, shard, lasts)
            except UsageError as error:
                raise holds_pickles(shard) from error
            except CorruptDataError as error:
                further = reader.next_header()
                if further is None:  # not of one datapoint: cut short, a damaged end, or no tar file
                    yield None, f"{shard!r}: {error}; nothing is found behind it"
                    break
                yield number, f"{shard!r}: {error}; reading goes on at byte {further}"
                number += 1
                reader = TarReader(open_binary(shard), size_of(shard), further, None)
            else:
                break


def _components(run: Run) -> list[Component]:
    return [component for component, _ in run]
