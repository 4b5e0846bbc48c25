"""Find out how fast a flow is, and which of its steps takes the time.

From the command line it is `dataflow speed examples/speed_test.py:make_flow`.
"""

from dataflow import BatchData, DataFlow, FakeData, MapDataComponent, TestDataSpeed


def normalize(image):
    return (image - image.mean()) / image.std()


def random_flip(image, rng):
    return image[:, ::-1] if rng.random() < 0.5 else image


def make_source() -> DataFlow:
    """Return a flow of [image, label] as large as yours; random=False draws the numbers only once."""
    return FakeData([(64, 64, 3), ()], size=3200, random=False, dtype=["uint8", "int32"], domain=[(0, 256), (0, 10)])


def make_flow() -> DataFlow:
    df = make_source()
    df = MapDataComponent(df, normalize)
    df = MapDataComponent(df, random_flip)
    return BatchData(df, 32)


def main() -> None:
    # A flow draws from the one below it, `ds`: a test of each tells what each of them adds.
    steps = [make_flow()]
    while hasattr(steps[0], "ds"):
        steps.insert(0, steps[0].ds)
    for df in steps:
        report = TestDataSpeed(df, size=len(df) // 4, warmup=10).start()
    print(f"\nin all: {report.datapoints_per_second * 32:,.0f} images/s")


if __name__ == "__main__":
    main()
