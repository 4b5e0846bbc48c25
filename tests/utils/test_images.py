from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest

from dataflow.errors import CorruptDataError
from dataflow.utils.images import decode_image

HEIGHT, WIDTH = 40, 60
PROGRESSIVE = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]


def picture() -> np.ndarray:
    """A smooth RGB picture whose channels differ: red grows to the right, green to the bottom, blue is constant."""
    rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
    rgb[..., 0] = np.linspace(0, 255, WIDTH)
    rgb[..., 1] = np.linspace(0, 200, HEIGHT)[:, None]
    return rgb


def encoded(extension: str = ".jpg", image: np.ndarray | None = None, options: tuple[int, ...] = ()) -> bytes:
    bgr = picture()[..., ::-1] if image is None else image
    return cv2.imencode(extension, bgr, options)[1].tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_segment(jpeg: bytes, marker: int, data: bytes) -> bytes:
    """Insert a segment behind the start of a JPEG."""
    return jpeg[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


FILES = {"jpeg": encoded(), "progressive": encoded(options=PROGRESSIVE), "png": encoded(".png")}
# An EXIF thumbnail is a whole JPEG with an end of its own.
FILES["thumbnail"] = with_segment(FILES["jpeg"], 0xE1, b"Exif\0\0" + FILES["jpeg"])


@pytest.mark.parametrize("name", FILES)
def test_gives_a_contiguous_rgb_array(name):
    image = decode_image(FILES[name], name)
    assert (image.shape, image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
    assert image.flags.c_contiguous
    assert image.flags.writeable
    assert np.abs(image.astype(int) - picture()).mean() < 4


def test_a_png_comes_out_bit_by_bit():
    assert (decode_image(FILES["png"], "x") == picture()).all()


@pytest.mark.parametrize("name", FILES)
def test_channel_1_gives_a_gray_array_with_an_axis_for_it(name):
    image = decode_image(FILES[name], name, channel=1)
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((HEIGHT, WIDTH, 1), np.uint8, True)


def test_a_gray_file_becomes_rgb():
    gray = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    image = decode_image(encoded(".png", gray), "x")
    assert (image == gray[:, :, None]).all()


def test_transparency_and_a_second_byte_are_dropped():
    rgba = np.dstack([picture()[..., ::-1], np.full((HEIGHT, WIDTH), 9, np.uint8)])
    assert (decode_image(encoded(".png", rgba), "x") == picture()).all()
    deep = picture()[..., ::-1].astype(np.uint16) * 257
    assert (decode_image(encoded(".png", deep), "x") == picture()).all()


def test_the_orientation_of_the_camera_is_applied():
    quarter_turn = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    turned = decode_image(with_segment(FILES["jpeg"], 0xE1, quarter_turn), "x")
    assert (turned == np.rot90(decode_image(FILES["jpeg"], "x"), -1)).all()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_off_anywhere_is_an_error_that_says_so(name, capfd):
    data = FILES[name]
    for size in [*range(8, len(data), 7), *range(len(data) - 12, len(data))]:
        with pytest.raises(
            CorruptDataError, match=rf"'a/{name}': the (JPEG|PNG) has no end, so it was cut off at {size}"
        ):
            decode_image(data[:size], f"a/{name}")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "thumbnail"])
def test_a_file_whose_rest_was_never_written_is_an_error(name):
    data = FILES[name]
    with pytest.raises(CorruptDataError, match=r"has no end|are damaged"):
        decode_image(data[: len(data) // 2] + bytes(len(data) // 2), "x")


def test_what_follows_the_end_does_no_harm():
    for name, data in FILES.items():
        assert decode_image(data + b"\0" * 100, name).shape == (HEIGHT, WIDTH, 3)


def test_padding_between_segments_does_no_harm():
    jpeg = FILES["jpeg"]
    assert decode_image(jpeg[:2] + b"\xff\xff" + jpeg[2:], "x").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "cannot read the image 'x': it is empty. Fetch the file again, or leave it out", id="empty"),
        pytest.param(b"no picture", "its 10 bytes, from b'no pictu' on, are damaged or no image", id="text"),
        pytest.param(b"\xff\xd8\xff\xd9", "the JPEG has no end", id="jpeg without a scan"),
        pytest.param(b"\xff\xd8\xff", "the JPEG has no end", id="three bytes of a jpeg"),
        pytest.param(FILES["png"][:8], "the PNG has no end", id="eight bytes of a png"),
        pytest.param(
            FILES["png"][:8]
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b""),
            "are damaged or no image|OpenCV refuses it",
            id="more pixels than OpenCV allows",
        ),
    ],
)
def test_what_is_no_image_is_an_error_that_says_what_it_is(data, message):
    with pytest.raises(CorruptDataError, match=message):
        decode_image(data, "x")


def test_the_error_is_the_builtin_that_one_would_expect():
    assert issubclass(CorruptDataError, ValueError)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"channel must be one of 1, 3, got 4"):
        decode_image(FILES["png"], "x", channel=4)
