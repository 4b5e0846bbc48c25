"""Photographs for the demo: random parts of eight that ship inside the wheels of scikit-learn and scikit-image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..utils.deps import need
from ..utils.progress import progress

# Package -> colour photographs of about 500 x 400 pixels and more. Those not named here would have to be downloaded.
ORIGINALS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/astronaut.png",
        "data/coffee.png",
        "data/hubble_deep_field.jpg",
        "data/motorcycle_left.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
}
WIDTH, HEIGHT, QUALITY = 500, 400, 90
SMALLEST_PART = 0.6  # of the width and height of the largest part that fits
SEED = 2_011


def make_photographs(folder: Path, count: int) -> int:
    """Make the files ``folder/<photograph>/<number>.jpg`` that are not there yet, and return how many these were.

    The content of a file depends on its number alone.
    """
    names = [Path(path).stem for paths in ORIGINALS.values() for path in paths]
    files = [folder / names[number % len(names)] / f"{number:05d}.jpg" for number in range(count)]
    missing = [(number, file) for number, file in enumerate(files) if not file.exists()]
    if missing:
        originals = _originals()
        for number, file in progress(len(missing), "write photographs", " files", rows=missing):
            jpeg = _part(originals[file.parent.name], np.random.default_rng([SEED, number]))
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".part")
            unfinished.write_bytes(jpeg)
            unfinished.replace(file)  # an interrupted run leaves no half a file
    return len(missing)


def _originals() -> dict[str, Any]:
    """Read the photographs: name -> BGR image."""
    cv2 = need("cv2", by="dataflow demo")
    originals = {}
    for package, paths in ORIGINALS.items():
        root = Path(need(package, by="dataflow demo", install="'dataflow-toolkit[demo]'").__file__).parent
        for path in paths:
            originals[Path(path).stem] = cv2.imdecode(np.fromfile(root / path, np.uint8), cv2.IMREAD_COLOR)
    return originals


def _part(image: Any, rng: np.random.Generator) -> bytes:
    """Cut a part of random size out of an image at a random place, scale it, and return it as a JPEG file."""
    cv2 = need("cv2", by="dataflow demo")
    rows, columns = image.shape[:2]
    scale = rng.uniform(SMALLEST_PART, 1) * min(columns / WIDTH, rows / HEIGHT)
    width, height = int(WIDTH * scale), int(HEIGHT * scale)
    x, y = rng.integers(columns - width + 1), rng.integers(rows - height + 1)
    part = cv2.resize(image[y : y + height, x : x + width], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return bytes(jpeg)
