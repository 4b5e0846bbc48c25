"""A file that is published appears whole, in the place of nothing, or not at all."""

from __future__ import annotations

import errno
import os
import pathlib

import pytest

from dataflow.utils.files import published


def write(path, text="new"):
    with published(str(path)) as temporary:
        pathlib.Path(temporary).write_text(text)


def left_in(folder):
    return sorted(os.listdir(folder))


def test_the_file_appears_when_it_is_complete(tmp_path):
    with published(str(tmp_path / "x")) as temporary:
        pathlib.Path(temporary).write_text("new")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "new"
    assert left_in(tmp_path) == ["x"]


def test_a_name_without_a_folder_is_in_the_current_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("x")
    assert left_in(tmp_path) == ["x"]


def test_the_file_may_be_read_by_whom_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "x")
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_the_file_is_synced_before_it_appears_and_its_folder_after(tmp_path, monkeypatch):
    calls = []
    sync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.path.isdir(f"/dev/fd/{fd}")), sync(fd)))
    monkeypatch.setattr(os, "link", lambda *names: (calls.append("link"), link(*names)))
    write(tmp_path / "x")
    assert calls == [False, "link", True]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()], ids=repr)
def test_an_error_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(type(error)), published(str(tmp_path / "x")):
        raise error
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("links", [True, False], ids=["link", "rename"])
def test_nothing_is_ever_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "x", "old")
    with pytest.raises(FileExistsError, match=r"remove it first, or choose another name: '.*x'"):
        write(tmp_path / "x")
    with pytest.raises(FileExistsError, match="remove it first"), published(str(tmp_path / "y")):
        (tmp_path / "y").write_text("faster")
    assert (tmp_path / "x").read_text() == "old"
    assert (tmp_path / "y").read_text() == "faster"
    assert left_in(tmp_path) == ["x", "y"]


def no_links(source, target):
    raise PermissionError(errno.EPERM, "Operation not permitted", source)


def test_a_file_system_without_links_renames(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    write(tmp_path / "x")
    assert left_in(tmp_path) == ["x"]


def test_another_error_of_publishing_is_told(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", source)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "x")
    assert left_in(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_and_what_another_writes_is_not(tmp_path):
    with published(str(tmp_path / "y")) as alive:
        abandoned = tmp_path / ".dataflow-0123456789abcdef.tmp"
        abandoned.write_text("half")
        (tmp_path / ".dataflow-notes").write_text("of somebody else")
        write(tmp_path / "x")
        assert left_in(tmp_path) == sorted([os.path.basename(alive), ".dataflow-notes", "x"])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such folder to write to: '.*nowhere'"):
        write(tmp_path / "nowhere" / "x")


def test_a_folder_that_may_not_be_written_to_is_an_error_with_the_path(tmp_path, monkeypatch):
    def refuse(name, *args):
        raise PermissionError(errno.EACCES, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"cannot write here \(Permission denied\): '.*x'"):
        write(tmp_path / "x")
