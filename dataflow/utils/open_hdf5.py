"""HDF5 files that are opened to read the rows of datasets, and nothing else that such a file may ask for.

An HDF5 file can name other files to be read in its place, and filters to be loaded as plugins; it can claim sizes that
its bytes do not bear out, and hold types whose values are pointers or lie in a heap in which the HDF5 library loses
itself if a byte is wrong. So a path is followed link by link, and what it leads to is checked before it is read.
"""

from __future__ import annotations

import math
import re
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

from ..errors import CorruptDataError, MissingKeyError, UsageError
from .deps import need
from .open_file import is_url

# Without a plugin: deflate, shuffle, fletcher32, szip, nbit, scaleoffset, and the lzf that h5py brings.
_FILTERS = {1, 2, 3, 4, 5, 6, 32000}
# What honest data hardly ever exceeds: how much longer it is than its compressed form.
_RATIO = 100
_MAX_DEPTH = 32
_MAX_LINKS = 32
# What numpy's dates are stored as; any other name in this place would become a dtype too, also that of pointers.
_DATES = re.compile(rb"[<>|=]?[mM]8(\[\d{0,10}[a-zA-Z]{1,2}\])?")


class Allowed(NamedTuple):
    """What a file may do; see ``HDF5Data``."""

    external: bool = False
    variable: bool = False
    max_bytes: int = 1 << 26


class HDF5File:
    """An HDF5 file that is open, until this object is dropped.

    Args:
        path: its name.
        allowed: what it may do.
        cache_bytes: how much of each dataset is kept in memory, uncompressed; None for what the library keeps.

    Raises:
        OSError: if the operating system does not let it be read.
        CorruptDataError: if it is no HDF5 file, or only the beginning of one.
        UsageError: if it is a URL, or is being written.
    """

    def __init__(self, path: str, allowed: Allowed, cache_bytes: int | None = None) -> None:
        if is_url(path):
            raise UsageError(f"HDF5 is read from this machine only, and {path!r} is a URL: copy it here first")
        self.path, self._allowed = path, allowed
        self._h5py = need("h5py", by="reading an HDF5 file")
        self._found: dict[str, Any] = {}
        with open(path, "rb") as file:
            self._bytes = file.seek(0, 2)
        cache = {} if cache_bytes is None else {"rdcc_nbytes": cache_bytes, "rdcc_nslots": 100_003}
        try:
            self._file = self._h5py.File(path, "r", **cache)
        except Exception as error:
            if "unable to lock" in str(error):
                raise UsageError(f"{path!r} is open for writing ({error}). Close it first") from error
            raise CorruptDataError(f"{path!r} is no HDF5 file, or a damaged one: {error}") from error

    def dataset(self, path: str) -> Any:
        """Return the ``h5py.Dataset`` at ``path``, whose rows are safe to read.

        Raises:
            MissingKeyError: if there is none.
            UsageError: if it, or a link on the way, leads out of the file, or it holds what is no data.
            CorruptDataError: if it is damaged, or claims sizes that nothing bears out.
            ValueError: if it has no rows.
        """
        if path not in self._found:
            try:
                found = self._followed(path)
                self._check(path, found)
                self._found[path] = self._h5py.Dataset(found)
            except (CorruptDataError, MissingKeyError, UsageError):
                raise
            except Exception as error:
                raise CorruptDataError(f"{self.path!r}, dataset {path!r}: {error}") from error
        return self._found[path]

    def paths(self) -> list[str]:
        """Return the paths of all datasets that hard links lead to, in the order of their names."""
        h5py = self._h5py
        found: list[str] = []
        try:
            left = [("", self._root())]
            seen = {h5py.h5o.get_info(self._root()).addr}
            while left:
                above, group = left.pop()
                for name in group:
                    if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                        continue
                    child = h5py.h5o.open(group, name)
                    path = above + name.decode("utf-8", "surrogateescape")
                    if isinstance(child, h5py.h5d.DatasetID):
                        found.append(path)
                    elif isinstance(child, h5py.h5g.GroupID) and (address := h5py.h5o.get_info(child).addr) not in seen:
                        seen.add(address)
                        left.append((f"{path}/", child))
        except Exception as error:
            raise CorruptDataError(f"{self.path!r} is damaged: {error}") from error
        return sorted(found)

    def note(self, name: str) -> bytes | None:
        """Return the attribute ``name`` of the file, a string of fixed length, or None if there is none.

        Raises:
            CorruptDataError: if it is damaged, or of another kind.
        """
        h5py = self._h5py
        try:
            root = self._root()
            if not h5py.h5a.exists(root, name.encode()):
                return None
            attribute = h5py.h5a.open(root, name.encode())
            kind = attribute.get_type()
            if type(kind) is not h5py.h5t.TypeStringID or kind.is_variable_str() or attribute.shape != ():
                raise ValueError("it is no string of fixed length")
            if kind.get_size() > self._bytes:
                raise ValueError("it claims to be longer than the file")
            return bytes(self._file.attrs[name])
        except Exception as error:
            raise CorruptDataError(f"{self.path!r}, attribute {name!r}: {error}") from error

    def _root(self) -> Any:
        return self._h5py.h5g.open(self._file.id, b"/")

    def _followed(self, path: str) -> Any:
        """Return the dataset that ``path`` leads to, having looked at each link on the way."""
        h5py = self._h5py
        here, links = self._root(), 0
        left = deque(path.encode("utf-8", "surrogateescape").split(b"/"))
        while left:
            name = left.popleft()
            if name in (b"", b"."):
                continue
            if not isinstance(here, h5py.h5g.GroupID) or name not in here:
                raise self._missing(path)
            kind = here.links.get_info(name).type
            if kind == h5py.h5l.TYPE_SOFT:
                links += 1
                if links > _MAX_LINKS:
                    raise ValueError("its soft links lead in a circle")
                target = here.links.get_val(name)
                left.extendleft(reversed(target.split(b"/")))
                here = self._root() if target.startswith(b"/") else here
            elif kind == h5py.h5l.TYPE_HARD or self._allowed.external:
                here = h5py.h5o.open(here, name)
            else:
                raise self._leads_out(path, f"is behind the external link {name.decode('utf-8', 'replace')!r}")
        if not isinstance(here, h5py.h5d.DatasetID):
            raise self._missing(path)
        return here

    def _missing(self, path: str) -> MissingKeyError:
        names = ", ".join(repr(name.decode("utf-8", "replace")) for name in islice(self._root(), 8))
        return MissingKeyError(f"{self.path!r} has no dataset {path!r}. At its top are: {names or 'none'}")

    def _leads_out(self, path: str, how: str) -> UsageError:
        return UsageError(
            f"{self.path!r}, dataset {path!r} {how}, so it is not the file alone that decides what is read and run. "
            "Pass allow_external=True if you trust it"
        )

    def _check(self, path: str, dataset: Any) -> None:
        """Raise unless the rows of a dataset can be read safely."""
        h5py, how = self._h5py, dataset.get_create_plist()
        elsewhere = how.get_layout() == h5py.h5d.VIRTUAL or how.get_external_count() > 0
        if elsewhere and not self._allowed.external:
            what = "is a virtual dataset" if how.get_layout() == h5py.h5d.VIRTUAL else "is stored in other files"
            raise self._leads_out(path, what)
        for i in range(how.get_nfilters()):
            if (code := how.get_filter(i)[0]) not in _FILTERS and not self._allowed.external:
                raise self._leads_out(path, f"is written with the filter {code}, which a plugin must read")
        kind = dataset.get_type()
        if isinstance(kind, (h5py.h5t.TypeVlenID, h5py.h5t.TypeStringID)) and _is_variable(h5py, kind):
            if not self._allowed.variable:
                raise UsageError(
                    f"{self.path!r}, dataset {path!r} holds values of variable length, on which the HDF5 library may "
                    "hang if the file is damaged. Pass allow_variable=True if you trust it"
                )
            kind = kind.get_super() if isinstance(kind, h5py.h5t.TypeVlenID) else h5py.h5t.NATIVE_INT8
        if fault := _fault_of_type(h5py, kind, 0):
            raise UsageError(f"{self.path!r}, dataset {path!r} holds {fault}, which cannot be read as data")
        if dataset.get_space().get_simple_extent_type() != h5py.h5s.SIMPLE or not dataset.shape:
            raise ValueError("it has no rows, but is a single value")
        if not elsewhere:
            self._check_size(dataset, how)

    def _check_size(self, dataset: Any, how: Any) -> None:
        """Raise if a row, a chunk or the numbers of the rows would take memory out of proportion to what is stored."""
        shape, item = dataset.shape, dataset.get_type().get_size()
        chunk = how.get_chunk() if how.get_layout() == self._h5py.h5d.CHUNKED else ()
        at_once = max(math.prod(shape[1:]) * item, math.prod(chunk) * item, shape[0] * 8)
        if at_once <= self._allowed.max_bytes:
            return
        stored = min(dataset.get_storage_size(), self._bytes)
        if at_once > stored * _RATIO:
            raise ValueError(
                f"it claims shape {shape}{f' in chunks of {chunk}' if chunk else ''}, which takes {at_once:,} bytes at "
                f"once, and {stored:,} are stored. Pass max_bytes={at_once} if you trust it"
            )


