"""The house stands: imports point one way, and siblings never import each other."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parent.parent / "dataflow"
LAYERS = [
    ["errors"],
    ["utils"],
    ["codec"],
    ["engine", "policies"],
    ["passes"],
    ["base"],
    ["proxies"],
    ["sources"],
    ["parallel", "serializers", "imgaug", "adapters"],
    ["pipeline", "stages"],
    ["testing"],
    ["cli"],
    ["__main__"],
]
RANK = {unit: rank for rank, layer in enumerate(LAYERS) for unit in layer}
FILES = sorted(ROOT.rglob("*.py"))


def imports(path: pathlib.Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when a file is loaded; TYPE_CHECKING blocks and function bodies do not count."""

    def walk(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from walk(node.body + node.orelse)
            elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
                yield from walk(node.body)

    yield from walk(ast.parse(path.read_text()).body)


def imported_units(path: pathlib.Path, root: pathlib.Path = ROOT) -> Iterator[str]:
    """Units of the package that a file loads when it is imported."""
    package = ("dataflow", *path.relative_to(root).parts)
    for node in imports(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            full = package[: len(package) - node.level] + tuple((node.module or "").split("."))
            if len(full) > 1 and full[1]:
                yield full[1]


def upward(path: pathlib.Path, root: pathlib.Path = ROOT) -> list[str]:
    unit = path.relative_to(root).parts[0].removesuffix(".py")
    if unit == "__init__":
        return []
    return [other for other in imported_units(path, root) if other != unit and RANK[other] >= RANK[unit]]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    assert upward(path) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_inside_the_package_are_relative_and_name_a_module(path):
    for node in imports(path):
        if isinstance(node, ast.Import):
            assert not any(name.name.partition(".")[0] == "dataflow" for name in node.names)
        else:
            assert node.level or node.module.partition(".")[0] != "dataflow"
            assert node.module or node.level == 1  # `from .. import x` hides the unit that it loads


@pytest.mark.parametrize("line", ["from ..base import DataFlow", "from ..proxies.map import MapData"])
def test_a_planted_upward_import_is_seen(tmp_path, line):
    planted = tmp_path / "utils" / "check.py"
    planted.parent.mkdir()
    planted.write_text(line)
    assert upward(planted, tmp_path)


def test_every_unit_has_a_layer():
    units = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert units <= RANK.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_import_only_in_base(path):
    inside = [
        node
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inside or path.name in ("base.py", "__init__.py")
