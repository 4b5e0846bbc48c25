from __future__ import annotations

import json
import xml.dom

import pytest

from dataflow.errors import MissingPackageError
from dataflow.utils.deps import INSTALL, need


def test_it_returns_the_module():
    assert need("json", by="a test") is json


def test_a_dotted_name_gives_the_submodule():
    assert need("xml.dom", by="a test") is xml.dom


def test_a_missing_package_says_who_needs_it_and_how_to_install_it():
    with pytest.raises(MissingPackageError) as caught:
        need("no_such_package_here", by="ImageFromFile")
    assert str(caught.value) == (
        "ImageFromFile needs the package 'no_such_package_here', which is not installed: "
        "pip install no_such_package_here"
    )
    assert caught.value.name == "no_such_package_here"
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_missing_package_is_an_import_error():
    with pytest.raises(ImportError):
        need("no_such_package_here.inner", by="a test")


def test_of_a_dotted_name_the_package_is_what_is_missing():
    with pytest.raises(MissingPackageError, match="the package 'no_such_package_here', which"):
        need("no_such_package_here.inner", by="a test")


def test_the_name_to_install_may_differ_from_the_name_to_import(monkeypatch):
    monkeypatch.setitem(INSTALL, "no_such_package_here", "the-distribution")
    with pytest.raises(MissingPackageError, match=r"pip install the-distribution$"):
        need("no_such_package_here", by="a test")


@pytest.mark.parametrize(("name", "distribution"), [("cv2", "opencv-python-headless"), ("zmq", "pyzmq")])
def test_known_names(name, distribution):
    assert INSTALL[name] == distribution


def test_a_package_that_is_broken_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package_here.py").write_text("import no_such_package_here\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_package_here") as caught:
        need("broken_package_here", by="a test")
    assert not isinstance(caught.value, MissingPackageError)


def test_a_missing_submodule_of_an_installed_package_is_not_called_missing():
    with pytest.raises(ModuleNotFoundError, match=r"json\.no_such_module") as caught:
        need("json.no_such_module", by="a test")
    assert not isinstance(caught.value, MissingPackageError)
