"""What ``dataflow demo`` runs and then prints: from ``BATCH`` on, its output is this file."""

# mypy: disable-error-code="no-any-return"
# (OpenCV comes without types here.)

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..base import DataFlow
from ..parallel import MultiThreadMapData
from ..serializers import LMDBSerializer
from ..sources import DataFromList
from ..utils.deps import need

cv2 = need("cv2", by="dataflow demo")

BATCH = 64


def jpeg_files(folder: str) -> DataFlow:
    """Return a flow of [content of a file, label]; the label is the number of the folder that the file is in."""
    files = sorted(Path(folder).glob("*/*.jpg"))
    folders = sorted({file.parent for file in files})
    samples = [[file, folders.index(file.parent)] for file in files]
    return DataFromList(samples, shuffle=False).map_component(Path.read_bytes)


def decode(jpeg: bytes) -> np.ndarray:
    """Return an array of shape (height, width, 3), in RGB order."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def random_resized_crop(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut out 8 to 100 % of the area, 3:4 to 4:3 in shape, and scale it to 224 x 224."""
    height, width = image.shape[:2]
    area = rng.uniform(0.08, 1) * width * height
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    w, h = min(width, round(math.sqrt(area * ratio))), min(height, round(math.sqrt(area / ratio)))
    x, y = rng.integers(width - w + 1), rng.integers(height - h + 1)
    return cv2.resize(image[y : y + h, x : x + w], (224, 224))


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror one image in two, at random."""
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def prepare(dp: list[Any], rng: np.random.Generator) -> list[Any]:
    """Return [image to train with, label]."""
    jpeg, label = dp
    return [random_flip(random_resized_crop(decode(jpeg), rng), rng), label]


def batches(file: str, num_thread: int) -> DataFlow:
    """Return a flow of batches: [images of shape (BATCH, 224, 224, 3), labels of shape (BATCH,)]."""
    df: DataFlow = LMDBSerializer.load(file, shuffle=True)
    # Threads, as OpenCV works outside of Python's lock; a function written in Python wants MultiProcessMapData.
    df = MultiThreadMapData(df, num_thread, prepare, strict=True, ordered=True)
    return df.batch(BATCH)
