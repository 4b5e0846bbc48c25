"""`import dataflow` is light: a command line or a worker starts at once."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import dataflow

# Packages beside numpy and the standard library that `import dataflow` may load: none.
PROGRAM = """
import sys
import numpy
before = set(sys.modules)
import dataflow
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - sys.stdlib_module_names - {"dataflow", "numpy"}))
"""


def run(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def test_import_loads_numpy_and_the_standard_library_only():
    assert run(PROGRAM) == ""


def test_import_takes_less_than_a_fifth_of_a_second_more_than_numpy(tmp_path):
    # Of processor time, with compiled bytecode, which the first of them writes.
    program = "import time, numpy; start = time.process_time(); import dataflow; print(time.process_time() - start)"
    compiled = {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    assert min(float(run(program, **compiled)) for _ in range(4)) < 0.2


def test_the_modules_of_formats_are_loaded_when_they_are_asked_for():
    program = (
        "import sys, dataflow\n"
        "formats = {'h5py', 'dataflow.serializers.hdf5', 'dataflow.sources.caffe'}\n"
        "def loaded(): return sorted(formats & set(sys.modules))\n"
        "print(loaded()); dataflow.CaffeLMDB; print(loaded()); dataflow.HDF5Serializer; print(loaded())"
    )
    assert run(program).splitlines() == [
        "[]",
        "['dataflow.sources.caffe']",
        "['dataflow.serializers.hdf5', 'dataflow.sources.caffe']",
    ]


def test_each_name_that_is_loaded_later_is_there_when_it_is_the_first_to_be_asked_for():
    program = (
        "import sys, warnings, dataflow\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        "for name in [*dataflow._LATER, *dataflow._OLD_NAMES, 'testing']:\n"
        "    for module in [module for module in sys.modules if module.partition('.')[0] == 'dataflow']:\n"
        "        del sys.modules[module]\n"
        "    exec(f'from dataflow import {name}')\n"
        "    import dataflow\n"
        "    print(name, hasattr(dataflow, name))"
    )
    wanted = [*dataflow._LATER, *dataflow._OLD_NAMES, "testing"]
    assert run(program).splitlines() == [f"{name} True" for name in wanted]


@pytest.mark.parametrize(
    "name", ["dftools.dump_dataflow_to_lmdb", "testing.check_dataflow", "LMDBDataPoint", "TarSerializer.save"]
)
def test_a_name_is_there_in_a_new_interpreter(name):
    assert run(f"import dataflow; print(callable(dataflow.{name}))", PYTHONWARNINGS="ignore") == "True"


def test_the_module_for_tests_is_loaded_when_it_is_asked_for():
    program = "import sys, dataflow; print('dataflow.testing' in sys.modules, dataflow.testing.__name__)"
    assert run(program) == "False dataflow.testing"


def test_a_flow_runs_without_an_optional_package():
    program = (
        "import sys, dataflow as D\n"
        "df = D.BatchData(D.DataFromList([[1], [2]], shuffle=False), 2)\n"
        "print([dp[0].tolist() for dp in df], sorted({'cv2', 'lmdb', 'msgpack', 'tqdm', 'zmq'} & set(sys.modules)))"
    )
    assert run(program) == "[[1, 2]] []"
