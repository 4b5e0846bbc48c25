"""Turn real photographs into training batches, and time every step.

2,048 JPEG files are made, saved to one LMDB file, loaded in random order, decoded, cropped, flipped and put into
batches, in one thread and then in one for each core. That takes less than a minute on two cores, and at the end
stands the Python code that did it.
"""

from __future__ import annotations

import argparse
import inspect
import os
import time
from pathlib import Path
from typing import Any

from ..base import DataFlow
from ..serializers import LMDBSerializer
from ..utils.progress import progress
from . import recipe
from .options import at_least
from .photos import make_photographs

EXAMPLES = """\
examples:
  dataflow demo
  dataflow demo --dir /tmp/photos --images 500
"""

# The flows of `one_by_one`, from the source on. Each is timed together with those before it.
STEPS = ("load in random order", "+ decode", "+ random crop, 224 x 224", "+ random flip", "+ batches of 64")
THREADS = max(2, os.cpu_count() or 1)

# What recipe.py imports, by public names; then its functions, and how they are used.
SCRIPT = """\
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dataflow import DataFlow, DataFromList, LMDBSerializer, MultiThreadMapData, TestDataSpeed

{recipe}

Path({file!r}).unlink(missing_ok=True)
LMDBSerializer.save(jpeg_files({photos!r}), {file!r})
df = batches({file!r}, num_thread={threads})
TestDataSpeed(df, size=len(df)).start()
df.close()
"""

WIDTH = 28  # of the first column


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--dir", type=Path, default=Path("demo-data"), help="folder for the files (default: %(default)s), used again"
    )
    parser.add_argument(
        "--images",
        metavar="N",
        type=at_least(recipe.BATCH),
        default=2048,
        help="how many to make (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> None:
    """Make the photographs, save them, and time each step on the way to batches."""
    photos, file = str(args.dir / "photos"), str(args.dir / "photos.lmdb")
    begin = time.perf_counter()
    made = make_photographs(Path(photos), args.images)
    seconds = time.perf_counter() - begin
    jpegs = recipe.jpeg_files(photos)
    print(f"{len(jpegs):,} photographs in {photos}\n\n{'':{WIDTH}} images/s")
    if made:
        print_rate("make JPEG files", made / seconds)
    print_rate("save them to one LMDB file", len(jpegs) / time_save(jpegs, file))
    with one_by_one(file) as batches:
        for step, df in zip(STEPS, chain_of(batches), strict=True):
            images = len(df) * (recipe.BATCH if df is batches else 1)
            alone = images / time_pass(df, step)
            print_rate(step, alone)
    with recipe.batches(file, THREADS) as df:
        step = f"all of it in {THREADS} threads"
        together = images / time_pass(df, step)
        print_rate(step, together)
    print(
        f"\nOverall: {together:,.0f} images/s from the file to batches in {THREADS} threads, {alone:,.0f} in one.\n"
        f"{file} has {Path(file).stat().st_size / 1e6:,.1f} MB. "
        f"All this took {time.perf_counter() - begin:.0f} s.\n\n"
        f"These lines did it, and run as they stand:\n\n{script(photos, file)}"
    )


def time_save(df: DataFlow, file: str) -> float:
    """Return the seconds that it takes to write the file anew."""
    Path(file).unlink(missing_ok=True)
    start = time.perf_counter()
    LMDBSerializer.save(df, file)
    return time.perf_counter() - start


def one_by_one(file: str) -> DataFlow:
    """Return what recipe.batches makes, in this thread, with a flow for each step."""
    df: DataFlow = LMDBSerializer.load(file, shuffle=True)
    for step in (recipe.decode, recipe.random_resized_crop, recipe.random_flip):
        df = df.map_component(step)
    return df.batch(recipe.BATCH)


def chain_of(df: Any) -> list[DataFlow]:
    """Return the flows that ``df`` is made of, the source first."""
    return [*(chain_of(df.ds) if hasattr(df, "ds") else ()), df]


def time_pass(df: DataFlow, what: str) -> float:
    """Return the seconds that one pass takes."""
    start = time.perf_counter()
    for _ in progress(len(df), what, rows=df):
        pass
    return time.perf_counter() - start


def print_rate(what: str, images_per_second: float) -> None:
    """Print one row of the table."""
    print(f"{what:{WIDTH}} {images_per_second:8,.0f}", flush=True)


def script(photos: str, file: str) -> str:
    """Return the Python code of the demo, ready to be pasted."""
    source = inspect.getsource(recipe)
    return SCRIPT.format(recipe=source[source.index("BATCH = ") :].strip(), photos=photos, file=file, threads=THREADS)
