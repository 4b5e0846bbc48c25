"""Train on a folder of images, stop in the middle of an epoch, and go on as if nothing had happened.

The images are made up: noise with a touch of colour, to be told apart by a linear model in numpy. What matters is where
the flow stands in the loop, and that a checkpoint holds its position beside the weights.
"""

import json
import tempfile
from pathlib import Path

import cv2
import numpy as np

from dataflow import BatchData, DataFlow, DataFromList, MapDataComponent, set_seed

COLOURS = ["blue", "green", "red"]
EPOCHS, BATCH = 3, 16


def make_images(folder: Path) -> None:
    """Write ``folder/<colour>/<number>.png``, as your images may lie."""
    rng = np.random.default_rng(0)
    for number in range(240):
        image = rng.integers(0, 200, (40, 48, 3), dtype=np.uint8)
        image[..., number % 3] += 4
        file = folder / COLOURS[number % 3] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)


def read(file):
    return cv2.imread(file, cv2.IMREAD_COLOR)


def random_crop(image, rng):  # a function with a parameter `rng` gets a generator for its very image
    y, x = rng.integers(40 - 32 + 1), rng.integers(48 - 32 + 1)
    return image[y : y + 32, x : x + 32]


def make_flow(folder: Path) -> DataFlow:
    """Return a flow of [images of shape (BATCH, 32, 32, 3), labels of shape (BATCH,)]."""
    files = sorted(folder.glob("*/*.png"))
    samples = [[str(file), COLOURS.index(file.parent.name)] for file in files]
    df = DataFromList(samples)  # in a new order every epoch
    df = MapDataComponent(df, read)
    df = MapDataComponent(df, random_crop)
    return BatchData(df, BATCH)


def train_step(weights, images, labels):
    """Take one step of softmax regression on the mean colour, and return the share of right answers."""
    features = images.mean(axis=(1, 2)) / 10 - 10
    scores = features @ weights
    wanted = np.eye(3)[labels]
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    weights += features.T @ (wanted - shares)
    return float((scores.argmax(axis=1) == labels).mean())


def train(df: DataFlow, checkpoint: Path, stop_after: int | None = None):
    """Train until the last epoch, or stop after some steps; start from the checkpoint if there is one."""
    weights, epoch, step = np.zeros((3, 3)), 0, 0
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        weights, epoch, step = np.array(saved["weights"]), saved["epoch"], saved["step"]
        df.load_state_dict(saved["data"])
        print(f"  continue in epoch {epoch}, behind step {step}")
    for epoch in range(epoch, EPOCHS):
        for images, labels in df:
            right = train_step(weights, images, labels)
            step += 1
            if step == stop_after:
                state = {"weights": weights.tolist(), "epoch": epoch, "step": step, "data": df.state_dict()}
                checkpoint.write_text(json.dumps(state))
                print(f"  stop in epoch {epoch}, behind step {step}")
                return weights
        print(f"  epoch {epoch}: {right:.0%} of the last batch right")
    return weights


def main() -> None:
    set_seed(2011)  # else a seed is drawn; the state of a flow knows which
    with tempfile.TemporaryDirectory() as name:
        folder, checkpoint = Path(name), Path(name) / "checkpoint.json"
        make_images(folder)
        print("in one go:")
        whole = train(make_flow(folder), checkpoint)
        print("with a stop:")
        train(make_flow(folder), checkpoint, stop_after=22)
        resumed = train(make_flow(folder), checkpoint)
    print(f"the same weights, bit by bit: {np.array_equal(whole, resumed)}")


if __name__ == "__main__":
    main()
