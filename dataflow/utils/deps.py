"""Packages that are loaded on first use, so that ``import dataflow`` stays light."""

from __future__ import annotations

import importlib
from typing import Any

from ..errors import MissingPackageError

# Import name -> what to install, where the two differ or an extra of ours brings it.
INSTALL = {
    "cv2": "opencv-python-headless",
    "fsspec": "'dataflow-toolkit[remote]'",
    "google_crc32c": "google-crc32c",
    "msgpack_numpy": "msgpack-numpy",
    "pyarrow": "'dataflow-toolkit[arrow]'",
    "sklearn": "'dataflow-toolkit[svmlight]'",
    "zmq": "pyzmq",
}


def need(name: str, by: str, install: str | None = None) -> Any:
    """Import and return the package ``name`` (dotted names give the submodule), or say how to install it.

    >>> need("json", by="this example").dumps([1])
    '[1]'

    Args:
        name: the name one would write after ``import``.
        by: who needs it, for the message.
        install: what to install, if that is not what INSTALL says.

    Raises:
        MissingPackageError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:  # installed, but something that it imports itself is not
            raise
        raise MissingPackageError(
            f"{by} needs the package {top!r}, which is not installed: pip install {install or INSTALL.get(top, top)}",
            name=top,
        ) from error
