"""Files of each format, written and read: how near is each to the bare library below it, and to others?

5,000 datapoints ``[uint8 image (100, 100, 3), label]``, 150 MB on local disk. A writer ends when the file is closed and
on the disk; where it does not sync, the benchmark does. A reader opens the file, takes the maximum of each image and
the sum of the labels, and closes it. Both do so twice and the second time counts: the library is loaded then, memory is
found, and the operating system has the file.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from harness import FOLDER, Table, child, main
from lmdb_io import LABEL, LIMIT_COMMIT, PIXELS, SHAPE, N, images, read

Rows = list[list[Any]]
# Rows that libraries of columns write and read at once: 1 MB, and 4 MB with Parquet. Less and more are slower.
BLOCK, GROUP = 34, 136
# A chunk of HDF5 is what its checksums are for.
CHUNK = (4, *SHAPE)


class ByFormat(Table):
    """A table in which the "bare" of a row is that of its format, the first word of its name."""

    def others(self, key: str) -> Iterable[str]:
        bare = f"{self.name}.bare"
        return [f"{key.partition('_')[0]}_bare" if other == bare else other for other in self.versus]


VERSUS = {"bare": "of the bare library", "members_webdataset": "x webdataset"}
writes = ByFormat("formats write", unit="datapoints/s", versus=VERSUS, form=",.0f")
reads = ByFormat("formats read", unit="datapoints/s", versus=VERSUS, form=",.0f")
randoms = Table("formats random read", unit="datapoints/s", versus={"lmdb_dataflow": "x LMDB"}, form=",.0f")


def contender(name: str, label: str, file: str = "") -> Callable[[Any], Any]:
    """Add a class with ``save(rows, folder)``, ``load(folder)`` or both; ``load`` may read the ``file`` of another."""

    def add(kind: Any) -> Any:
        def timed_save() -> float:
            return writing(name, kind.save)

        def timed_load() -> float:
            return reading(written(file or name), kind.load)

        timed_save.__name__ = timed_load.__name__ = name
        if hasattr(kind, "save"):
            writes.row(label)(timed_save)
        if hasattr(kind, "load"):
            reads.row(label)(timed_load)
        return kind

    return add


def writing(name: str, save: Callable[[Rows, Path], None]) -> float:
    """Time the second ``save`` of two, and keep the files for the readers."""
    rows, folder = images(), Path(os.environ[FOLDER], name)
    scratch = folder.with_name(f"{name}.new")
    for _ in range(2):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        start = perf_counter()
        save(rows, scratch)
        sync(scratch)
        seconds = perf_counter() - start
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return N / seconds


def written(name: str) -> Path:
    """Return the folder of a writer; it runs first, in a process of its own, if it has not run yet."""
    folder = Path(os.environ[FOLDER], name)
    if not folder.exists():
        result = child(Path(__file__), str(folder.parent), f"{writes.name}.{name}")
        if "missing" in result:
            raise ModuleNotFoundError(name=result["missing"])
        if "failed" in result:
            raise RuntimeError(f"there is no file to read: {result['failed']}")
    return folder


def reading(folder: Path, load: Callable[[Path], Iterable[Any]]) -> float:
    """Time the second pass of two, from the opening of the file to its end."""
    for _ in range(2):
        start = perf_counter()
        read(load(folder))
        seconds = perf_counter() - start
    return N / seconds


def sync(folder: Path) -> None:
    """Have files on the disk, as our writers have them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb+") as file:
                os.fsync(file.fileno())