def _is_variable(h5py: Any, kind: Any) -> bool:
    return isinstance(kind, h5py.h5t.TypeVlenID) or kind.is_variable_str()


def _fault_of_type(h5py: Any, kind: Any, depth: int) -> str | None:
    """Say what values of a type hold that is more than plain bytes, or None."""
    h5t = h5py.h5t
    if depth > _MAX_DEPTH:
        return f"a type that is nested deeper than {_MAX_DEPTH} levels"
    if isinstance(kind, h5t.TypeCompoundID):
        members = (kind.get_member_type(i) for i in range(kind.get_nmembers()))
        return next(filter(None, (_fault_of_type(h5py, member, depth + 1) for member in members)), None)
    if isinstance(kind, h5t.TypeArrayID):
        return _fault_of_type(h5py, kind.get_super(), depth + 1)
    if isinstance(kind, h5t.TypeReferenceID):
        return "references to other objects"
    if isinstance(kind, (h5t.TypeVlenID, h5t.TypeStringID)) and _is_variable(h5py, kind):
        return "values of variable length inside of others"
    if isinstance(kind, h5t.TypeOpaqueID):
        tag = kind.get_tag()
        name = tag.removeprefix(b"NUMPY:")
        if name != tag and not (_DATES.fullmatch(name) and kind.get_size() == 8):
            return f"a type that calls itself {tag.decode('utf-8', 'replace')!r}"
    return None
