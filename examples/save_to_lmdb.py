"""Save a flow to one LMDB file, and load it again: in order, in random order, and in part.

From the command line it is `dataflow save examples/save_to_lmdb.py:make_flow digits.lmdb`, and then
`dataflow peek digits.lmdb`.
"""

import tempfile
from pathlib import Path

import numpy as np

from dataflow import DataFlow, DataFromList, LMDBSerializer, PrintData


def make_flow() -> DataFlow:
    """Return a flow of dicts; any nesting of arrays, numbers, text and bytes can be saved."""
    rng = np.random.default_rng(0)
    rows = [
        {"image": rng.integers(0, 256, (28, 28), np.uint8), "label": i % 10, "name": f"{i:04d}"} for i in range(500)
    ]
    return DataFromList(rows, shuffle=False)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "digits.lmdb")
        LMDBSerializer.save(make_flow(), path)
        print(f"{Path(path).stat().st_size:,} bytes in {path}")

        df = LMDBSerializer.load(path, shuffle=False)
        print(f"\n{len(df)} datapoints, of which the first:")
        with PrintData(df) as shown:
            next(iter(shown))

        df = LMDBSerializer.load(path)  # shuffled: in a new order in every pass
        print("\ntwo passes begin with", [next(iter(df))["name"] for _ in range(2)])
        batch = next(iter(df.select(["image", "label"]).batch(64)))
        print("a batch has", {key: component.shape for key, component in batch.items()})


if __name__ == "__main__":
    main()
