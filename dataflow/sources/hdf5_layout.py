"""What HDF5Serializer notes in a file about the datapoints it came from, so that they come back as they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# The attribute of the file; a string of fixed length, which lies where the file has checksums.
ATTRIBUTE = "dataflow_layout"
VERSION = 1
CONTAINERS = (list, tuple, dict)

# The Python scalars, and what they are stored as.
SCALARS: dict[str, tuple[type, np.dtype[Any]]] = {
    "bool": (bool, np.dtype(bool)),
    "int": (int, np.dtype("<i8")),
    "float": (float, np.dtype("<f8")),
    "complex": (complex, np.dtype("<c16")),
}
ARRAY, NUMPY = "array", "numpy scalar"


class Component(NamedTuple):
    """One component of all datapoints.

    Attributes:
        key: its key, in a dict.
        path: of its dataset.
        kind: what it was.
        sums: the path of a dataset with the crc32c of the rows in each chunk; or None, and HDF5 has a checksum of its
            own on them, which takes three times as long as reading.
    """

    key: str | None
    path: str
    kind: str
    sums: str | None

    def restorer(self, dtype: np.dtype[Any], ndim: int) -> Callable[[Any], list[Any]]:
        """Return what turns rows of the dataset, which has this dtype and so many dimensions, into components.

        Raises:
            ValueError: if no component of this kind has such rows.
        """
        if self.kind == ARRAY:
            return list if ndim > 1 else _without_dimensions
        if ndim != 1 or (self.kind != NUMPY and (self.kind not in SCALARS or dtype != SCALARS[self.kind][1])):
            raise ValueError(
                f"a dataset of {ndim} dimensions and dtype {dtype} cannot hold components noted {self.kind!r}"
            )
        return list if self.kind == NUMPY else np.ndarray.tolist


class Layout(NamedTuple):
    """How the datapoints were made of their components, and how many there are."""

    container: str
    components: list[Component]
    size: int

    def text(self) -> bytes:
        """Return it as what ``parse`` reads."""
        note = {"version": VERSION, "datapoint": self.container, "components": self.components, "size": self.size}
        return json.dumps(note, separators=(",", ":")).encode()

    @classmethod
    def parse(cls, text: bytes) -> Layout:
        """Read what ``text`` has written, or what somebody else has.

        Raises:
            ValueError: if it is something else.
        """
        try:
            match json.loads(text):
                case {"version": int(version)} if version > VERSION:
                    raise ValueError("it was written by a later dataflow: pip install -U dataflow-toolkit")
                case {"version": 1, "datapoint": str(container), "components": list(found), "size": int(size)}:
                    components = [Component(*each) for each in found]
                    wanted = str if container == "dict" else type(None)
                    plain = all(
                        type(c.key) is wanted
                        and type(c.path) is type(c.kind) is str
                        and type(c.sums) in (str, type(None))
                        for c in components
                    )
                    unique = container != "dict" or len({c.key for c in components}) == len(components)
                    if plain and unique and container in [kind.__name__ for kind in CONTAINERS] and size >= 0:
                        return cls(container, components, size)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"it is damaged ({error})") from error
        raise ValueError("it does not say how datapoints were stored")


def _without_dimensions(block: Any) -> list[Any]:
    return [row.reshape(()) for row in block.reshape(-1, 1)]
