"""Decode images, and refuse those that are not all there."""

from __future__ import annotations

import numpy as np

from ..errors import CorruptDataError
from . import check
from .deps import need

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"


def decode_image(data: bytes, name: str, channel: int = 3) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Decode the bytes of an image file into a contiguous uint8 array of shape (h, w, channel), in RGB order.

    Gray images become RGB and the other way round; transparency is dropped; more than 8 bits are cut to 8; the
    orientation that a camera has noted is applied.

    Args:
        data: the content of a JPEG, PNG or other file that OpenCV reads.
        name: what to call it in an error, such as its path.
        channel: 3 for RGB, 1 for gray.

    Raises:
        ValueError: if ``channel`` is neither 1 nor 3.
        CorruptDataError: if ``data`` is empty, cut off, damaged or no image.
    """
    check.one_of((1, 3), channel=channel)
    if why := _damage(data):
        raise _corrupt(name, why)
    cv2 = need("cv2", by="decode_image")
    flag = cv2.IMREAD_COLOR_RGB if channel == 3 else cv2.IMREAD_GRAYSCALE
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error as error:  # such as a size beyond OpenCV's limit
        raise _corrupt(name, f"OpenCV refuses it ({error.err})") from error
    if image is None:
        raise _corrupt(name, f"its {len(data)} bytes, from {data[:8]!r} on, are damaged or no image that OpenCV knows")
    return image.reshape(*image.shape[:2], channel)  # type: ignore[no-any-return]  # cv2 has no types here


def _corrupt(name: str, why: str) -> CorruptDataError:
    return CorruptDataError(f"cannot read the image {name!r}: {why}. Fetch the file again, or leave it out")


def _damage(data: bytes) -> str | None:
    """Say what is wrong with ``data``, as far as that is seen without decoding.

    For a file that is cut off OpenCV gives, depending on its version and on the format, an image whose rest is gray,
    or none and a line on stderr.
    """
    if not data:
        return "it is empty"
    if data.startswith(JPEG) and not _jpeg_ends(data):
        return f"the JPEG has no end, so it was cut off at {len(data)} bytes"
    if data.startswith(PNG) and not _png_ends(data):
        return f"the PNG has no end, so it was cut off at {len(data)} bytes"
    return None


def _jpeg_ends(data: bytes) -> bool:
    """Say whether an end marker follows the first scan; a thumbnail before the scan has one too (ITU T.81, B.1)."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 3:
        marker = data[at + 1]
        if marker == START_OF_SCAN:
            # From the end, because it is there. Inside a scan 0xFF is followed by 0 or a restart marker.
            return data.rfind(END_OF_IMAGE, at) >= 0
        # Zero and 0xFF are padding between segments; a segment has a length, which does not count the marker.
        at += 1 if marker in (0, 0xFF) else 2 + int.from_bytes(data[at + 2 : at + 4])
    return False


def _png_ends(data: bytes) -> bool:
    """Say whether the chunks lead to the last one, and whether that is whole (PNG specification, 5.3)."""
    at = len(PNG)
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4])
    return False
