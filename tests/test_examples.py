"""Every example prints something useful, without a network."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SHOWN = {
    "image_training.py": "the same weights, bit by bit: True",
    "parallel_training.py": "the same batches, bit by bit: True",
    "save_to_lmdb.py": "a batch has {'image': (64, 28, 28), 'label': (64,)}",
    "speed_test.py": "images/s",
}


def test_every_example_is_listed_here():
    assert sorted(file.name for file in (ROOT / "examples").glob("*.py")) == sorted(SHOWN)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "shown"), SHOWN.items(), ids=SHOWN)
def test_example_runs(name, shown, tmp_path):
    # As a user runs it: warnings are shown and not errors, in a directory without the package.
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert shown in done.stdout
