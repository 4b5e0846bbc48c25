"""Prepare the images of a training loop in other processes: the same batches as in one, and the loop only waits less.

A map shares the datapoints out to its workers, and each comes once. A runner runs a whole copy of the flow in each of
them: for training on random samples, where it does not matter that copies meet the same datapoint.
"""

import time

import numpy as np

from dataflow import BatchData, DataFlow, DataFromList, MapData, MultiProcessMapData, MultiProcessRunnerZMQ, set_seed

BATCH = 16


def prepare(dp, rng):
    """Return [image, label]; the loop stands for work in Python, of which one process can do only so much."""
    image, label = dp
    for _ in range(100):
        y, x = rng.integers(32, size=2)
        image = np.roll(image, (int(y), int(x)), axis=(0, 1))
    return [image, label]


def make_source() -> DataFlow:
    return DataFromList([[np.full((32, 32, 3), i, np.uint8), i] for i in range(256)])  # in a new order every epoch


def train(df: DataFlow) -> list[bytes]:
    """Train two epochs, in a way, and return what was seen."""
    start = time.perf_counter()
    seen = [images.tobytes() for _ in range(2) for images, _ in df]
    print(f"  {len(seen) * BATCH / (time.perf_counter() - start):,.0f} images/s")
    return seen


def main() -> None:
    print("in this process:")
    set_seed(2011)
    alone = train(BatchData(MapData(make_source(), prepare), BATCH))

    print("a map with two processes:")
    set_seed(2011)
    # strict: an epoch ends where the source ends. `with` ends the processes, and so does df.close().
    with BatchData(MultiProcessMapData(make_source(), 2, prepare, strict=True, ordered=True), BATCH) as df:
        together = train(df)
    print(f"  the same batches, bit by bit: {together == alone}")

    print("a runner with two processes, each with the whole flow:")
    with MultiProcessRunnerZMQ(BatchData(MapData(make_source(), prepare), BATCH), num_proc=2) as df:
        copies = train(df)
    print(f"  as many batches, others: {len(copies) == len(alone) and copies != alone}")


if __name__ == "__main__":
    main()
