"""The process in which ``dataflow verify`` reads a data file, and which that file may crash.

Its output is a line for each event, and the process that started it reads along::

    {"datapoints": 5000, "checksums": "every record", "counts": true}
                                    counts: whether the file, or its index, tells how many records there are to be
                                    (empty) a record has been read, so that a crash is known by its record
    {"number": 17, "why": "..."}    it is damaged; the number is null where the file itself is at fault
    {"end": true}                   all have been read; or {"failure": "..."}: the file cannot be read at all
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import Any

from ..errors import CorruptDataError
from . import target
from .failure import explain

READ = b"\n"


def main(file: str, *options: str) -> None:
    """Read ``file``, and tell."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # nobody listens any more
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    out = os.dup(1)
    os.dup2(2, 1)  # what the data prints must not come between
    kind = target.serializer(file)
    allowed = {"allow_pickle": True} if options else {}

    def tell(**event: Any) -> None:
        os.write(out, json.dumps(event).encode() + b"\n")

    try:
        with suppress(CorruptDataError):  # what is wrong with it, is found below
            found = kind.inspect(file)
            tell(datapoints=found["datapoints"], checksums=found["checksums"], counts=found.get("index", True))
        for number, why in kind.damages(file, on_record=partial(os.write, out, READ), **allowed):
            tell(number=number, why=why)
        tell(end=True)
    except Exception as error:
        tell(failure=explain(error, code=bool(options)).removeprefix("dataflow: "))


if __name__ == "__main__":
    main(*sys.argv[1:])
