"""Read LMDB files: as raw bytes, with a decoder, or as LMDBSerializer wrote them."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from itertools import compress, repeat, tee
from operator import length_hint
from typing import Any, ClassVar

import numpy as np

from ..base import RNGDataFlow, as_flow
from ..codec import loads
from ..codec.record import FIRST_BYTE, decode
from ..errors import CorruptDataError, MissingKeyError, UsageError
from ..passes import Place, Run, Walk
from ..proxies import MapData
from ..utils import check
from ..utils.open_file import checked_path, refuse_url
from ..utils.open_lmdb import LMDBFile, data_file, open_lmdb
from ..utils.parts import Parts
from ..utils.rng import checked_seed
from .lmdb_keys import Keys, all_keys, checked_keys, damage_named, listed_keys, packed
from .order import place_in, start_of

# How many numbers of an order are Python ints at a time.
PART = 4096

VERIFY = ("off", "first", "always")


class _LMDBFlow(RNGDataFlow):
    """Walk an LMDB file by its keys, in random or in a given order, or else along the file."""

    _transient = (*RNGDataFlow._transient, "_file")
    _file: LMDBFile | None = None
    # True: values come as views on the file and not as bytes.
    _buffers: ClassVar[bool] = False

    def __init__(self, lmdb_path: Any, shuffle: bool, keys: Any, allow_pickle: bool, seed: int | None) -> None:
        check.flag(shuffle=shuffle, allow_pickle=allow_pickle)
        self.lmdb_path = checked_path(lmdb_path=lmdb_path)
        refuse_url(self.lmdb_path, "LMDB")
        data_file(self.lmdb_path)
        self._shuffle = shuffle
        self.keys = checked_keys(keys)
        self.allow_pickle = allow_pickle
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        if isinstance(self.keys, np.ndarray):
            return len(self.keys)
        file = self._opened()
        listed = listed_keys(file, self.allow_pickle) if self._shuffle and self.keys is None else None
        return file.count if listed is None else len(listed)

    def close(self) -> None:
        """End the running pass and close the file, unless others read it too; see ``DataFlow.close``."""
        super().close()
        self._file = None

    def _opened(self) -> LMDBFile:
        """Return the file that the path leads to now."""
        path = data_file(self.lmdb_path)
        if self._file is None or not self._file.is_still(os.stat(path)):
            self._file = None
            self._file = open_lmdb(path)
        return self._file

    def _keys(self, file: LMDBFile) -> Keys:
        """Return the keys to be read."""
        if isinstance(self.keys, np.ndarray):
            return self.keys
        kind = self.keys, self.allow_pickle
        if kind not in file.cache:
            if self.keys is not None:
                found = packed([self.keys.format(number).encode() for number in range(file.count)])
            else:
                listed = listed_keys(file, self.allow_pickle)
                found = all_keys(file) if listed is None else listed
            file.cache[kind] = found
        keys: Keys = file.cache[kind]
        return keys

    def _walk(self, at: Place, run: Run) -> Walk:
        file = self._opened()
        with damage_named(file):
            if self._shuffle or self.keys is not None:
                return self._by_key(file, at, run)
            return self._in_order(file, at)

    def _by_key(self, file: LMDBFile, at: Place, run: Run) -> Walk:
        path, keys = at["pass"], self._keys(file)
        size = len(keys)
        start = start_of(at, size, repr(file.path))
        order = run.generator(self, path)(0).permutation(size) if self._shuffle else np.arange(size)
        parts = Parts()
        numbers = parts.rows(order[i : i + PART].tolist() for i in range(start, size, PART))

        def here() -> tuple[int, bytes]:
            number = int(order[start + parts.given - 1])
            return number, keys.item(number)

        rows = self._fetch(file, file.begin(self._buffers).get, keys, numbers)
        return _located(rows, file, here, by_key=True), lambda: place_in(path, start + parts.given, size, self._shuffle)

    def _in_order(self, file: LMDBFile, at: Place) -> Walk:
        path, start, count = at["pass"], start_of(at, file.count, repr(file.path)), file.count
        cursor = file.begin(self._buffers).cursor()
        if start == 0:
            cursor.first()
        elif start < count:
            key = at.get("key", "").encode("latin-1")
            if not key or not cursor.set_key(key):
                raise UsageError(f"{file.path!r} has been replaced by another file since this state was taken")
            cursor.next()
        # Numbers from 1, which `compress` takes for true; how many are left is the position.
        left = iter(range(start + 1, count + 1))

        def place() -> Place:
            index = count - length_hint(left)
            if not 0 < index < count:
                return {"pass": path, "index": index}
            last = bytes(cursor.key()).decode("latin-1") if index > start else at["key"]
            return {"pass": path, "index": index, "key": last}

        def here() -> tuple[int, bytes]:
            return count - length_hint(left) - 1, bytes(cursor.key())

        def rows() -> Iterator[Any]:
            yield from self._follow(file, cursor, left)
            if missing := length_hint(left):
                raise CorruptDataError(f"the file is damaged behind it: {missing:,} records are missing. Copy it again")

        return _located(rows(), file, here), place

    @abstractmethod
    def _fetch(self, file: LMDBFile, get: Callable[[bytes], Any], keys: Keys, numbers: Iterator[int]) -> Iterator[Any]:
        """Make datapoints of the values of ``keys`` whose numbers are given."""

    @abstractmethod
    def _follow(self, file: LMDBFile, cursor: Any, left: Iterator[int]) -> Iterator[Any]:
        """Make datapoints of what comes from ``cursor`` on, one for each number that is left."""


class LMDBData(_LMDBFlow):
    """Read an LMDB file as pairs ``[key, value]`` of raw bytes.

    What the bytes mean is for ``LMDBDataDecoder``, or for a mapper that runs in parallel: for files of
    ``LMDBSerializer`` it is ``lambda dp: loads(dp[1])``.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     LMDBSerializer.save(DataFromList([["a", 1], ["b", 2]], shuffle=False), f"{folder}/x.lmdb")
    ...     df = LMDBData(f"{folder}/x.lmdb", shuffle=False)
    ...     len(df), next(iter(df))[0], list(MapData(df, lambda dp: loads(dp[1])))
    (2, b'00000000', [['a', 1], ['b', 2]])

    Its length is the number of keys that it reads. The record ``__keys__``, in which ``LMDBSerializer`` lists the
    keys, is never a datapoint. The file may be replaced by another at any time, but not be written to while it is
    read: a pass goes on with the file that it began with, the next begins with the new one. LMDB trusts its files: one
    that was made to do harm may crash the process.

    Args:
        lmdb_path: a file, or a folder with a ``data.mdb`` in it.
        shuffle: read the keys in a new random order in each pass.
        keys: list of str or bytes, or a format string such as ``"{:0>8d}"`` for the numbers from 0 up to the size of
            the file. Without ``shuffle`` it is also their order. If not given, all datapoints are read: without
            ``shuffle`` in the order of the file, else by the list in ``__keys__`` or, if there is none, after a scan.
        allow_pickle: load a ``__keys__`` that is a pickle, as tensorpack wrote it, which may run any code; else the
            file is scanned.
        seed: seed of the order, instead of the root seed.

    Raises:
        FileNotFoundError: at construction, if there is no such file.
        TypeError: at construction, if ``keys`` is of another type.
        ValueError: at construction, if a key is empty or a format string has no place for a number.
        CorruptDataError: from ``len`` and ``iter``, if it is no LMDB file or only the beginning of one.
        MissingKeyError: while iterating, if a key is not in the file.
    """

    def __init__(
        self, lmdb_path: Any, shuffle: bool = True, keys: Any = None, *, allow_pickle: bool = False,
        seed: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(lmdb_path, shuffle, keys, allow_pickle, seed)

    def _fetch(self, file: LMDBFile, get: Callable[[bytes], Any], keys: Keys, numbers: Iterator[int]) -> Iterator[Any]:
        def read(key: bytes) -> list[bytes]:
            value = get(key)
            if value is None:
                raise file.missing(key)
            return [key, value]

        return map(read, map(keys.item, numbers))

    def _follow(self, file: LMDBFile, cursor: Any, left: Iterator[int]) -> Iterator[Any]:
        return map(list, compress(file.items(cursor), left))


class LMDBDataDecoder(MapData):
    """Decode the pairs of ``LMDBData`` with a function of key and value.

    >>> pairs = DataFromList([[b"a", b"1"], [b"b", b""]], shuffle=False)  # LMDBData(...), say
    >>> list(LMDBDataDecoder(pairs, lambda key, value: [int(value)] if value else None))
    [[1]]

    Its length is ``len(lmdb_data)``, which is too large where datapoints are dropped.

    Args:
        lmdb_data: LMDBData, or another flow of pairs.
        decoder: key, value -> datapoint, or None to drop it. A parameter ``rng`` is served as in ``MapData``.

    Raises:
        TypeError: at construction, if ``lmdb_data`` is no flow, or ``decoder`` cannot be called.
        Exception: while iterating, whatever ``decoder`` raises, with a note that says at which datapoint.
    """

    def __init__(self, lmdb_data: Any, decoder: Callable[..., Any]) -> None:
        check.function(decoder=decoder)
        try:
            lmdb_data = as_flow(lmdb_data)
        except TypeError:
            raise TypeError(
                f"lmdb_data must be LMDBData or another flow of pairs, got {check.seen(lmdb_data)}. "
                "Of a path, give LMDBData(lmdb_path)"
            ) from None
        super().__init__(lmdb_data, decoder)
        self.lmdb_data = self.ds
        self.decoder = decoder

    def _applied(self, func: Callable[..., Any]) -> Callable[..., Any]:
        def apply(dp: Any, **rng: Any) -> Any:
            key, value = dp
            return func(key, value, **rng)

        return apply


class LMDBRecords(_LMDBFlow):
    """Read the datapoints that ``LMDBSerializer`` wrote; ``LMDBSerializer.load`` makes these and explains them."""

    _buffers = True

    def __init__(
        self, lmdb_path: Any, shuffle: bool = True, *, verify: str = "first", copy: bool = True,
        allow_pickle: bool = False, seed: int | None = None,
    ) -> None:  # fmt: skip
        check.one_of(VERIFY, verify=verify)
        check.flag(copy=copy)
        super().__init__(lmdb_path, shuffle, None, allow_pickle, seed)
        self.verify = verify
        self.copy = copy

    def _opened(self) -> LMDBFile:
        file = super()._opened()
        if not self.copy:
            file.keep()
        listed = listed_keys(file, self.allow_pickle)
        if listed is not None and len(listed) != file.count:
            raise CorruptDataError(
                f"{file.path!r} lists {len(listed):,} datapoints and holds {file.count:,}: its writer lost some. "
                "Write it again, or read what is there with LMDBData and loads"
            )
        return file

    def _fetch(self, file: LMDBFile, get: Callable[[bytes], Any], keys: Keys, numbers: Iterator[int]) -> Iterator[Any]:
        verified = self._verified_once(file, "by key", bytearray(len(keys)))
        if verified is None:
            return self._decoded(file, map(get, map(keys.item, numbers)))
        numbers, again = tee(numbers)
        return map(verified, map(get, map(keys.item, again)), numbers)

    def _follow(self, file: LMDBFile, cursor: Any, left: Iterator[int]) -> Iterator[Any]:
        verified = self._verified_once(file, "in order", bytearray(b"\1") + bytes(file.count))
        values = file.values(cursor)
        # Values first: where they end too early, `left` must not have lost one.
        return self._decoded(file, compress(values, left)) if verified is None else map(verified, values, left)

    def _decoded(self, file: LMDBFile, values: Iterator[Any]) -> Iterator[Any]:
        if _is_ours(file):
            return map(decode, values, repeat(self.copy), repeat(self.verify == "always"))
        load = partial(loads, allow_pickle=self.allow_pickle, copy=self.copy, verify=self.verify != "off")
        return map(load, values)

    def _verified_once(self, file: LMDBFile, way: str, unseen: bytearray) -> Callable[[Any, int], Any] | None:
        """Return what decodes a record, and verifies it the first time; None if there is nothing to verify so."""
        if self.verify != "first" or not _is_ours(file):
            return None
        seen = file.cache.setdefault(way, unseen)
        if 0 not in seen:
            return None
        copy = self.copy

        def read(data: Any, number: int) -> Any:
            if seen[number]:
                return decode(data, copy, False)
            dp = decode(data, copy, True)
            seen[number] = 1
            return dp

        return read


def _located(
    rows: Iterator[Any], file: LMDBFile, here: Callable[[], tuple[int, bytes]], by_key: bool = False
) -> Iterator[Any]:
    """Hand on ``rows``; an error says which record of which file it is about."""
    try:
        yield from rows
    except MissingKeyError:
        raise
    except file.error as error:
        raise CorruptDataError(f"{file.path!r} is damaged near record {here()[0]} ({error}). Copy it again") from error
    except Exception as error:
        number, key = here()
        if by_key and _is_missing(file, key):  # else the file has given the key
            raise file.missing(key) from None
        where = f"{file.path!r}, record {number} (key {key!r})"
        if isinstance(error, CorruptDataError):
            raise CorruptDataError(f"{where}: {error}") from error
        error.add_note(f"in {where}")
        raise


def _is_missing(file: LMDBFile, key: bytes) -> bool:
    try:
        return file.begin().get(key) is None
    except file.error:  # it is there, in a place that cannot be read
        return False


def _is_ours(file: LMDBFile) -> bool:
    """Say whether the first datapoint is a record of dataflow, and so is every other."""
    if "ours" not in file.cache:
        cursor = file.begin(buffers=True).cursor()
        cursor.first()
        value = next(file.values(cursor), b"")
        file.cache["ours"] = bool(value) and value[0] == FIRST_BYTE
    return bool(file.cache["ours"])
