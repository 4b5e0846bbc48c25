"""Whatever happens to workers or to their consumer: an error in time, nothing lost silently, nothing left behind."""

from __future__ import annotations

import pytest

from .table import Case, attempt, few_cases


@pytest.mark.slow
@pytest.mark.parametrize("case", few_cases(), ids=str)
def test_a_fault_is_an_error_in_time_and_leaves_nothing(case: Case):
    verdict = attempt(case)
    assert not verdict.what, verdict.why
