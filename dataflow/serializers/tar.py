"""Write a flow to tar files in WebDataset's naming, and read it again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, BinaryIO

from ..codec import checksum
from ..codec.members import encode_member
from ..codec.record import encode
from ..sources.tar_file import KEY, WHOLE, TarData
from ..utils import check
from ..utils.deps import need
from ..utils.open_file import checked_path, is_url, published_stream, refuse_existing
from ..utils.shards import has_number, numbered, refuse_braces
from ..utils.tar_headers import BLOCK, END, RECORD, end_of, header, padded
from . import tar_check
from .saving import Saving, saving

# A shard of which nothing else is said.
SHARD_BYTES = 1 << 30
_EXTENSION = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}", re.ASCII)
_END = bytes(2 * BLOCK)
_FILLS = [bytes(-size % BLOCK) for size in range(BLOCK)]

Member = tuple[str, bytes, int | None, bool]


class TarSerializer:
    """Save a flow to tar files in WebDataset's naming, and load it again.

    A file is one member of the archive and one component of a datapoint: ``train/0001.jpg`` and ``train/0001.cls`` are
    ``{"__key__": "train/0001", "jpg": b"...", "cls": 7}``. Extensions with a meaning are

    - ``txt``, ``text``, ``transcript``: str
    - ``cls``, ``class``, ``cls2``, ``count``, ``id``, ``index``, ``inx``: int
    - ``json``, ``jsn``: what JSON holds
    - ``npy``: an array, not of objects
    - ``df``: anything that ``dumps`` holds

    and every other stands for bytes. The package webdataset reads the files, and its files are read here.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     df = DataFromList([{"__key__": "cat", "jpg": b"...", "cls": 7}], shuffle=False)
    ...     TarSerializer.save(df, f"{folder}/x.tar")
    ...     list(TarSerializer.load(f"{folder}/x.tar"))
    [{'__key__': 'cat', 'jpg': b'...', 'cls': 7}]
    """

    @staticmethod
    def save(
        df: Any, path: Any, *, shard_size: int | None = None, shard_bytes: int | None = None, encode: bool = True
    ) -> None:
        """Write one pass of a flow, after a ``reset_state``, to new files.

        A dict with a ``__key__`` is stored under it, one member for each component, or not at all if a component is not
        what its extension takes. Any other datapoint has its number for a key: a dict whose components all are what
        their names, as extensions, take becomes members, too; all else is one member ``00000000.df``. They come back as
        they were.

        Each file is there when it is complete and on the disk. After an error or an interrupt there is none; a killed
        process may leave the first of several. Members carry a checksum.

        Args:
            df: a finite flow of lists or dicts.
            path: path or URL of a file that does not exist; with a number in its name, such as ``x-%06d.tar``, of
                several, the shards.
            shard_size: most datapoints in a shard.
            shard_bytes: bytes after which a shard ends; 1 GiB if neither is given.
            encode: encode the components; else every datapoint is a dict of bytes with a ``__key__``, as loading with
                ``decode=False`` gives it.

        Raises:
            FileExistsError: if the file exists or, with a number in its name, any of them.
            OSError: with ``path`` in it, if it cannot be written.
            ValueError: if ``shard_size`` or ``shard_bytes`` is given for one file, or a key is no name for a member.
            UsageError: if the flow never ends.
            TypeError: if a datapoint holds something that would not come back as it is; a note says which.
        """
        for name, value in (("shard_size", shard_size), ("shard_bytes", shard_bytes)):
            if value is not None:
                check.integer(1, **{name: value})
        check.flag(encode=encode)
        pattern = checked_path(path=path)
        refuse_braces(pattern)
        if not has_number(pattern):
            if shard_size is not None or shard_bytes is not None:
                raise ValueError(f"several files need a number in their name, such as 'x-%06d.tar', got {pattern!r}")
        elif there := numbered(pattern):
            refuse_existing(pattern % there[0])
        if shard_size is None and shard_bytes is None:
            shard_bytes = SHARD_BYTES
        with saving(df, pattern, by="TarSerializer.save") as job, _Shards(job, shard_size, shard_bytes) as shards:
            names = _Names()
            for number, dp in enumerate(job.rows()):
                shards.write(names.named(members_of(dp, number, encode)))

    @staticmethod
    def load(
        path: Any, shuffle: bool | str = False, *, verify: str = "always", decode: bool = True,
        allow_pickle: bool = False, seed: int | None = None,
    ) -> TarData:  # fmt: skip
        """Return a flow of the datapoints that ``save``, or webdataset, wrote to tar files, in their order.

        Members without an extension, and those that webdataset takes for a description of the archive, are passed over.
        Nothing is ever unpacked to the disk. The length is known for files on this machine: the headers are read for it
        once.

        Args:
            path: path or URL; braces in it stand for several, as in ``x-{000000..000099}.tar``, a number such as
                ``%06d`` for all that there are; or a list of these.
            shuffle: yield the datapoints in a new random order in each pass, or with "shards" only the files.
            verify: compare checksums "always" or never, "off": those of the members, and the one at the end that tells
                whether all members are there. Only our files have them. Of files with a number in their names, the
                last one must have been written as the last.
            decode: decode what the extensions tell; else all components are bytes.
            allow_pickle: load pickles (``pyd``, ``pkl``, ``pickle``) too, which may run any code.
            seed: seed of the order, instead of the root seed.

        Raises:
            FileNotFoundError: if there is no such file.
            UsageError: if ``shuffle`` is True and the path is a URL; while iterating, if a member is a pickle and
                ``allow_pickle`` is not set.
            CorruptDataError: while iterating, with file, record and offset, if the bytes are damaged or end too early,
                the archive is compressed, or a member is a link, a device or otherwise no regular file.
        """
        return TarData(path, shuffle, verify=verify, decode=decode, allow_pickle=allow_pickle, seed=seed)

    @staticmethod
    def inspect(path: Any) -> dict[str, Any]:
        """Tell what tar files are, in a JSON-able dict; of those on this machine the headers are read.

        Raises:
            FileNotFoundError: if there is no such file.
            CorruptDataError: if it is no tar file, or a damaged one.
        """
        return tar_check.inspect(path)

    @staticmethod
    def damages(
        path: Any, *, allow_pickle: bool = False, on_record: Callable[[], None] | None = None
    ) -> Iterator[tuple[int | None, str]]:
        """Read every datapoint of tar files, and yield the number and the fault of each that is damaged.

        Behind a damaged header the next whole one is looked for, so the numbers behind it may be too small. None for a
        number: a file itself is at fault, such as one that is cut short.

        Args:
            path: what ``load`` takes.
            allow_pickle: load pickles too, which may run any code.
            on_record: is called after each datapoint.

        Raises:
            FileNotFoundError: if there is no such file.
            UsageError: if it holds pickles and ``allow_pickle`` is not set.
        """
        return tar_check.damages(path, allow_pickle=allow_pickle, on_record=on_record)


def members_of(dp: Any, number: int, encoded: bool = True) -> list[Member]:
    """Return name, bytes, checksum and whether the key is only the number, for each member of a datapoint."""
    if not encoded:
        return _raw(dp)
    if type(dp) is dict and KEY in dp:
        return _by_extension(dp, _checked_key(dp[KEY]))
    key = f"{number:08d}"
    if type(dp) is dict and dp and dp.keys() != {WHOLE} and all(map(_is_extension, dp)):
        try:
            return _by_extension(dp, key)
        except TypeError:
            pass  # a component is something else: the whole is one member
    return [(f"{key}.{WHOLE}", encode(dp, True), None, True)]  # which has a checksum of its own


def _by_extension(dp: dict[str, Any], key: str) -> list[Member]:
    unnamed = KEY not in dp
    members: list[Member] = []
    for extension, value in dp.items():
        if extension == KEY:
            continue
        if not _is_extension(extension):
            raise TypeError(
                f"cannot store component {extension!r} of the datapoint {key!r}: it is no extension of a file. Rename "
                f"it, or leave {KEY!r} out to store the datapoint as one member"
            )
        try:
            data = encode_member(extension, value)
        except TypeError as error:
            raise TypeError(f"cannot store component {extension!r} of the datapoint {key!r}: {error}") from None
        members.append((f"{key}.{extension}", data, checksum(data), unnamed))
    if not members or dp.keys() == {KEY, WHOLE}:
        # Alone, a member .df is a whole datapoint.
        return [(f"{key}.{WHOLE}", encode(dp, True), None, unnamed)]
    return members


def _raw(dp: Any) -> list[Member]:
    if type(dp) is not dict or type(dp.get(KEY)) is not str or len(dp) < 2:
        raise TypeError(f"with encode=False a datapoint is a dict of bytes with a {KEY!r}, got {check.seen(dp)}")
    key = _checked_key(dp[KEY])
    members: list[Member] = []
    for extension, data in dp.items():
        if extension == KEY:
            continue
        if not _is_extension(extension) or type(data) is not bytes:
            raise TypeError(f"cannot store component {extension!r}: it is no bytes under the extension of a file")
        members.append((f"{key}.{extension}", data, checksum(data), False))
    return members


def _is_extension(name: Any) -> bool:
    return type(name) is str and _EXTENSION.fullmatch(name) is not None


def _checked_key(key: Any) -> str:
    """Return a key if it is the same once it is part of the name of a member."""
    if type(key) is not str:
        raise TypeError(f"{KEY!r} must be a str, got {check.seen(key)}")
    parts = key.split("/")
    if not parts[-1] or "." in parts[-1] or ".." in parts or key.startswith(("/", "__")) or set(key) & set("\\\0"):
        raise ValueError(
            f"{KEY!r} must be a relative name without a dot in its last part, such as 'train/0001', got {key!r}"
        )
    return key


class _Names:
    """See to it that datapoints which follow one another have different keys."""

    def __init__(self) -> None:
        self._last = ""

    def named(self, members: list[Member]) -> list[Member]:
        name = members[0][0]
        behind = name.rfind("/") + 1
        key = name[: name.index(".", behind)]
        if key == self._last:
            raise ValueError(f"two datapoints in a row have the key {key!r}, and would be read as one. Rename one")
        self._last = key
        return members


class _Shards:
    """The files that a ``save`` writes; after an error it removes those that were complete."""

    def __init__(self, job: Saving, most: int | None, most_bytes: int | None) -> None:
        self._job, self._most, self._most_bytes = job, most, most_bytes
        self._several = has_number(job.path)
        self._done: list[str] = []
        self._open = ExitStack()
        self._file: BinaryIO | None = None
        self._count = self._bytes = self._headers = 0
        self._extend = need("google_crc32c", by="TarSerializer").extend

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        try:
            if kind is None:
                if self._file is None:
                    self._begin()
                self._end(last=True)
            self._open.__exit__(kind, error, traceback)
        except BaseException:
            self._remove()
            raise
        if kind is not None:
            self._remove()

    def write(self, members: list[Member]) -> None:
        """Write the members of one datapoint, to a new shard if one is due."""
        if self._file is not None and self._several and self._is_full():
            self._end(last=False)
        if self._file is None:
            self._begin()
        assert self._file is not None
        write = self._file.write
        for name, data, crc, unnamed in members:
            head, size = header(name, len(data), crc, unnamed), len(data)
            self._headers = self._extend(self._headers, head)
            write(head)
            write(data)
            write(_FILLS[size % BLOCK])
            self._bytes += len(head) + size + -size % BLOCK
        self._count += 1

    def _is_full(self) -> bool:
        return (self._most is not None and self._count >= self._most) or (
            self._most_bytes is not None and self._bytes >= self._most_bytes
        )

    def _begin(self) -> None:
        if self._several:
            self._file = self._open.enter_context(published_stream(self._job.path % len(self._done)))
        else:
            self._file = self._job.open()
        self._count = self._bytes = self._headers = 0

    def _end(self, last: bool) -> None:
        """Write the end of the archive; a shard is published here, a single file by the job."""
        assert self._file is not None
        end = end_of(self._headers, last)
        said = header(END, len(end), checksum(end)) + padded(end)
        self._file.write(said)
        self._bytes += len(said)
        self._file.write(_END + bytes(-(self._bytes + len(_END)) % RECORD))
        self._file = None
        self._open.close()
        if self._several:
            self._done.append(self._job.path % len(self._done))

    def _remove(self) -> None:
        for path in self._done:
            if is_url(path):
                fs, name = need("fsspec.core", by=f"the URL {path!r}").url_to_fs(path)
                fs.rm(name)
            else:
                os.unlink(path)
