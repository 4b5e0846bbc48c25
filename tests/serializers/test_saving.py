from __future__ import annotations

import errno
import logging
import os

import pytest

from dataflow import DataFlow, DataFromGenerator, DataFromList, RepeatedData, TarSerializer
from dataflow.errors import UsageError
from dataflow.serializers.saving import saving
from dataflow.testing import FailsAt, numbers


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "x.bin")


def save(df, path, write=lambda file, dp: file.write(b"%d," % dp[0])):
    with saving(df, path, by="X.save") as job:
        file = job.open()
        for dp in job.rows():
            write(file, dp)
    return job


def test_one_pass_after_a_reset_is_written(path):
    df = DataFromList([[number] for number in range(9)], seed=8)
    first = list(df)
    job = save(df, path)
    with open(path) as file:
        assert file.read() == "".join(f"{number}," for (number,) in first)
    assert (job.path, job.total, job.count) == (path, 9, 9)


def test_a_library_gets_the_name_of_a_file_on_this_machine(path):
    with saving(numbers(3), path, by="X.save") as job:
        name = job.temporary
        with open(name, "w") as file:
            file.write(str(list(job.rows())))
        assert not os.path.exists(path)
    with open(path) as file:
        assert file.read() == "[[0], [1], [2]]"


def test_a_url_is_written_by_a_stream_and_not_by_name():
    fsspec = pytest.importorskip("fsspec")
    save(numbers(3), "memory://test_saving.bin")
    assert fsspec.filesystem("memory").cat("/test_saving.bin") == b"0,1,2,"
    fsspec.filesystem("memory").rm("/test_saving.bin")
    job = saving(numbers(3), "memory://test_saving.bin", by="X.save")
    with (
        pytest.raises(UsageError, match=r"X\.save writes to this machine only, and 'memory://.*save it here"),
        job as j,
    ):
        _ = j.temporary


def test_a_missing_folder_is_told_before_the_flow_is_started(tmp_path):
    class Fails(DataFromList):
        def reset_state(self):
            raise AssertionError("started")

    for write in (save, TarSerializer.save):
        with pytest.raises(FileNotFoundError, match=r"no such folder to write to: '.*nowhere'"):
            write(Fails([[1]]), str(tmp_path / "nowhere" / "x.tar"))


def test_workers_start_before_the_file_is_open(path):
    class Looks(DataFlow):
        def reset_state(self):
            self.seen = os.listdir(os.path.dirname(path))

        def __iter__(self):
            yield [0]

    df = Looks()
    save(df, path)
    assert df.seen == []


def test_an_existing_file_is_refused_before_anything_runs(path):
    save(numbers(1), path)
    with pytest.raises(FileExistsError, match="remove it first"):
        save(FailsAt(numbers(3), 0, AssertionError("it ran")), path)


@pytest.mark.parametrize("number", [0, 2])
def test_an_error_of_the_writer_says_at_which_datapoint(path, number):
    def write(file, dp):
        if dp[0] == number:
            raise TypeError("cannot hold it")

    with pytest.raises(TypeError, match="cannot hold it") as info:
        save(numbers(3), path, write)
    assert info.value.__notes__ == [f"in X.save, datapoint {number}"]
    assert not os.listdir(os.path.dirname(path))


def test_an_error_of_the_flow_is_not_said_to_be_one_of_the_file(path):
    def rows():
        yield [0]
        raise OSError(errno.EIO, "a broken camera")

    with pytest.raises(OSError, match="a broken camera") as info:
        save(DataFromGenerator(rows), path)
    assert info.value.filename is None
    assert any(note.endswith("datapoint 1") for note in info.value.__notes__)


def test_an_error_of_the_system_names_the_file(path):
    def write(file, dp):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device after 1 datapoints") as info:
        save(numbers(3), path, write)
    assert (info.value.errno, info.value.filename) == (errno.ENOSPC, path)


def test_an_error_behind_the_last_datapoint_is_not_said_to_be_at_one(path):
    with pytest.raises(ValueError, match="invalid literal") as info, saving(numbers(3), path, by="X.save") as job:
        int(str(list(job.rows())))
    assert not hasattr(info.value, "__notes__")


def test_an_endless_flow_is_refused(path):
    with pytest.raises(UsageError, match=r"never ends.*FixedSizeData"):
        save(RepeatedData(numbers(3), -1), path)


def test_a_flow_of_another_length_than_it_says_is_saved_and_logged(path, caplog):
    class Short(DataFlow):
        def __len__(self):
            return 100

        def __iter__(self):
            yield [0]

    with caplog.at_level(logging.WARNING):
        save(Short(), path)
    assert "holds 1 datapoints, and the length of the flow is 100" in caplog.text
