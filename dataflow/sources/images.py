"""Image files."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from ..base import RNGDataFlow
from ..passes import Place, Run, Walk
from ..utils import check
from ..utils.deps import need
from ..utils.images import decode_image
from ..utils.rng import checked_seed
from .memory import numbers


class ImageFromFile(RNGDataFlow):
    """Yield the images of a list of files, each as ``[image]``.

    An image is a contiguous uint8 array of shape (h, w, 3), in RGB order, or (h, w, 1) for gray.

    >>> df = ImageFromFile(["cat.jpg", "dog.png"], resize=(240, 320))
    >>> len(df)
    2

    Its length is exact. Files are opened while iterating, one at a time. An image that is cut off is an error, and
    not a picture that is half gray.

    Args:
        files: list of paths.
        channel: 3 for RGB, also of gray files; 1 for gray, also of coloured files.
        resize: (h, w) to resize each image to, or one int for both; else each keeps its size.
        shuffle: yield them in a new random order in each pass; ``files`` itself is not changed.
        seed: seed of the order, instead of the root seed.

    Raises:
        TypeError: at construction, if ``files`` is no list of paths, or ``resize`` is no size.
        ValueError: at construction, if ``files`` is empty, ``channel`` is not 1 or 3, or ``resize`` is below 1.
        FileNotFoundError: while iterating, if a file does not exist.
        CorruptDataError: while iterating, if a file is empty, cut off, damaged or no image.
    """

    def __init__(
        self, files: Sequence[str | os.PathLike[str]], channel: int = 3, resize: int | tuple[int, int] | None = None,
        shuffle: bool = False, *, seed: int | None = None,
    ) -> None:  # fmt: skip
        if isinstance(files, str | bytes | os.PathLike) or not hasattr(files, "__iter__"):
            raise TypeError(f"files must be a list of paths, got {check.seen(files)}")
        check.one_of((1, 3), channel=channel)
        check.flag(shuffle=shuffle)
        self.files = [_path(file) for file in files]
        if not self.files:
            raise ValueError("files must hold at least one path, got none; does the pattern that lists them match any?")
        self.channel = int(channel)
        self.resize = resize
        self._shape = _height_and_width(resize)
        self._shuffle = shuffle
        self._seed = checked_seed(seed)

    def __len__(self) -> int:
        return len(self.files)

    def _walk(self, at: Place, run: Run) -> Walk:
        order, place = numbers(self, at, run, len(self.files), self._shuffle)
        return map(self._read, map(self.files.__getitem__, order)), place

    def _read(self, file: str) -> list[Any]:
        """Return the datapoint of one file."""
        try:
            with open(file, "rb") as opened:
                data = opened.read()
        except FileNotFoundError:
            why = "no such image; a relative path starts at the working directory. Correct it, or leave it out of files"
            raise FileNotFoundError(errno.ENOENT, why, file) from None
        image = decode_image(data, file, self.channel)
        if self._shape is None:
            return [image]
        resized = need("cv2", by="ImageFromFile").resize(image, self._shape[::-1])
        return [resized.reshape(*self._shape, self.channel)]


def _path(file: Any) -> str:
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"files must be a list of paths, got {check.seen(file)} in it")
    return os.fsdecode(file)


def _height_and_width(resize: Any) -> tuple[int, int] | None:
    if resize is None:
        return None
    sides = resize if isinstance(resize, list | tuple) else (resize, resize)
    if len(sides) != 2:
        raise ValueError(f"resize must be an integer or (h, w), got {resize!r}")
    for side in sides:
        check.integer(1, resize=side)
    return int(sides[0]), int(sides[1])
