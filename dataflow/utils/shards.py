"""Names of data that is spread over several files: lists, braces, and a number in the name."""

from __future__ import annotations

import errno
import math
import os
import re
from collections.abc import Iterator
from itertools import count, product, starmap
from typing import Any

from .open_file import checked_path, is_url, refuse_existing

# Not %20d: in a URL, and in what is downloaded from one, that is a space and a letter.
_NUMBER = re.compile(r"%(?:0\d{1,2})?d")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
# More names than this are a slip of the pen.
_MOST = 1_000_000


def shard_paths(path: Any) -> list[str]:
    """Return the files that ``path`` stands for, in their order; the name of a file that exists is that file.

    >>> shard_paths("x-{08..10}.tar"), shard_paths(["{a,b}.tar", "c.tar"])
    (['x-08.tar', 'x-09.tar', 'x-10.tar'], ['a.tar', 'b.tar', 'c.tar'])

    Args:
        path: a path or URL; braces in it stand for several, and a number such as ``%06d`` for all that there are; or a
            list of these.

    Raises:
        TypeError: if it is no path.
        ValueError: if the list is empty, or braces stand for too many or in one another.
        FileNotFoundError: if there is none with a number, or one is missing between others.
    """
    if isinstance(path, list | tuple):
        if not path:
            raise ValueError("path must be a path or a list of paths, got an empty list")
        return [name for part in path for name in shard_paths(part)]
    name = checked_path(path=path)
    if _exists(name):
        return [name]
    if not has_number(name):
        return _expanded(name)
    found = numbered(name)
    if not found or found[-1] != len(found) - 1:
        missing = next(number for number in count() if number not in found)
        raise FileNotFoundError(errno.ENOENT, "no such file", name % missing)
    return [name % number for number in found]


def last_paths(path: Any) -> set[str]:
    """Return the last file of each set that is given by a number: behind it, none may be missing."""
    parts = path if isinstance(path, list | tuple) else [path]
    names = [checked_path(path=part) for part in parts]
    return {shard_paths(name)[-1] for name in names if has_number(name) and not _exists(name)}


def refuse_braces(path: str) -> None:
    """Raise if ``path``, where a file is to be written, is one for several.

    Raises:
        ValueError: if there are braces in it.
    """
    if _BRACES.search(path):
        raise ValueError(
            f"{path!r} has braces, which stand for several files to read: to write shards put a number into the name, "
            "such as 'x-%06d.tar'"
        )


def _exists(path: str) -> bool:
    return not is_url(path) and os.path.exists(path)


def has_number(path: str) -> bool:
    """Say whether there is one number, such as ``%06d``, in the name of a file, and no other ``%``.

    >>> has_number("x-%06d.tar"), has_number("x.tar")
    (True, False)
    """
    return len(_NUMBER.findall(path)) == 1 and path.count("%") == 1


def numbered(pattern: str) -> list[int]:
    """Return the numbers of the files that there are; at a URL, up to the first that is missing."""
    if is_url(pattern):
        return list(_reachable(pattern))
    folder, name = os.path.split(pattern)
    if "%" in folder:
        raise ValueError(f"the number stands in the name of the file, not in that of a folder: {pattern!r}")
    before, behind = _NUMBER.split(name)
    found = []
    for entry in os.scandir(folder or os.curdir):
        digits = entry.name[len(before) : len(entry.name) - len(behind)]
        if digits.isdecimal() and digits.isascii() and name % int(digits) == entry.name:
            found.append(int(digits))
    return sorted(found)


def _reachable(pattern: str) -> Iterator[int]:
    for number in count():
        try:
            refuse_existing(pattern % number)
        except FileExistsError:
            yield number
        else:
            return


def _expanded(name: str) -> list[str]:
    """Return ``name`` with each combination of what its braces stand for."""
    pieces = _BRACES.split(name)  # by turns what stands outside of braces and inside
    if _BRACES.search("".join(pieces[::2])):
        raise ValueError(f"{name!r} has braces in braces: write them side by side, or give a list of paths")
    choices = [_choices(inside, name) for inside in pieces[1::2]]
    size = math.prod(len(values) for _, values in choices)
    if not 0 < size <= _MOST:
        raise ValueError(f"{name!r} stands for {size:,} files; give 1 to {_MOST:,}")
    pieces[::2] = [piece.replace("{", "{{").replace("}", "}}") for piece in pieces[::2]]
    pieces[1::2] = [spec for spec, _ in choices]
    return list(starmap("".join(pieces).format, product(*[values for _, values in choices])))


def _choices(inside: str, name: str) -> tuple[str, range | list[str]]:
    """Return what one pair of braces stands for, and how ``format`` puts it into the name."""
    span = _RANGE.fullmatch(inside)
    if span is not None:
        return f"{{:0{len(span[1])}d}}", range(int(span[1]), int(span[2]) + 1)
    if "," not in inside:
        raise ValueError(f"{{{inside}}} in {name!r} must be like {{000..099}} or {{a,b}}; or give a list of paths")
    return "{}", inside.split(",")
