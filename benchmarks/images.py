"""Photographs to training batches on two cores: what is left of the speed of decoding?

JPEG files of 500 x 400 pixels and 80 kB -> decode -> random resized crop to 224 x 224 -> random flip -> batches of 64.
Two threads or two processes work, and one more thread receives the batches. The bare loops only decode and crop. All
use the same functions, which are those of ``dataflow demo``, unless their label says otherwise.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from harness import FOLDER, Measured, Table, child, main

from dataflow import (
    BatchData,
    DataFlow,
    DataFromList,
    LMDBSerializer,
    MapData,
    MultiProcessMapAndBatchData,
    MultiProcessMapData,
    MultiProcessRunnerZMQ,
    MultiThreadMapData,
    RepeatedData,
)
from dataflow.cli.photos import make_photographs
from dataflow.cli.recipe import decode, prepare, random_flip, random_resized_crop

FILES, QUALITY = 1024, 98
BATCH, WORKERS = 64, 2
WARM_UP_SECONDS, SECONDS = 1.0, 4.0
AHEAD = 3  # batches that each worker is ahead, if its library lets us say so
# Settings that are read when a process starts. A worker keeps the memory that an image took, instead of giving it back
# and asking for it again; tensorpack's has a faster serializer than its default.
TUNED = {
    "MALLOC_MMAP_THRESHOLD_": f"{32 << 20}",
    "MALLOC_TRIM_THRESHOLD_": f"{512 << 20}",
    "MALLOC_TOP_PAD_": f"{16 << 20}",
    "TENSORPACK_ONCE_SERIALIZE": "msgpack",
}

images = Table(
    "images",
    unit="images/s",
    form=",.0f",
    versus={
        "two_processes": "of two bare loops",
        "two_threads_tuned": "of the limit",
        "tensorpack_threads": "x tensorpack's threads",
    },
)


# What is measured, each written once for all contenders of a run.


def made(name: str, write: Callable[[Path], None]) -> Path:
    """Return the file or folder of this name; ``write`` makes it if it is not there yet."""
    path = Path(os.environ[FOLDER], name)
    if not path.exists():
        unfinished = path.with_name(f"unfinished-{name}")
        write(unfinished)
        unfinished.replace(path)
    return path


def samples() -> list[tuple[Path, int]]:
    """Return files and their labels."""
    folder = made("photographs", write_photographs)
    return [(file, label % 8) for label, file in enumerate(sorted(folder.iterdir()))]


def write_photographs(folder: Path) -> None:
    """Write the photographs of the demo at a quality that makes them as large as those of ImageNet are."""
    folder.mkdir(exist_ok=True)
    demo = folder.with_name("demo")
    make_photographs(demo, FILES)
    for file in demo.glob("*/*.jpg"):
        cv2.imwrite(str(folder / file.name), cv2.imread(str(file)), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def rows() -> list[list[Any]]:
    return [[file.read_bytes(), label] for file, label in samples()]


def write_lmdb(path: Path) -> None:
    LMDBSerializer.save(DataFromList(rows(), shuffle=False), str(path))


def write_tensorpack(path: Path) -> None:
    td = tensorpack()
    td.LMDBSerializer.save(td.DataFromList(rows(), shuffle=False), str(path))


def write_tars(folder: Path) -> None:
    """Write a tar for each worker."""
    import webdataset

    folder.mkdir(exist_ok=True)
    for worker in range(WORKERS):
        with webdataset.TarWriter(str(folder / f"{worker}.tar")) as tar:
            for number, (jpeg, label) in enumerate(rows()[worker::WORKERS]):
                tar.write({"__key__": f"{number:08d}", "jpg": jpeg, "cls": label})


def write_tfrecord(path: Path) -> None:
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for jpeg, label in rows():
            feature = {
                "jpeg": tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


# How it is measured.


def speed(batches: Iterator[Any]) -> float:
    """Return the images a second, once it runs."""
    receive(batches, WARM_UP_SECONDS)
    start = perf_counter()
    return receive(batches, SECONDS) / (perf_counter() - start)


def receive(batches: Iterator[Any], seconds: float) -> int:
    received, stop = 0, perf_counter() + seconds
    for images, labels in batches:
        if images.shape != (BATCH, 224, 224, 3) or "uint8" not in str(images.dtype) or labels.shape != (BATCH,):
            raise ValueError(f"a batch is {images.dtype} {images.shape} and {labels.shape}")
        received += BATCH
        if perf_counter() > stop:
            break
    return received


# The functions, for those whose libraries do not hand out a generator.
RNG = np.random.default_rng()


def prepare_row(row: Sequence[Any]) -> list[Any]:
    return prepare(list(row), RNG)


def prepare_file(sample: tuple[Path, int]) -> list[Any]:
    file, label = sample
    return prepare([file.read_bytes(), label], RNG)


def stacked(rows: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    return [np.stack(column) for column in zip(*rows, strict=True)]


def decode_and_crop(jpegs: list[bytes], seconds: float) -> float:
    """Return how many images a second one core decodes and crops."""
    rng = np.random.default_rng()
    done, start = 0, perf_counter()
    while (passed := perf_counter() - start) < seconds:
        random_resized_crop(decode(jpegs[done % len(jpegs)]), rng)
        done += 1
    return done / passed


def bare(pool: Any) -> float:
    """Return how many images a second two bare loops decode and crop."""
    jpegs = [jpeg for jpeg, _ in rows()]
    with pool:
        for seconds in (WARM_UP_SECONDS, SECONDS):
            loops = [pool.submit(decode_and_crop, jpegs[worker::WORKERS], seconds) for worker in range(WORKERS)]
            total = sum(loop.result() for loop in loops)
    return total


@images.row("two bare loops that decode and crop, threads")
def two_threads() -> float:
    return bare(ThreadPoolExecutor(WORKERS))


@images.row("two bare loops that decode and crop, processes")
def two_processes() -> float:
    return bare(ProcessPoolExecutor(WORKERS, get_context("fork")))


def tuned(contender: Callable[[], Measured]) -> Measured:
    """Run a contender with settings by environment."""
    os.environ.update(TUNED)
    return child(Path(__file__), os.environ[FOLDER], f"images.{contender.__name__}")


@images.row("limit: two bare loops that decode and crop, threads; malloc tuned")
def two_threads_tuned() -> Measured:
    return tuned(two_threads)


def photographs() -> DataFlow:
    """Return an endless flow of [JPEG, label] from LMDB."""
    return RepeatedData(LMDBSerializer.load(str(made("photographs.lmdb", write_lmdb)), shuffle=False), -1)


def threads_of(func: Callable[..., Any]) -> float:
    return speed(iter(BatchData(MultiThreadMapData(photographs(), WORKERS, func), BATCH)))


def replicas_of(func: Callable[..., Any]) -> float:
    return speed(iter(MultiProcessRunnerZMQ(BatchData(MapData(photographs(), func), BATCH), WORKERS, hwm=AHEAD)))


@images.row("dataflow: MultiThreadMapData, BatchData")
def threads() -> float:
    return threads_of(prepare)


@images.row("dataflow: MultiProcessRunnerZMQ of BatchData of MapData")
def replicas() -> float:
    return replicas_of(prepare)


@images.row("dataflow: MultiProcessMapData, BatchData")
def process_map() -> float:
    return speed(iter(BatchData(MultiProcessMapData(photographs(), WORKERS, prepare), BATCH)))


@images.row("dataflow: MultiProcessMapAndBatchData")
def map_and_batch() -> float:
    return speed(iter(MultiProcessMapAndBatchData(photographs(), WORKERS, prepare, BATCH)))


def prepare_simplejpeg(dp: list[Any], rng: np.random.Generator) -> list[Any]:
    jpeg, label = dp
    image = simplejpeg().decode_jpeg(jpeg, "RGB", fastdct=True, fastupsample=True)
    return [random_flip(random_resized_crop(image, rng), rng), label]


def simplejpeg() -> Any:
    import simplejpeg

    return simplejpeg


@images.row("dataflow: MultiThreadMapData, BatchData; simplejpeg decodes")
def threads_simplejpeg() -> float:
    simplejpeg()
    return threads_of(prepare_simplejpeg)


@images.row("dataflow: MultiProcessRunnerZMQ of BatchData of MapData; simplejpeg decodes")
def replicas_simplejpeg() -> float:
    simplejpeg()
    return replicas_of(prepare_simplejpeg)


def tensorpack() -> Any:
    """Return tensorpack, without the tensorflow that it would load if it is there."""
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    import tensorpack.dataflow

    return tensorpack.dataflow


def tensorpack_photographs() -> Any:
    td = tensorpack()
    path = made("tensorpack.lmdb", write_tensorpack)
    return td.RepeatedData(td.LMDBSerializer.load(str(path), shuffle=False), -1)


def reset(df: Any) -> Iterator[Any]:
    df.reset_state()
    return iter(df)


@images.row("tensorpack: MultiThreadMapData, BatchData")
def tensorpack_threads() -> float:
    td = tensorpack()
    return speed(reset(td.BatchData(td.MultiThreadMapData(tensorpack_photographs(), WORKERS, prepare_row), BATCH)))


@images.row("tensorpack: MultiProcessRunnerZMQ of BatchData of MapData")
def tensorpack_replicas() -> float:
    td = tensorpack()
    batches = td.BatchData(td.MapData(tensorpack_photographs(), prepare_row), BATCH)
    return speed(reset(td.MultiProcessRunnerZMQ(batches, WORKERS, hwm=AHEAD)))


@images.row("tensorpack: MultiProcessMapDataZMQ, BatchData")
def tensorpack_process_map() -> float:
    td = tensorpack()
    return speed(reset(td.BatchData(td.MultiProcessMapDataZMQ(tensorpack_photographs(), WORKERS, prepare_row), BATCH)))


@images.row("tensorpack: MultiProcessMapAndBatchDataZMQ")
def tensorpack_map_and_batch() -> float:
    td = tensorpack()
    flow = tensorpack_photographs()
    buffer = 10 * BATCH  # what it says is the default
    return speed(reset(td.MultiProcessMapAndBatchDataZMQ(flow, WORKERS, prepare_row, BATCH, buffer)))


@images.row("tensorpack: MultiProcessRunnerZMQ of BatchData of MapData; malloc and msgpack tuned")
def tensorpack_replicas_tuned() -> Measured:
    return tuned(tensorpack_replicas)


@images.row("tensorpack: MultiProcessMapDataZMQ, BatchData; malloc and msgpack tuned")
def tensorpack_process_map_tuned() -> Measured:
    return tuned(tensorpack_process_map)


@images.row("tensorpack: MultiProcessMapAndBatchDataZMQ; malloc and msgpack tuned")
def tensorpack_map_and_batch_tuned() -> Measured:
    return tuned(tensorpack_map_and_batch)


def torch_of(func: Callable[[tuple[Path, int]], list[Any]]) -> float:
    from torch.utils.data import DataLoader, IterableDataset, get_worker_info

    files = samples()

    class Photographs(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[Any]:
            return map(func, cycle(files[get_worker_info().id :: WORKERS]))

    return speed(iter(DataLoader(Photographs(), BATCH, num_workers=WORKERS)))


@images.row("torch: DataLoader of files")
def torch() -> float:
    return torch_of(prepare_file)


@images.row("torch: DataLoader of files; malloc tuned")
def torch_tuned() -> Measured:
    return tuned(torch)


@images.row("torch: DataLoader of files; PIL decodes")
def torch_pil() -> float:
    from PIL import Image

    def prepare_pil(sample: tuple[Path, int]) -> list[Any]:
        file, label = sample
        image = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))
        return [random_flip(random_resized_crop(image, RNG), RNG), label]

    return torch_of(prepare_pil)


def grain_files() -> Any:
    import grain

    return grain.MapDataset.source(samples()).repeat().map(prepare_file)


@images.row("grain: threads, files")
def grain_threads() -> float:
    import grain

    reading = grain.ReadOptions(num_threads=WORKERS, prefetch_buffer_size=4 * BATCH)
    return speed(iter(grain_files().to_iter_dataset(reading).batch(BATCH)))


@images.row("grain: mp_prefetch, files")
def grain_processes() -> float:
    import grain

    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=BATCH)
    processes = grain.MultiprocessingOptions(num_workers=WORKERS, per_worker_buffer_size=AHEAD)
    return speed(iter(grain_files().to_iter_dataset(reading).batch(BATCH).mp_prefetch(processes)))


@images.row("webdataset: WebLoader of tar files")
def webdataset() -> float:
    import webdataset as wds

    tars = [str(path) for path in sorted(made("tars", write_tars).iterdir())]
    dataset = wds.WebDataset(tars, shardshuffle=False).to_tuple("jpg", "cls").map(prepare_tar).repeat().batched(BATCH)
    return speed(iter(wds.WebLoader(dataset, batch_size=None, num_workers=WORKERS)))


def prepare_tar(sample: tuple[bytes, bytes]) -> list[Any]:
    jpeg, label = sample
    return prepare([jpeg, int(label)], RNG)


@images.row("SPDL: pipeline of threads, files")
def spdl() -> float:
    from spdl.pipeline import PipelineBuilder

    builder = PipelineBuilder().add_source(cycle(samples())).pipe(prepare_file, concurrency=WORKERS)
    pipeline = builder.aggregate(BATCH).pipe(stacked).add_sink(AHEAD).build(num_threads=WORKERS)
    with pipeline.auto_stop():
        return speed(iter(pipeline))


@images.row("tf.data: TFRecord; decodes the crop only, and resizes it with TensorFlow")
def tensorflow() -> float:
    import tensorflow as tf

    tf.config.threading.set_inter_op_parallelism_threads(WORKERS)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    features = {"jpeg": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def crop(record: Any) -> Any:
        row = tf.io.parse_single_example(record, features)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(row["jpeg"]),
            tf.zeros([1, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.decode_and_crop_jpeg(row["jpeg"], tf.concat([begin[:2], size[:2]], 0), channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, (224, 224)))
        return tf.cast(image, tf.uint8), row["label"]

    options = tf.data.Options()
    options.threading.private_threadpool_size = WORKERS
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = False
    dataset = tf.data.TFRecordDataset(str(made("photographs.tfrecord", write_tfrecord))).repeat()
    dataset = dataset.map(crop, num_parallel_calls=WORKERS).batch(BATCH, drop_remainder=True).prefetch(AHEAD)
    return speed(dataset.with_options(options).as_numpy_iterator())


if __name__ == "__main__":
    packages = ("opencv-python-headless", "simplejpeg", "tensorpack", "torch", "pillow", "grain", "webdataset", "spdl")
    main([images], packages=(*packages, "tensorflow-cpu"))
