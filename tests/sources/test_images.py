from __future__ import annotations

import json
import os
from itertools import islice

import cv2
import numpy as np
import pytest

from dataflow import BatchData, ImageFromFile
from dataflow.errors import CorruptDataError
from dataflow.testing import check_dataflow, same


def red(height=20, width=30):
    """A picture that is red on its left half and black on its right one, as RGB."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[:, : width // 2, 0] = 255
    return rgb


@pytest.fixture
def files(tmp_path):
    """Five pictures of different widths, with and without compression."""
    paths = [tmp_path / f"{i}.{'png' if i % 2 else 'jpg'}" for i in range(5)]
    for i, path in enumerate(paths):
        cv2.imwrite(str(path), red(width=30 + 2 * i)[..., ::-1])
    return paths


def test_yields_each_image_as_rgb(files):
    df = ImageFromFile(files)
    assert [dp[0].shape for dp in df] == [(20, 30, 3), (20, 32, 3), (20, 34, 3), (20, 36, 3), (20, 38, 3)]
    assert (list(df)[1][0] == red(width=32)).all()
    assert len(df) == 5


def test_images_are_contiguous_bytes_that_may_be_changed(files):
    image = next(iter(ImageFromFile(files)))[0]
    assert (image.dtype, image.flags.c_contiguous, image.flags.writeable) == (np.uint8, True, True)


def test_channel_1_is_gray(files):
    images = [dp[0] for dp in ImageFromFile(files, channel=1)]
    assert [image.shape for image in images][:2] == [(20, 30, 1), (20, 32, 1)]
    assert images[1][0, 0, 0] == 76  # 0.299 of 255, the weight of red


@pytest.mark.parametrize("channel", [1, 3])
@pytest.mark.parametrize(
    ("resize", "shape"), [(8, (8, 8)), ((6, 10), (6, 10)), ([10, 6], (10, 6)), (np.int64(7), (7, 7))], ids=repr
)
def test_resize_is_height_and_width(files, channel, resize, shape):
    for (image,) in ImageFromFile(files, channel, resize):
        assert (image.shape, image.dtype, image.flags.c_contiguous) == ((*shape, channel), np.uint8, True)


def test_resized_images_can_be_batched(files):
    batches = list(BatchData(ImageFromFile(files, resize=(6, 10)), 5))
    assert [batch[0].shape for batch in batches] == [(5, 6, 10, 3)]


@pytest.mark.parametrize("kind", [str, os.fspath, lambda path: path], ids=["str", "fspath", "Path"])
def test_paths_may_be_text_or_path_objects(files, kind):
    assert len(list(ImageFromFile(tuple(map(kind, files))))) == 5


def test_shuffling_leaves_the_list_of_the_user_in_order(files):
    before = list(files)
    df = ImageFromFile(files, shuffle=True, seed=2)
    orders = [[dp[0].shape[1] for dp in df] for _ in range(3)]
    assert files == before
    assert sorted(orders[0]) == sorted(orders[1]) == [30, 32, 34, 36, 38]
    assert not orders[0] == orders[1] == orders[2]


def test_a_list_that_the_user_changes_later_does_not_matter(files):
    df = ImageFromFile(files)
    files.clear()
    assert len(df) == len(list(df)) == 5


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "shuffled"])
def test_keeps_the_contract(files, shuffle):
    check_dataflow(lambda: ImageFromFile(files, resize=4, shuffle=shuffle), new_process=shuffle)


def test_goes_on_at_an_index(files):
    df = ImageFromFile(files, shuffle=True, seed=1)
    it = iter(df)
    list(islice(it, 2))
    state = json.loads(json.dumps(df.state_dict()))
    assert state["at"] == {"pass": [0], "index": 2, "size": len(files)}
    again = ImageFromFile(files, shuffle=True, seed=1)
    again.load_state_dict(state)
    assert same(list(again), list(it))


@pytest.mark.parametrize("number", [0, 1], ids=["jpeg", "png"])
def test_an_image_that_is_cut_off_is_an_error_that_names_it(files, number, capfd):
    whole = files[number].read_bytes()
    for size in range(10, len(whole), 17):
        files[number].write_bytes(whole[:size])
        with pytest.raises(CorruptDataError, match=rf"{files[number].name}'.* cut off at {size} bytes. Fetch the file"):
            list(ImageFromFile(files))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [b"", b"this is no picture"], ids=["empty", "text"])
def test_what_is_no_image_is_an_error_that_names_it(files, content):
    files[2].write_bytes(content)
    it = iter(ImageFromFile(files))
    assert [len(next(it)), len(next(it))] == [1, 1]
    with pytest.raises(CorruptDataError, match=r"cannot read the image '.*2\.jpg': it.* or leave it out"):
        next(it)


def test_a_missing_file_is_named_with_a_way_out(files):
    files[3].unlink()
    with pytest.raises(FileNotFoundError, match=r"a relative path starts .* leave it out of files: '.*3\.png'"):
        list(ImageFromFile(files))


def test_constructing_opens_no_file():
    df = ImageFromFile(["nowhere.jpg"])
    assert len(df) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"files": "a.jpg"}, TypeError, r"files must be a list of paths, got 'a.jpg'"),
        ({"files": 5}, TypeError, r"files must be a list of paths, got 5"),
        ({"files": ["a.jpg", 5]}, TypeError, r"files must be a list of paths, got 5 \(int\) in it"),
        ({"files": []}, ValueError, r"files must hold at least one path, got none; does the pattern"),
        ({"channel": 4}, ValueError, r"channel must be one of 1, 3, got 4"),
        ({"resize": 0}, ValueError, r"resize must be an integer of at least 1, got 0"),
        ({"resize": (5, 0)}, ValueError, r"resize must be an integer of at least 1, got 0"),
        ({"resize": 2.5}, TypeError, r"resize must be an integer of at least 1, got 2.5"),
        ({"resize": (1, 2, 3)}, ValueError, r"resize must be an integer or \(h, w\), got \(1, 2, 3\)"),
        ({"shuffle": 1}, TypeError, r"shuffle must be True or False, got 1"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        ImageFromFile(**{"files": ["a.jpg"], **options})
