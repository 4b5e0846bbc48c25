"""Read tar files in WebDataset's naming: along the files, also at URLs, or by the numbers of the datapoints.

::

    train/0001.jpg  train/0001.cls  train/0002.jpg  ...      members KEY.EXTENSION
    -------- one datapoint -------  --- the next ---         {"__key__": "train/0001", "jpg": b"...", "cls": 7}
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO, NamedTuple, cast

from ..codec import checksum
from ..codec.members import decode_member
from ..errors import CorruptDataError, UnknownLength, UsageError
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.open_file import existing_path, identity_of, is_url, open_binary, size_of
from ..utils.shards import last_paths, shard_paths
from ..utils.tar_reader import Member, TarReader
from .indexed import IndexedData
from .order import refuse_smaller

VERIFY = ("off", "always")
# Files that a shuffled pass keeps open.
_MOST_OPEN = 64

# The key of a datapoint, in the dict that it is.
KEY = "__key__"
# The extension of a member that is a datapoint of its own, of any kind.
WHOLE = "df"
# Members that describe the archive; webdataset passes over them, too.
_ABOUT = re.compile(r"__[^/]*__($|/)")


class TarData(IndexedData):
    """Read the datapoints of tar files; ``TarSerializer.load`` makes these and explains them."""

    def __init__(
        self, path: Any, shuffle: bool | str = False, *, verify: str = "always", decode: bool = True,
        allow_pickle: bool = False, seed: int | None = None,
    ) -> None:  # fmt: skip
        check.one_of(VERIFY, verify=verify)
        check.flag(decode=decode, allow_pickle=allow_pickle)
        if not isinstance(shuffle, str):
            check.flag(shuffle=shuffle)
        elif shuffle != "shards":
            raise ValueError(f"shuffle must be True, False or 'shards', got {check.seen(shuffle)}")
        self.path = path
        self._shards, self._lasts = shard_paths(path), last_paths(path)
        for shard in self._shards:
            if is_url(shard) and shuffle is True:
                raise UsageError(
                    f"{shard!r} is read along the file only: copy it to this machine, or shuffle the order of the "
                    "files with shuffle='shards', and what comes from them with ShuffleData(ds, buffer_size)"
                )
            existing_path("tar file", path=shard)
        super().__init__(self._shards[0], shuffle is True, seed)
        self._shuffle: Any = shuffle
        self.verify, self.decode, self.allow_pickle = verify, decode, allow_pickle

    def __len__(self) -> int:
        if any(map(is_url, self._shards)):
            raise UnknownLength(f"how many datapoints {self._shards[0]!r} holds is known to who has read it")
        return super().__len__()

    def _identity(self) -> Any:
        return list(map(identity_of, self._shards))

    def _open(self) -> Index:
        return Index(self._shards, self._lasts, self.verify != "off")

    def _size(self) -> int:
        index: Index = self._opened()
        return index.first[-1]

    def _rows(self, numbers: Iterator[int]) -> Iterator[Any]:
        index, make = self._opened(), self._maker()

        @lru_cache(_MOST_OPEN)  # files of this pass alone, so that passes may overlap
        def opened(shard: int) -> BinaryIO:
            return _open_same(self._shards[shard], index.identities[shard])

        def read(number: int) -> Any:
            shard = index.shard_of(number)
            bounds, record = index.bounds[shard], number - index.first[shard]
            reader = TarReader(opened(shard), bounds[-1], bounds[record], None, bounds[record + 1])
            return next(datapoints(reader, make))[1]

        return map(read, numbers)

    def _where(self, number: int) -> str:
        index: Index = self._opened()
        shard = index.shard_of(number)
        record = number - index.first[shard]
        start = index.bounds[shard][record]
        return f"{self._shards[shard]!r}, record {record} at byte {start}"

    def _walk(self, at: Place, run: Run) -> Walk:
        if self._shuffle is True:
            return super()._walk(at, run)
        path, size = at["pass"], len(self._shards)
        had, order = at.get("shards", size), list(range(size))
        if had > size or (self._shuffle and had != size):
            raise UsageError(
                f"{size:,} tar files are to be read, and {had:,} were when this state was taken. Name the same files, "
                "or begin without the state"
            )
        if self._shuffle:
            order = run.generator(self, path)(0).permutation(order).tolist()
        first = 0 if self.verify != "off" else None
        cursor = _Cursor(at.get("shard", 0), at.get("record", 0), (at.get("offset", 0), at.get("headers", first)))
        rows = self._along([self._shards[number] for number in order], cursor)
        return rows, lambda: {
            "pass": path, "shards": size, "shard": cursor.shard, "record": cursor.record,
            "offset": cursor.behind[0], "headers": cursor.behind[1],
        }  # fmt: skip

    def _along(self, shards: list[str], cursor: _Cursor) -> Iterator[Any]:
        """Yield the datapoints of one shard after another, and keep ``cursor`` behind the one yielded last."""
        identities = {shard: identity_of(shard) for shard in shards[cursor.shard :]}
        maker, first = self._maker(), (0, 0 if self.verify != "off" else None)
        while cursor.shard < len(shards):
            shard = shards[cursor.shard]
            file, size = _open_same(shard, identities[shard]), size_of(shard)
            refuse_smaller(cursor.behind[0], size, shard)
            try:
                reader = TarReader(file, size, *cursor.behind)
                for cursor.behind, dp in datapoints(reader, maker):
                    cursor.record += 1
                    yield dp
                if self.verify != "off":
                    check_last(reader, shard, self._lasts)
            except CorruptDataError as error:
                raise CorruptDataError(f"{shard!r}, record {cursor.record}: {error}") from error
            except Exception as error:
                error.add_note(f"in {shard!r}, record {cursor.record}")
                raise
            cursor.shard, cursor.record, cursor.behind = cursor.shard + 1, 0, first

    def _maker(self) -> Make:
        return maker(self.decode, self.allow_pickle, self.verify != "off")


# Offset and ``headers`` for a TarReader.
Behind = tuple[int, int | None]


class _Cursor:
    """Where a pass along the files is: behind so many datapoints of a shard."""

    def __init__(self, shard: int, record: int, behind: Behind) -> None:
        self.shard, self.record, self.behind = shard, record, behind


class Component(NamedTuple):
    """A member that is part of a datapoint."""

    key: str
    extension: str
    member: Member


Make = Callable[[list[tuple[Component, bytearray]]], Any]


def datapoints(reader: TarReader, make: Make) -> Iterator[tuple[Behind, Any]]:
    """Yield, for each datapoint, where the next one begins, and what ``make`` makes of its components."""
    component = component_of(reader)
    while component is not None:
        key, run, failure = component.key, [], None
        while component is not None and component.key == key:
            run.append((component, reader.read(component.member)))
            try:
                component = component_of(reader)
            except CorruptDataError as error:  # which is behind this datapoint
                component, failure = None, error
        dp = make(run)
        if component is None:
            yield (reader.offset, reader.headers), dp
        else:
            yield (component.member.start, component.member.before), dp
        if failure is not None:
            raise failure


def component_of(reader: TarReader) -> Component | None:
    """Return what comes next and has a key, or None at the end.

    Raises:
        CorruptDataError: if a name leads out of the archive, beside what ``reader`` raises.
    """
    while (member := reader.member()) is not None:
        name = member.name
        behind = name.rfind("/") + 1
        base, dot, extension = name[behind:].partition(".")
        if name.startswith("/") or ".." in name.split("/") or "\\" in name:
            raise CorruptDataError(f"the name {name[:80]!r} at byte {member.start} leads out of the archive")
        if base and dot and not (name.startswith("__") and _ABOUT.match(name)):
            return Component(name[:behind] + base, extension.lower(), member)
    return None


def maker(decode: bool, allow_pickle: bool, verify: bool) -> Make:
    """Return what makes a datapoint of its components."""

    def value(component: Component, data: bytearray) -> Any:
        member = component.member
        try:
            if verify and member.crc is not None and checksum(data) != member.crc:
                raise CorruptDataError("damaged: its bytes and their checksum do not agree. Copy the file again")
            return decode_member(component.extension, data, allow_pickle, verify) if decode else bytes(data)
        except CorruptDataError as error:
            raise CorruptDataError(f"the member {member.name!r} at byte {member.start}: {error}") from error

    def make(run: list[tuple[Component, bytearray]]) -> Any:
        first, data = run[0]
        if decode and len(run) == 1 and first.extension == WHOLE:
            return value(first, data)
        dp = {} if decode and first.member.unnamed else {KEY: first.key}
        for component, data in run:
            if component.extension in dp:
                name, start = component.member.name, component.member.start
                raise CorruptDataError(f"the member {name!r} at byte {start}: there is one of that name before it")
            dp[component.extension] = value(component, data)
        return dp

    return make


class Index:
    """Where the datapoints of tar files begin; their headers are read once for it.

    Args:
        shards: the files.
        lasts: those which no other follows; see ``last_paths``.
        verify: raise if members or files are missing.

    Attributes:
        identities: which files they were; see ``identity_of``.
        first: the number of the first datapoint of each file and, at the end, of all.
        bounds: for each file where its datapoints begin and, at the end, where the last one ends.
    """

    def __init__(self, shards: list[str], lasts: set[str], verify: bool) -> None:
        self.identities = list(map(identity_of, shards))
        self.first, self.bounds = [0], [_bounds(shard, lasts, verify) for shard in shards]
        for bounds in self.bounds:
            self.first.append(self.first[-1] + len(bounds) - 1)

    def shard_of(self, number: int) -> int:
        """Return the number of the file that holds a datapoint."""
        return bisect_right(self.first, number) - 1


def _open_same(shard: str, identity: Any) -> BinaryIO:
    """Open a file that is still the one that it was when the pass began.

    Raises:
        UsageError: if it is not.
    """
    file = open_binary(shard)
    if identity_of(shard) != identity:
        raise UsageError(
            f"{shard!r} has been replaced since this pass began, which would go on with other datapoints. Begin a new "
            "pass, and write new files under other names"
        )
    return file


def check_last(reader: TarReader, shard: str, lasts: set[str]) -> None:
    """Raise if a file that should be the last of its set says that others follow."""
    if reader.last is False and shard in lasts:
        raise CorruptDataError("it is not the last file that was written, and the next one is missing. Copy it, too")


def _bounds(shard: str, lasts: set[str], verify: bool) -> array[int]:
    """Return where the datapoints of a file begin, and where the last one ends."""
    bounds, key = array("q"), None
    with open(shard, "rb", buffering=0) as file:  # a buffer would read eight times as much
        reader = TarReader(cast(BinaryIO, file), size_of(shard), headers=0 if verify else None)
        try:
            while (component := component_of(reader)) is not None:
                if component.key != key:
                    bounds.append(component.member.start)
                    key = component.key
            if verify:
                check_last(reader, shard, lasts)
        except CorruptDataError as error:
            raise CorruptDataError(f"{shard!r}, record {len(bounds)}: {error}") from error
    bounds.append(reader.offset)
    return bounds
