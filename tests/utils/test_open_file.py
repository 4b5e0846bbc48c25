from __future__ import annotations

import errno
import gc
import io
import os
import pathlib

import pytest

from dataflow.errors import MissingPackageError
from dataflow.utils import open_file
from dataflow.utils.open_file import (
    checked_path,
    existing_path,
    identity_of,
    is_url,
    open_binary,
    published_stream,
    refuse_existing,
    size_of,
)

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["a path", "a URL", "a URL of files"])
def place(request, tmp_path):
    """Where a file is to be, on this machine or elsewhere, and what lists the names beside it."""
    if request.param != "a URL":
        scheme = "local://" if request.param == "a URL of files" else ""
        yield f"{scheme}{tmp_path}/x.bin", lambda: sorted(os.listdir(tmp_path))
        return
    fs = fsspec.filesystem("memory")
    fs.makedirs("/test_open_file")
    yield (
        "memory://test_open_file/x.bin",
        lambda: sorted(os.path.basename(name) for name in fs.ls("/test_open_file", detail=False)),
    )
    fs.rm("/test_open_file", recursive=True)


def written(path, data=b"0123456789"):
    with published_stream(path) as file:
        file.write(data)
    return path


@pytest.mark.parametrize(
    ("given", "path"),
    [
        pytest.param("a/b", "a/b", id="text"),
        pytest.param(b"a/\xff", "a/\udcff", id="bytes"),
        pytest.param(pathlib.Path("a/b"), "a/b", id="Path"),
        pytest.param("file:///a b", "/a b", id="file URL"),
        pytest.param(pathlib.Path("/a b/ä%20\udcff").as_uri(), "/a b/ä%20\udcff", id="file URL of a Path"),
        pytest.param("file:///a%20b/x-%06d.tar", "/a b/x-%06d.tar", id="file URL of shards"),
        pytest.param("s3://a/b", "s3://a/b", id="URL"),
    ],
)
def test_any_path_becomes_text(given, path):
    assert checked_path(path=given) == path
    assert is_url(path) == path.startswith("s3")


def test_what_is_no_path_is_refused_by_the_name_of_its_argument():
    with pytest.raises(TypeError, match=r"filename must be a path, got 3 \(int\)"):
        checked_path(filename=3)


def test_a_path_of_no_file_is_refused_and_a_url_is_not_asked_for(tmp_path):
    path = written(str(tmp_path / "x.bin"))
    assert existing_path("tar file", path=os.fsencode(path)) == path
    assert existing_path("tar file", path="s3://a/b") == "s3://a/b"
    with pytest.raises(FileNotFoundError, match=r"no such tar file: '.*y\.bin'"):
        existing_path("tar file", path=tmp_path / "y.bin")


def test_what_was_written_is_read_from_anywhere(place):
    path, names = place
    with written(path) and open_binary(path) as file:
        assert file.seek(4) == 4
        assert file.read(3) == b"456"
        assert file.seek(0, os.SEEK_END) == size_of(path) == 10
    assert names() == ["x.bin"]


def test_two_readers_of_one_file_do_not_disturb_each_other(place):
    path, _ = place
    with open_binary(written(path)) as first, open_binary(path) as second:
        assert [first.read(2), second.read(3), first.read(2)] == [b"01", b"012", b"23"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_and_its_fork_read_on_without_disturbing_each_other(tmp_path):
    data = os.urandom(3_000_000)  # many buffers
    with open_binary(written(str(tmp_path / "x.bin"), data)) as file:
        begin = file.read(10)
        child = os.fork()
        rest = b"".join(iter(lambda: file.read(1000), b""))
        if not child:
            os._exit(0 if begin + rest == data else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert begin + rest == data


def test_a_file_on_this_machine_seeks_and_reads_as_any_other(tmp_path):
    data = os.urandom(700_000)  # more than a buffer
    with open_binary(written(str(tmp_path / "x.bin"), data)) as file:
        assert file.seek(-10, os.SEEK_END) == len(data) - 10
        assert (file.read(), file.read(), file.tell()) == (data[-10:], b"", len(data))
        assert file.seek(-len(data), os.SEEK_CUR) == 0
        assert file.read() == data
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            file.seek(-1)
        file.seek(0)
        raw = file.raw  # as who reads around the buffer
        assert (raw.read(3), raw.tell(), raw.readall()) == (data[:3], 3, data[3:])


def test_a_reader_that_is_dropped_closes_its_file(tmp_path):
    file = open_binary(written(str(tmp_path / "x.bin")))
    descriptor = file.fileno()
    del file
    gc.collect()
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(descriptor)


def test_a_reader_in_a_cycle_is_collected_without_a_warning(tmp_path, recwarn):
    for path in [written(str(tmp_path / "x.bin"))] * 8:
        cycle = [open_binary(path)]
        cycle.append(cycle)
    del cycle
    gc.collect()
    assert not recwarn.list


def test_an_error_leaves_nothing_behind(place):
    path, names = place
    with pytest.raises(TypeError, match="a bytes-like object"), published_stream(path) as file:
        file.writelines([b"half of it", "text"])
    assert names() == []


def test_nothing_is_overwritten(place):
    path, names = place
    written(path)
    with pytest.raises(FileExistsError, match="remove it first") as info:
        refuse_existing(path)
    assert info.value.filename == path
    with pytest.raises(FileExistsError, match="remove it first"):
        written(path, b"other")
    with open_binary(path) as file:
        assert file.read() == b"0123456789"
    assert names() == ["x.bin"]


def test_a_writer_that_was_faster_is_not_overwritten(place):
    path, names = place
    with pytest.raises(FileExistsError, match="remove it first"), published_stream(path):
        written(path, b"fast")
    with open_binary(path) as file:
        assert file.read() == b"fast"
    assert names() == ["x.bin"]


def test_a_file_that_is_missing_is_named(place):
    path, _ = place
    with pytest.raises(FileNotFoundError, match=r"x\.bin"):
        open_binary(path)
    with pytest.raises(FileNotFoundError, match=r"x\.bin"):
        size_of(path)


def test_a_url_whose_size_is_not_known_is_refused(monkeypatch):
    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "size", lambda self, name: None)
    with pytest.raises(OSError, match="copy it to this machine"):
        size_of("memory://x")


def test_a_changed_file_has_another_identity(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"1")
    before = identity_of(str(path))
    assert before == identity_of(str(path))
    path.write_bytes(b"12")
    assert before != identity_of(str(path))
    assert identity_of("memory://x") is None


def test_a_url_without_fsspec_says_what_to_install(monkeypatch):
    def missing(name, by):
        raise MissingPackageError(f"{by} needs {name}")

    monkeypatch.setattr(open_file, "need", missing)
    with pytest.raises(MissingPackageError, match=r"the URL 's3://a/b' needs fsspec"):
        open_binary("s3://a/b")


def test_a_file_url_is_a_path(tmp_path):
    path = checked_path(path=f"file://{tmp_path}/x.bin")
    assert isinstance(open_binary(written(path)), io.BufferedReader)
    assert os.listdir(tmp_path) == ["x.bin"]