def blocks(rows: Rows, size: int = BLOCK) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield images and labels, as columns of a few rows."""
    for start in range(0, N, size):
        part, labels = zip(*rows[start : start + size], strict=True)
        yield np.stack(part), np.array(labels)


def packed(image: np.ndarray, label: int) -> bytes:
    return b"".join((image, LABEL.pack(label)))


def unpacked(data: Any) -> tuple[np.ndarray, int]:
    return np.ndarray(SHAPE, np.uint8, data), LABEL.unpack_from(data, PIXELS)[0]


def ours(name: str, label: str, suffix: str, file: str = "", **options: Any) -> None:
    """Add a row for what ``dataflow.save`` and ``load`` do, or only for a ``load`` with options."""

    class Loader:
        @staticmethod
        def load(folder: Path, shuffle: bool = False) -> Iterator[Any]:
            import dataflow

            with dataflow.load(f"{folder}/x{suffix}", shuffle=shuffle, **options) as df:
                yield from df

    class Both(Loader):
        @staticmethod
        def save(rows: Rows, folder: Path) -> None:
            import dataflow

            dataflow.save(dataflow.DataFromList(rows, shuffle=False), f"{folder}/x{suffix}")

    contender(name, label, file)(Loader if file else Both)

    def shuffled() -> float:
        return reading(written(file or name), lambda folder: Loader.load(folder, shuffle=True))

    shuffled.__name__ = name
    randoms.row(label)(shuffled)


def careful(kind: str, bare: Any) -> None:
    """Add a row for a bare library that hands out views of unchecked bytes, doing what a safe reader does."""

    class Loader:
        @staticmethod
        def load(folder: Path) -> Iterator[Any]:
            import google_crc32c

            for image, label in bare.load(folder):
                google_crc32c.value(image)
                yield image.copy(), label

    contender(f"{kind}_careful", "the same, and of each image a crc32c and a private copy", f"{kind}_bare")(Loader)


def tensorpack(without_tensorflow: bool = True) -> Any:
    """Return tensorpack, which would load tensorflow if it is there."""
    if without_tensorflow:
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    import tensorpack.dataflow

    return tensorpack.dataflow


def tensorpack_save(kind: str, rows: Rows, path: str, *options: Any) -> None:
    td = tensorpack(kind != "TFRecordSerializer")
    getattr(td, kind).save(td.DataFromList(rows, shuffle=False), path, *options)


def tensorpack_load(kind: str, path: str, *options: Any, **more: Any) -> Any:
    df = getattr(tensorpack(kind != "TFRecordSerializer"), kind).load(path, *options, **more)
    df.reset_state()
    return df


# LMDB


@contender("lmdb_bare", "**LMDB**: lmdb, the bytes of image and label, no checksums")
class LMDBBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import lmdb

        path = str(folder / "x.lmdb")
        with lmdb.open(path, subdir=False, map_size=1 << 30, sync=False, meminit=False) as database:
            for start in range(0, N, LIMIT_COMMIT):
                with database.begin(write=True) as transaction:
                    for image, label in rows[start : start + LIMIT_COMMIT]:
                        transaction.put(b"%08d" % label, packed(image, label), append=True)

    @staticmethod
    def load(folder: Path, buffers: bool = True) -> Iterator[Any]:
        import lmdb

        with (
            lmdb.open(str(folder / "x.lmdb"), subdir=False, readonly=True, lock=False) as database,
            database.begin(buffers=buffers) as transaction,
        ):
            yield from map(unpacked, transaction.cursor().iternext(keys=False, values=True))


@contender("lmdb_bytes", "the same, as bytes and not as views, as lmdb does if not told", "lmdb_bare")
class LMDBBytes:
    load = partial(LMDBBare.load, buffers=False)


careful("lmdb", LMDBBare)
ours("lmdb_dataflow", "dataflow: `.lmdb`", ".lmdb")
ours("lmdb_off", 'dataflow: `.lmdb`, `verify="off"`, as in later passes', ".lmdb", file="lmdb_dataflow", verify="off")


@contender("lmdb_tensorpack", "tensorpack: LMDBSerializer")
class LMDBTensorpack:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        tensorpack_save("LMDBSerializer", rows, f"{folder}/x.lmdb")

    @staticmethod
    def load(folder: Path) -> Any:
        return tensorpack_load("LMDBSerializer", f"{folder}/x.lmdb", shuffle=False)


# TFRecord

LENGTH, CRC = struct.Struct("<Q"), struct.Struct("<I")


def masked(data: bytes) -> bytes:
    import google_crc32c

    crc = google_crc32c.value(data)
    return CRC.pack(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@contender("tfrecord_bare", "**TFRecord**: struct and google-crc32c, the bytes of image and label")
class TFRecordBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        with open(folder / "x.tfrecord", "wb") as file:
            for image, label in rows:
                data = packed(image, label)
                length = LENGTH.pack(len(data))
                file.writelines((length, masked(length), data, masked(data)))

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        with open(folder / "x.tfrecord", "rb") as file:
            while head := file.read(LENGTH.size + CRC.size):
                data = file.read(LENGTH.unpack_from(head)[0])
                if masked(head[: LENGTH.size]) != head[LENGTH.size :] or masked(data) != file.read(CRC.size):
                    raise ValueError("damaged")
                yield unpacked(data)


ours("tfrecord_dataflow", "dataflow: `.tfrecord`", ".tfrecord")


@contender("tfrecord_tensorpack", "tensorpack: TFRecordSerializer")
class TFRecordTensorpack:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import tensorflow  # noqa: F401  # tensorpack would not say that it is missing

        tensorpack_save("TFRecordSerializer", rows, f"{folder}/x.tfrecord")

    @staticmethod
    def load(folder: Path) -> Any:
        return tensorpack_load("TFRecordSerializer", f"{folder}/x.tfrecord", size=N)


# HDF5


def hdf5(name: str, label: str, **options: Any) -> None:
    """Add h5py as it is used by hand: a dataset of images and one of labels, a block of rows at a time."""

    class HDF5:
        @staticmethod
        def save(rows: Rows, folder: Path) -> None:
            import h5py

            with h5py.File(folder / "x.h5", "w", libver="latest") as file:
                pixels = file.create_dataset("images", (N, *SHAPE), np.uint8, chunks=CHUNK, **options)
                labels = file.create_dataset("labels", (N,), np.int64, chunks=(N,), **options)
                for number, (part, names) in enumerate(blocks(rows)):
                    here = slice(number * BLOCK, number * BLOCK + len(names))
                    pixels[here], labels[here] = part, names

        @staticmethod
        def load(folder: Path) -> Iterator[Any]:
            import h5py

            with h5py.File(folder / "x.h5", "r") as file:
                pixels, labels = file["images"], file["labels"]
                for start in range(0, N, BLOCK):
                    here = slice(start, start + BLOCK)
                    yield from zip(pixels[here], labels[here].tolist(), strict=True)

    contender(name, label)(HDF5)


hdf5("hdf5_bare", "**HDF5**: h5py, chunks of 4 images, fletcher32", fletcher32=True)
hdf5("hdf5_unchecked", "h5py without checksums")
ours("hdf5_dataflow", "dataflow: `.h5`", ".h5")


@contender("hdf5_tensorpack", "tensorpack: HDF5Serializer (all in memory)")
class HDF5Tensorpack:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        tensorpack_save("HDF5Serializer", rows, f"{folder}/x.h5", ["images", "labels"])

    @staticmethod
    def load(folder: Path) -> Any:
        return tensorpack_load("HDF5Serializer", f"{folder}/x.h5", ["images", "labels"], shuffle=False)


# npz


@contender("npz_bare", "**npz**: numpy.savez and load of two arrays (all in memory)")
class NpzBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        pixels, labels = zip(*rows, strict=True)
        np.savez(folder / "x.npz", images=np.stack(pixels), labels=np.array(labels))

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        with np.load(folder / "x.npz") as file:
            yield from zip(file["images"], file["labels"].tolist(), strict=True)


ours("npz_dataflow", "dataflow: `.npz`", ".npz")


@contender(
    "npz_tensorpack", "tensorpack: NumpySerializer, given the `np.object` that numpy has no more (all in memory)"
)
class NpzTensorpack:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        np.object = object  # type: ignore[attr-defined]
        tensorpack_save("NumpySerializer", rows, f"{folder}/x.npz")

    @staticmethod
    def load(folder: Path) -> Any:
        return tensorpack_load("NumpySerializer", f"{folder}/x.npz", shuffle=False)


# tar


def tar_of(files: Iterable[tuple[str, bytes]], path: Path) -> None:
    """Write files to an archive, with tarfile."""
    import tarfile

    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))


def tar_members(path: Path) -> Iterator[bytes]:
    """Read the files of an archive, with tarfile."""
    import tarfile

    with tarfile.open(path) as tar:
        for member in tar:
            yield tar.extractfile(member).read()  # type: ignore[union-attr]


@contender("tar_bare", "**tar**, a member each: tarfile, the bytes of image and label, no checksums")
class TarBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        tar_of(((f"{label:08d}.df", packed(image, label)) for image, label in rows), folder / "x.tar")

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        yield from map(unpacked, tar_members(folder / "x.tar"))


ours("tar_dataflow", "dataflow: `.tar`, lists", ".tar")


@contender("members_bare", "**tar**, npy and cls: tarfile and numpy.save, no checksums")
class MembersBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        def files() -> Iterator[tuple[str, bytes]]:
            for image, label in rows:
                np.save(file := BytesIO(), image)
                yield f"{label:08d}.npy", file.getvalue()
                yield f"{label:08d}.cls", b"%d" % label

        tar_of(files(), folder / "x.tar")

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        members = tar_members(folder / "x.tar")
        for image, label in zip(members, members, strict=True):
            yield np.load(BytesIO(image)), int(label)


@contender("members_dataflow", 'dataflow: `.tar`, dicts `{"npy": image, "cls": label}`')
class MembersDataflow:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import dataflow

        df = dataflow.DataFromList([{"npy": image, "cls": label} for image, label in rows], shuffle=False)
        dataflow.save(df, folder / "x.tar")

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        import dataflow

        with dataflow.load(folder / "x.tar") as df:
            for dp in df:
                yield dp["npy"], dp["cls"]


@contender("members_webdataset", "webdataset: TarWriter and WebDataset, npy and cls")
class MembersWebDataset:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import webdataset as wds

        with open(folder / "x.tar", "wb") as file, wds.TarWriter(file) as tar:
            for image, label in rows:
                tar.write({"__key__": f"{label:08d}", "npy": image, "cls": label})

    @staticmethod
    def load(folder: Path) -> Any:
        import webdataset as wds

        return wds.WebDataset(f"{folder}/x.tar", shardshuffle=False).decode().to_tuple("npy", "cls")


# Columns


@contender("parquet_bare", "**Parquet**: pyarrow, binary of fixed size, no checksums")
class ParquetBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kind = pa.binary(PIXELS)
        schema = pa.schema({"image": kind, "label": pa.int64()})
        plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        with pq.ParquetWriter(folder / "x.parquet", schema, **plain) as writer:
            for part, labels in blocks(rows, GROUP):
                column = pa.FixedSizeBinaryArray.from_buffers(kind, len(labels), [None, pa.py_buffer(part)])
                writer.write_batch(pa.record_batch([column, pa.array(labels)], schema=schema))

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with pq.ParquetFile(folder / "x.parquet", pre_buffer=False) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number, use_threads=False)
                pixels = np.frombuffer(group.column(0).chunk(0).buffers()[1], np.uint8)
                yield from zip(pixels.reshape(-1, *SHAPE), group.column(1).to_pylist(), strict=True)


careful("parquet", ParquetBare)
ours("parquet_dataflow", "dataflow: `.parquet`", ".parquet")
ours(
    "parquet_off",
    'dataflow: `.parquet`, `verify="off"`, as in later passes',
    ".parquet",
    file="parquet_dataflow",
    verify="off",
)


@contender("arrow_bare", "**Arrow**: pyarrow, tensors of one shape, views of the file, no checksums")
class ArrowBare:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        import pyarrow as pa

        schema = pa.schema({"image": pa.fixed_shape_tensor(pa.uint8(), SHAPE), "label": pa.int64()})
        with pa.OSFile(f"{folder}/x.arrow", "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for part, labels in blocks(rows):
                column = pa.FixedShapeTensorArray.from_numpy_ndarray(part)
                writer.write_batch(pa.record_batch([column, pa.array(labels)], schema=schema))

    @staticmethod
    def load(folder: Path, mapped: bool = True) -> Iterator[Any]:
        import pyarrow as pa

        with (pa.memory_map if mapped else pa.OSFile)(f"{folder}/x.arrow") as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                yield from zip(batch.column(0).to_numpy_ndarray(), batch.column(1).to_pylist(), strict=True)


@contender("arrow_read", "the same, read and not mapped, which survives a file that is cut meanwhile", "arrow_bare")
class ArrowRead:
    load = partial(ArrowBare.load, mapped=False)


careful("arrow", ArrowBare)
ours("arrow_dataflow", "dataflow: `.arrow`", ".arrow")
ours(
    "arrow_off", 'dataflow: `.arrow`, `verify="off"`, as in later passes', ".arrow", file="arrow_dataflow", verify="off"
)


# Formats of others


@contender("mds_streaming", "**MDS**: MosaicML streaming, MDSWriter and LocalDataset")
class MDSStreaming:
    @staticmethod
    def save(rows: Rows, folder: Path) -> None:
        from streaming import MDSWriter

        columns = {"image": f"ndarray:uint8:{','.join(map(str, SHAPE))}", "label": "int"}
        with MDSWriter(out=f"{folder}/x", columns=columns) as writer:
            for image, label in rows:
                writer.write({"image": image, "label": label})

    @staticmethod
    def load(folder: Path) -> Iterator[Any]:
        from streaming import LocalDataset

        dataset = LocalDataset(f"{folder}/x")
        for number in range(len(dataset)):
            sample = dataset[number]
            yield sample["image"], sample["label"]


PACKAGES = ("lmdb", "h5py", "pyarrow", "tensorpack", "tensorflow-cpu", "webdataset", "mosaicml-streaming")

if __name__ == "__main__":
    main([writes, reads, randoms], packages=PACKAGES)
