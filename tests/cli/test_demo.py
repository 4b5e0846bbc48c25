"""The demo: real photographs to batches, and the lines that it prints at its end."""

from __future__ import annotations

import code
import re
import sys
import threading
from typing import Any

import cv2
import pytest

from dataflow.cli import main, photos
from dataflow.cli.demo import THREADS
from dataflow.cli.photos import make_photographs


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A folder in which the demo has run."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demo", "--images", "128"]) == 0
    return folder


def lines_of(out: str) -> str:
    return out.partition("run as they stand:\n\n")[2]


def run_again(capsys) -> str:
    assert main(["demo", "--images", "128"]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_makes_files_of_about_500_x_400_in_a_folder_for_each_photograph(demo):
    files = sorted((demo / "demo-data" / "photos").glob("*/*.jpg"))
    assert len(files) == 128
    assert len({file.parent for file in files}) == 8
    assert {cv2.imread(str(file)).shape for file in files[::16]} == {(400, 500, 3)}


@pytest.mark.slow
def test_reports_a_rate_for_each_step_and_where_the_file_lies(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    out = run_again(capsys)
    assert re.findall(r"^(.*?) +[\d,]+$", out.partition("Overall")[0], re.MULTILINE) == [
        "save them to one LMDB file",
        "load in random order",
        "+ decode",
        "+ random crop, 224 x 224",
        "+ random flip",
        "+ batches of 64",
        f"all of it in {THREADS} threads",
    ]
    overall = rf"^Overall: [\d,]+ images/s from the file to batches in {THREADS} threads, [\d,]+ in one\.$"
    assert re.search(overall, out, re.MULTILINE)
    assert re.search(r"^demo-data/photos\.lmdb has [\d.]+ MB\.", out, re.MULTILINE)


@pytest.mark.slow
def test_a_second_run_uses_the_files_again(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    before = {file: file.stat().st_mtime_ns for file in demo.glob("*/*/*/*.jpg")}
    assert "make JPEG files" not in run_again(capsys)
    assert {file: file.stat().st_mtime_ns for file in demo.glob("*/*/*/*.jpg")} == before


@pytest.mark.slow
def test_the_printed_lines_run_as_they_stand(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    names: dict[str, Any] = {}
    exec(lines_of(run_again(capsys)), names)
    assert "2 datapoints in" in capsys.readouterr().out
    with names["df"] as df:
        images, labels = next(iter(df))
    assert images.shape == (64, 224, 224, 3)
    assert sorted({*labels.tolist()}) == [0, 1, 2, 3, 4, 5, 6, 7]


@pytest.mark.slow
def test_the_printed_lines_can_be_pasted_into_a_python_prompt(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    lines = lines_of(run_again(capsys))
    prompt = code.InteractiveConsole()
    for line in lines.splitlines():
        prompt.push(line)
    out, err = capsys.readouterr()
    assert "2 datapoints in" in out
    assert "Error" not in err


@pytest.mark.slow
def test_no_thread_is_left_behind(demo, monkeypatch, capsys):
    monkeypatch.chdir(demo)
    before = {*threading.enumerate()}
    run_again(capsys)
    assert {*threading.enumerate()} == before


def test_a_photograph_depends_on_its_number_alone(tmp_path):
    assert make_photographs(tmp_path / "some", 3) == 3
    assert make_photographs(tmp_path / "more", 2) == 2
    assert make_photographs(tmp_path / "more", 5) == 3
    for file in (tmp_path / "some").rglob("*.jpg"):
        assert file.read_bytes() == (tmp_path / "more" / file.relative_to(tmp_path / "some")).read_bytes()


def test_a_missing_package_is_one_line_that_says_how_to_install_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert main(["demo", "--dir", str(tmp_path / "new")]) == 1
    assert capsys.readouterr().err == (
        "dataflow: dataflow demo needs the package 'sklearn', which is not installed: "
        "pip install 'dataflow-toolkit[demo]'\n"
    )


def test_less_than_one_batch_is_wrong_usage(capsys):
    assert main(["demo", "--images", "63"]) == 2
    assert "an integer of at least 64, got '63'" in capsys.readouterr().err


def test_every_photograph_is_large_enough(tmp_path):
    assert [name for name, image in photos._originals().items() if min(image.shape[:2]) < photos.HEIGHT] == []
