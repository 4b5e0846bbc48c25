"""Doctests find the public names, so examples need no imports; no test leaves a seed behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dataflow
from dataflow import testing
from dataflow.utils import rng


@pytest.fixture(autouse=True)
def _public_names(doctest_namespace: dict[str, Any]) -> None:
    doctest_namespace.update({name: getattr(dataflow, name) for name in dataflow.__all__})
    doctest_namespace.update(np=np, check_dataflow=testing.check_dataflow, FailsOnce=testing.FailsOnce)


@pytest.fixture(autouse=True)
def _no_seed_is_left() -> Iterator[None]:
    yield
    rng.set_seed(None)
