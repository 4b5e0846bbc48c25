"""Whatever happens to workers or to their consumer: an error in time, nothing lost silently, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from .table import Case, Verdict, attempt, few_cases

TOGETHER = 2  # programs at a time: most of them wait


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> Iterator[dict[Case, Future[Verdict]]]:
    chosen = [item.callspec.params["case"] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(TOGETHER) as pool:
        yield {case: pool.submit(attempt, case) for case in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*few_cases()], ids=str)
def test_a_fault_is_an_error_in_time_and_leaves_nothing(case: Case, verdicts: dict[Case, Future[Verdict]]):
    verdict = verdicts[case].result()
    assert not verdict.what, verdict.why
