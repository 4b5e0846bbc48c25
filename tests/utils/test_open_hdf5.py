"""Opening HDF5 files: each way in which one could do more than hold data is refused, before anything is read."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from dataflow.errors import CorruptDataError, MissingKeyError, UsageError
from dataflow.utils.open_hdf5 import Allowed, HDF5File

EVERYTHING = Allowed(external=True, variable=True, max_bytes=1 << 62)
SECRET = np.arange(7) + 1000


def low_level(file, kind, shape=(3,), how=None, data=None):
    """Make the dataset x with what h5py's own types and options would not let through."""
    space = h5py.h5s.create_simple(shape)
    dataset = h5py.h5d.create(file.id, b"x", kind, space, how)
    if data is not None:
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data, kind)


def external_link(file, folder):
    file["x"] = h5py.ExternalLink(str(folder / "secret.h5"), "secret")


def external_link_on_the_way(file, folder):
    file["group/inner"] = h5py.ExternalLink(str(folder / "secret.h5"), "/")
    file["x"] = h5py.SoftLink("/group/inner/secret")


def external_storage(file, folder):
    file.create_dataset("x", (7,), "i8", external=[(str(folder / "secret.bin"), 0, 56)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((7,), "i8")
    layout[:] = h5py.VirtualSource(str(folder / "secret.h5"), "secret", (7,))
    file.create_virtual_dataset("x", layout)


def plugin_filter(file, folder):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_chunk((3,))
    how.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    low_level(file, h5py.h5t.NATIVE_INT64, how=how)


def soft_links_in_a_circle(file, folder):
    file["y"], file["x"] = h5py.SoftLink("x"), h5py.SoftLink("y")


def references(file, folder):
    file.create_dataset("x", (2,), h5py.ref_dtype)


def region_references_in_a_struct(file, folder):
    file.create_dataset("x", (2,), [("a", "i4"), ("b", h5py.regionref_dtype)])


def pointers(file, folder):
    kind = h5py.h5t.create(h5py.h5t.OPAQUE, 8)
    kind.set_tag(b"NUMPY:|O")  # h5py makes the dtype object of it, and numpy follows 0x4141414141414141
    low_level(file, kind, data=np.frombuffer(b"A" * 24, "V8"))


def text(file, folder):
    file["x"] = ["one", "three"]


def ragged(file, folder):
    file.create_dataset("x", (2,), h5py.vlen_dtype(np.int32))


def text_in_a_struct(file, folder):
    file.create_dataset("x", (2,), [("a", "i4"), ("b", h5py.string_dtype())])


def deep_type(file, folder):
    kind = h5py.h5t.NATIVE_INT8
    for _ in range(100):
        kind = h5py.h5t.array_create(kind, (1,))
    low_level(file, kind)


def large_row(file, folder):
    file.create_dataset("x", (1, 1 << 30), "u1", chunks=(1, 1 << 20), compression="gzip")


def many_rows(file, folder):
    file.create_dataset("x", (1 << 40, 0), "u1", chunks=(1, 1), maxshape=(None, None))


def large_chunk(file, folder):
    file.create_dataset("x", (10, 10), "u1", chunks=(1 << 15, 1 << 14), maxshape=(None, None), compression="gzip")


def behind_the_end(file, folder):
    how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    how.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    low_level(file, h5py.h5t.NATIVE_INT64, (1, 1 << 37), how)


def one_value(file, folder):
    file["x"] = 5


def no_value(file, folder):
    file["x"] = h5py.Empty("f4")


def group(file, folder):
    file.create_group("x")


HOSTILE = [
    (external_link, UsageError, "external link 'x'.*allow_external"),
    (external_link_on_the_way, UsageError, "external link 'inner'"),
    (external_storage, UsageError, "stored in other files"),
    (virtual, UsageError, "virtual dataset"),
    (plugin_filter, UsageError, "the filter 32015.*plugin"),
    (soft_links_in_a_circle, CorruptDataError, "circle"),
    (references, UsageError, "references"),
    (region_references_in_a_struct, UsageError, "references"),
    (pointers, UsageError, r"calls itself 'NUMPY:\|O'"),
    (text, UsageError, "variable length.*allow_variable"),
    (ragged, UsageError, "variable length"),
    (text_in_a_struct, UsageError, "variable length inside"),
    (deep_type, UsageError, "nested deeper"),
    (large_row, CorruptDataError, r"claims shape \(1, 1073741824\).*max_bytes=1073741824"),
    (many_rows, CorruptDataError, "claims shape"),
    (large_chunk, CorruptDataError, "in chunks of"),
    (behind_the_end, CorruptDataError, "claims shape"),
    (one_value, CorruptDataError, "no rows"),
    (no_value, CorruptDataError, "no rows"),
    (group, MissingKeyError, "no dataset 'x'.*'x'"),
]
by_name = pytest.mark.parametrize(("make", "error", "says"), HOSTILE, ids=[make.__name__ for make, *_ in HOSTILE])


@pytest.fixture
def folder(tmp_path):
    SECRET.tofile(tmp_path / "secret.bin")
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["secret"] = SECRET
    return tmp_path


def written(folder, make):
    path = str(folder / "x.h5")
    with h5py.File(path, "w") as file:
        make(file, folder)
    return path


@by_name
def test_what_is_not_plain_data_is_refused(folder, make, error, says):
    path = written(folder, make)
    with pytest.raises(error, match=says) as caught:
        HDF5File(path, Allowed()).dataset("x")
    assert path in str(caught.value)


@pytest.mark.parametrize("make", [external_link, external_link_on_the_way, external_storage, virtual])
def test_other_files_are_read_when_that_is_allowed(folder, make):
    dataset = HDF5File(written(folder, make), EVERYTHING).dataset("x")
    assert dataset[:].tolist() == SECRET.tolist()


def test_text_is_read_when_that_is_allowed(folder):
    assert HDF5File(written(folder, text), EVERYTHING).dataset("x")[:].tolist() == [b"one", b"three"]


@pytest.mark.parametrize("make", [references, pointers, text_in_a_struct, deep_type], ids=lambda make: make.__name__)
def test_what_is_no_data_is_refused_whatever_is_allowed(folder, make):
    with pytest.raises(UsageError):
        HDF5File(written(folder, make), EVERYTHING).dataset("x")


def test_a_limit_may_be_raised_to_what_the_message_says(folder):
    path = written(folder, large_row)
    assert HDF5File(path, Allowed(max_bytes=1 << 30)).dataset("x").shape == (1, 1 << 30)


def test_soft_links_inside_of_the_file_are_followed(folder):
    def make(file, folder):
        file["deep/data"] = [1, 2]
        file["deep/link"] = h5py.SoftLink("./data")
        file["x"] = h5py.SoftLink("/deep/link")

    assert HDF5File(written(folder, make), Allowed()).dataset("x")[:].tolist() == [1, 2]


def test_known_filters_and_dates_are_no_danger(folder):
    def make(file, folder):
        file.create_dataset("x", data=np.arange(100), chunks=(10,), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("y", data=np.arange(100), chunks=(10,), compression="lzf")
        file["z"] = np.array([3, 4], "M8[us]").astype(h5py.opaque_dtype("M8[us]"))

    file = HDF5File(written(folder, make), Allowed())
    assert file.dataset("x")[:].tolist() == file.dataset("y")[:].tolist() == list(range(100))
    assert file.dataset("z")[:].astype(int).tolist() == [3, 4]


def test_paths_are_those_that_hard_links_lead_to(folder):
    def make(file, folder):
        file["b/c"], file["a"] = [1], [2]
        file["b/again"] = file["/"]  # a circle
        file["soft"], file["out"] = h5py.SoftLink("/a"), h5py.ExternalLink("secret.h5", "secret")

    assert HDF5File(written(folder, make), Allowed()).paths() == ["a", "b/c"]


@pytest.mark.parametrize(
    "data", [b"", b"text" * 100, b"\x89HDF\r\n\x1a\n" + bytes(500)], ids=["empty", "text", "zeros"]
)
def test_another_file_is_named(tmp_path, data):
    (tmp_path / "x.h5").write_bytes(data)
    with pytest.raises(CorruptDataError, match=r"x\.h5' is no HDF5 file"):
        HDF5File(str(tmp_path / "x.h5"), Allowed())


def test_what_the_operating_system_says_is_kept(tmp_path):
    with pytest.raises(FileNotFoundError):
        HDF5File(str(tmp_path / "none.h5"), Allowed())
    with pytest.raises(IsADirectoryError):
        HDF5File(str(tmp_path), Allowed())


def test_a_url_is_refused_with_the_way_out():
    with pytest.raises(UsageError, match="copy it here"):
        HDF5File("memory://x.h5", Allowed())


def test_a_file_that_is_being_written_is_not_damaged(tmp_path):
    path = str(tmp_path / "x.h5")
    h5py.File(path, "w").close()
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as the HDF5 library of another process does
        with pytest.raises(UsageError, match="open for writing"):
            HDF5File(path, Allowed())


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("text of variable length", id="variable"),
        pytest.param(5, id="number"),
        pytest.param(np.array([b"a", b"b"]), id="array"),
    ],
)
def test_a_note_of_another_kind_is_damage(folder, value):
    path = written(folder, lambda file, folder: file.attrs.__setitem__("note", value))
    with pytest.raises(CorruptDataError, match="attribute 'note': it is no string"):
        HDF5File(path, Allowed()).note("note")


def test_a_note_is_read_or_is_not_there(folder):
    path = written(folder, lambda file, folder: file.attrs.__setitem__("note", np.bytes_(b"words")))
    file = HDF5File(path, Allowed())
    assert file.note("note") == b"words"
    assert file.note("other") is None


AUDIT = """
import json, resource, sys
import h5py, numpy
from dataflow.errors import DataFlowError
from dataflow.utils.open_hdf5 import Allowed, HDF5File
HDF5File(sys.argv[1], Allowed()).paths()  # loads whatever loads once
calls = []
def hook(event, arguments):
    if event in ("open", "exec", "compile", "import", "ctypes.dlopen", "pickle.find_class") or event.startswith(
        ("os.", "subprocess.", "socket.", "shutil.")
    ):
        calls.append([event, str(arguments[0])])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.addaudithook(hook)
refused = 0
for path in sys.argv[1:]:
    try:
        HDF5File(path, Allowed()).dataset("x")[0]
    except DataFlowError:
        refused += 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps([refused, grown, [call for call in calls if call[1] not in sys.argv]]))
"""


def test_hostile_files_run_nothing_open_nothing_and_take_no_memory(folder):
    paths = []
    for make, *_ in HOSTILE:
        paths.append(str(folder / f"{make.__name__}.h5"))
        with h5py.File(paths[-1], "w") as file:
            make(file, folder)
    done = subprocess.run([sys.executable, "-c", AUDIT, *paths], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    refused, grown, calls = json.loads(done.stdout)
    assert refused == len(HOSTILE)
    assert grown < 64 * 1024
    assert calls == []
