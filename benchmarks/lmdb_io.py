"""Images to disk and back: how near is a safe file format to the bare database below it?

5,000 datapoints ``[uint8 image (100, 100, 3), label]``, 150 MB on local disk, which the operating system has in memory
when they are read. Of each image the maximum is taken, by every reader, so that views are read as well as copies.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from harness import FOLDER, Table, main

N, SHAPE = 5000, (100, 100, 3)
PIXELS = 30_000
LABEL = struct.Struct("<q")
# Our writer ends a transaction after 1 MiB, and so does the limit; tensorpack's after as many datapoints as it is told.
COMMIT, LIMIT_COMMIT = 5000, 34

VERSUS = {"raw": "of the limit", "tensorpack_pickle": "x tensorpack"}
writes = Table("lmdb write", unit="datapoints/s", versus=VERSUS, form=",.0f")
firsts = Table("lmdb first read", unit="datapoints/s", versus=VERSUS, form=",.0f")
reads = Table("lmdb sequential read", unit="datapoints/s", versus=VERSUS, form=",.0f")
randoms = Table("lmdb random read", unit="datapoints/s", versus=VERSUS, form=",.0f")


def images() -> list[list[Any]]:
    pixels = np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)
    return [[image, label] for label, image in enumerate(pixels)]


def write(name: str, save: Callable[[list[list[Any]], str], None]) -> float:
    """Time the second ``save`` of two, and keep the file for the readers.

    The first has the memory for 150 MB of cached pages to find; on a virtual machine that takes it up to three times as
    long, or not, depending on what ran before.
    """
    rows, scratch = images(), Path(os.environ[FOLDER], f"{name}.new")
    for _ in range(2):
        scratch.unlink(missing_ok=True)
        start = perf_counter()
        save(rows, str(scratch))
        seconds = perf_counter() - start
    scratch.replace(scratch.with_suffix(""))
    return N / seconds


def written(name: str) -> str:
    """Return the file of a writer; it runs first, in a process of its own, if it has not run yet."""
    path = Path(os.environ[FOLDER], name)
    if not path.exists():
        subprocess.run([sys.executable, __file__, "--contender", f"lmdb write.{name}"], check=True, capture_output=True)
    return str(path)


def read(datapoints: Iterable[Any]) -> float:
    """Look at every datapoint of a pass, and return how many a second that makes."""
    seen = total = 0
    start = perf_counter()
    for image, label in datapoints:
        seen += int(image.max())
        total += label
    seconds = perf_counter() - start
    if total != N * (N - 1) // 2 or not seen:
        raise ValueError(f"the labels add up to {total}")
    return N / seconds


def reread(datapoints: Iterable[Any]) -> float:
    """Return the speed of the second pass of two."""
    read(datapoints)
    return read(datapoints)


class Raw:
    """The bare database: views of its pages, nothing decoded, nothing checked."""

    def __init__(self, path: str, shuffle: bool = False) -> None:
        import lmdb

        self.transaction = lmdb.open(path, subdir=False, readonly=True, lock=False).begin(buffers=True)
        self.shuffle = shuffle

    def values(self) -> Iterator[Any]:
        if not self.shuffle:
            return self.transaction.cursor().iternext(keys=False, values=True)
        keys = [b"%08d" % number for number in np.random.default_rng(0).permutation(N).tolist()]
        return (self.transaction.get(key) for key in keys)

    def __iter__(self) -> Iterator[Any]:
        for value in self.values():
            yield np.ndarray(SHAPE, np.uint8, value), LABEL.unpack_from(value, PIXELS)[0]


@writes.row("limit: lmdb, the bytes of image and label")
def raw() -> float:
    import lmdb

    def save(rows: list[list[Any]], path: str) -> None:
        database = lmdb.open(path, subdir=False, map_size=1 << 30, sync=False, meminit=False)
        for start in range(0, N, LIMIT_COMMIT):
            with database.begin(write=True) as transaction:
                for number, (image, label) in enumerate(rows[start : start + LIMIT_COMMIT], start):
                    transaction.put(b"%08d" % number, b"".join((image, LABEL.pack(label))), append=True)
        database.sync(True)
        database.close()

    return write("raw", save)


@writes.row("dataflow: LMDBSerializer.save")
def dataflow() -> float:
    from dataflow import DataFromList, LMDBSerializer

    return write("dataflow", lambda rows, path: LMDBSerializer.save(DataFromList(rows, shuffle=False), path, COMMIT))


def tensorpack(serializer: str) -> Any:
    os.environ["TENSORPACK_SERIALIZE"] = serializer
    import tensorpack.dataflow

    return tensorpack.dataflow


def tensorpack_write(serializer: str) -> float:
    td = tensorpack(serializer)
    save = td.LMDBSerializer.save
    return write(
        f"tensorpack_{serializer}", lambda rows, path: save(td.DataFromList(rows, shuffle=False), path, COMMIT)
    )


@writes.row("tensorpack: LMDBSerializer.save, pickle (its default)")
def tensorpack_pickle() -> float:
    return tensorpack_write("pickle")


@writes.row("tensorpack: LMDBSerializer.save, msgpack")
def tensorpack_msgpack() -> float:
    return tensorpack_write("msgpack")


@writes.row("webdataset: TarWriter, npy and cls")
def webdataset() -> float:
    import webdataset as wds

    def save(rows: list[list[Any]], path: str) -> None:
        with open(path, "wb") as file, wds.TarWriter(file) as tar:
            for image, label in rows:
                tar.write({"__key__": f"{label:08d}", "npy": image, "cls": label})

    return write("webdataset", save)


def add_readers(table: Table, timed: Callable[[Iterable[Any]], float], shuffle: bool, verify: dict[str, str]) -> None:
    """Add what all reading tables have in common; ``verify`` are the labels of the ways to verify."""

    @table.row("limit: lmdb, views of its pages")
    def raw() -> float:
        return timed(Raw(written("raw"), shuffle))

    def ours(name: str, label: str, **options: Any) -> None:
        def contender() -> float:
            from dataflow import LMDBSerializer

            with LMDBSerializer.load(written("dataflow"), shuffle=shuffle, **options) as df:
                return timed(df)

        contender.__name__ = name
        table.row(f"dataflow: {label}")(contender)

    for how, label in verify.items():
        ours(f"dataflow_{how}", f"{label}, private writable arrays", verify=how)
        ours(f"dataflow_{how}_views", f"{label}, copy=False", verify=how, copy=False)

    def theirs(serializer: str) -> None:
        def contender() -> float:
            df = tensorpack(serializer).LMDBSerializer.load(written(f"tensorpack_{serializer}"), shuffle=shuffle)
            df.reset_state()
            return timed(df)

        contender.__name__ = f"tensorpack_{serializer}"
        table.row(f"tensorpack: {serializer}")(contender)

    theirs("pickle")
    theirs("msgpack")


add_readers(firsts, read, False, {"first": 'verify="first" (the default)', "off": 'verify="off"'})
add_readers(reads, reread, False, {"off": 'verify="off"', "first": 'verify="first"', "always": 'verify="always"'})
add_readers(randoms, reread, True, {"off": 'verify="off"', "first": 'verify="first"', "always": 'verify="always"'})


@reads.row("webdataset: tar of npy and cls")
def webdataset_tar() -> float:
    import webdataset as wds

    return reread(wds.WebDataset(written("webdataset"), shardshuffle=False).decode().to_tuple("npy", "cls"))


if __name__ == "__main__":
    main([writes, firsts, reads, randoms], packages=("lmdb", "tensorpack", "msgpack", "msgpack-numpy", "webdataset"))
