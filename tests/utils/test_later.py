"""Names that are loaded when they are asked for: once, and an error like any other where there is none."""

from __future__ import annotations

import sys
import types

import pytest

import dataflow
from dataflow.utils.later import loaded_later


def test_a_name_is_loaded_once_and_kept(monkeypatch):
    package = types.ModuleType("some_package")
    package.__path__ = []
    inner = types.ModuleType("some_package.inner")
    inner.value = object()
    monkeypatch.setitem(sys.modules, "some_package", package)
    monkeypatch.setitem(sys.modules, "some_package.inner", inner)
    assert loaded_later("some_package", {"value": ".inner"}, "value") is inner.value
    assert package.value is inner.value


@pytest.mark.parametrize("module", [dataflow, dataflow.sources, dataflow.serializers])
def test_a_name_that_is_not_there_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'nothing'"):
        _ = module.nothing


@pytest.mark.parametrize("module", [dataflow, dataflow.sources, dataflow.serializers])
def test_all_names_are_there_and_a_star_imports_them(module):
    names: dict[str, object] = {}
    exec(f"from {module.__name__} import *", names)
    assert {*module.__all__} <= names.keys()
