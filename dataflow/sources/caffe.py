"""LMDB files of Caffe: images as records of the message ``Datum``, read without protobuf.

What a record holds, of ``message Datum`` in caffe.proto (the wire format is that of protobuf.dev/encoding)::

    1 channels   2 height   3 width   5 label     int32, as varints
    4 data                                        bytes: the pixels, channel by channel; or an image file
    6 float_data                                  floats in the place of data
    7 encoded                                     bool: data is an image file, such as a JPEG
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from ..errors import CorruptDataError
from ..utils.deps import need
from ..utils.images import decode_image
from .lmdb_file import LMDBData, LMDBDataDecoder

CHANNELS, HEIGHT, WIDTH, DATA, LABEL, FLOAT_DATA, ENCODED = range(1, 8)
# How a field is written: the lower three bits of its tag. Some have a fixed size.
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}

# One of many floats that stand one by one, each behind a tag.
FLOAT_TAG = FLOAT_DATA << 3 | FIXED32
TAGGED_FLOAT = np.dtype([("tag", "u1"), ("value", "<f4")])
# How many of these are looked at in one go.
RUN = 512

# OpenCV puts channels side by side 10 to 40 times as fast as numpy, up to this many.
MOST_CHANNELS = 512

# A field: its number, how it is written, and its value, an int or bytes.
Field = tuple[int, int, Any]


class CaffeLMDB(LMDBDataDecoder):
    r"""Yield ``[image, label]`` for each record of an LMDB file that Caffe, or a tool of it, has written.

    An image is a contiguous array of shape (height, width, channels): uint8, or float32 where the file holds floats.
    Its channels come in the order in which they were stored, which for the tools of Caffe is BGR. Where the file holds
    encoded images, such as JPEG, they are decoded as by ``ImageFromFile``: to RGB, or to one channel where the record
    says that it has one. The label is an int, 0 where there is none.

    >>> import lmdb, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with lmdb.open(folder) as env, env.begin(write=True) as txn:
    ...         _ = txn.put(b"00000000", b'\x08\x01\x10\x01\x18\x02"\x02\x05\x06(\x07')  # 1 x 1 x 2, label 7
    ...     [[image.tolist(), label] for image, label in CaffeLMDB(folder)]
    [[[[[5], [6]]], 7]]

    Its length is exact.

    Args:
        lmdb_path: a file, or a folder with a ``data.mdb`` in it.
        shuffle: read the records in a new random order in each pass.
        keys: as of ``LMDBData``.
        seed: seed of the order, instead of the root seed.

    Raises:
        FileNotFoundError: at construction, if there is no such file.
        TypeError: at construction, if ``keys`` is of another type (ValueError for a key or format that is none).
        CorruptDataError: while iterating, with file and key, if a record is damaged or no ``Datum``; from ``len`` and
            ``iter``, if it is no LMDB file or only the beginning of one.
        MissingKeyError: while iterating, if a key is not in the file.
    """

    def __init__(self, lmdb_path: Any, shuffle: bool = True, keys: Any = None, *, seed: int | None = None) -> None:
        data = LMDBData(lmdb_path, shuffle, keys, seed=seed)
        super().__init__(data, partial(_datapoint, os.fsdecode(data.lmdb_path)))
        self.lmdb_path = data.lmdb_path
        self._shuffle = shuffle
        self.keys = data.keys


def _datapoint(path: str, key: bytes, value: bytes) -> list[Any]:
    """Decode one record."""
    try:
        found: dict[int, Any] = {}
        floats = bytearray()
        for number, kind, content in _fields(value):
            if number == FLOAT_DATA and kind == LENGTH:
                floats += content
            elif kind == (LENGTH if number == DATA else VARINT):  # what is written in another way is not ours
                found[number] = content if number == DATA else _int32(content)
        label = found.get(LABEL, 0)
        if not found.get(ENCODED):
            return [_image(found, floats), label]
        name = f"{path}, key {key!r}"
        return [decode_image(found.get(DATA, b""), name, 1 if found.get(CHANNELS) == 1 else 3), label]
    except CorruptDataError:
        raise
    except ValueError as error:
        raise CorruptDataError(
            f"{path!r}, key {key!r} holds no Datum: {error}. Copy the file again, or leave the key out"
        ) from error


def _image(found: dict[int, Any], floats: bytearray) -> np.ndarray[Any, Any]:
    """Return the pixels of a record, as an array of their own."""
    shape = channels, height, width = [found.get(number, 0) for number in (CHANNELS, HEIGHT, WIDTH)]
    data = found.get(DATA)
    pixels: Any = np.frombuffer(data, np.uint8) if data else np.frombuffer(floats, "<f4")
    if min(shape) < 1 or math.prod(shape) != pixels.size:
        what = f"{channels:,} channels, {height:,} rows and {width:,} columns"
        raise ValueError(f"it has {pixels.size:,} values for an image of {what}")
    planes = pixels.reshape(shape)
    if 1 < channels <= MOST_CHANNELS:
        image: np.ndarray[Any, Any] = need("cv2", by="CaffeLMDB").merge(list(planes))
        return image
    return np.array(planes.transpose(1, 2, 0), order="C")


def _fields(raw: bytes) -> Iterator[Field]:
    """Yield the fields of a message; floats that stand one by one come as those that are packed.

    Raises:
        ValueError: if ``raw`` is no message, or not all of it.
    """
    at, end = 0, len(raw)
    while at < end:
        tag, start = _varint(raw, at)
        number, kind = tag >> 3, tag & 7
        content: Any
        if tag == FLOAT_TAG:
            kind = LENGTH
            content, at = _tagged_floats(raw, at)
        elif kind == VARINT:
            content, at = _varint(raw, start)
        elif kind in SIZES or kind == LENGTH:
            size, start = (SIZES[kind], start) if kind in SIZES else _varint(raw, start)
            at = start + size
            content = raw[start:at]
        else:
            raise ValueError(f"there is no field at byte {at:,}")
        if at > end:
            raise ValueError(f"it is cut off at {end:,} bytes")
        yield number, kind, content


def _tagged_floats(raw: bytes, at: int) -> tuple[bytes, int]:
    """Return the floats from ``at`` on, packed, and where they end; that is behind ``raw`` if none is whole."""
    run = np.frombuffer(raw, TAGGED_FLOAT, min(RUN, (len(raw) - at) // TAGGED_FLOAT.itemsize), at)
    others = np.flatnonzero(run["tag"] != FLOAT_TAG)
    count = int(others[0]) if others.size else len(run)
    return run["value"][:count].tobytes(), at + max(count, 1) * TAGGED_FLOAT.itemsize


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at``, seven bits a byte, and where it ends."""
    value = shift = 0
    for end, byte in enumerate(raw[at : at + 10], at + 1):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, end
        shift += 7
    raise ValueError(f"there is no number at byte {at:,}")


def _int32(value: int) -> int:
    """Return what a varint means: a negative number is written with 64 bits."""
    number: int = struct.unpack("<i", struct.pack("<I", value & 0xFFFFFFFF))[0]
    return number
