"""The verdict of a long run finds what went wrong."""

from __future__ import annotations

import pytest

from tests.soak.faults import Fault
from tests.soak.samples import Sample
from tests.soak.traffic import Outcome, problem_of
from tests.soak.verdict import Verdict, judge

pytestmark = pytest.mark.fast

KILLED = Fault("killed worker", 50.0, 50.0, "one")
FULL = Fault("full disk", 50.0, 55.0)


def outcome(at: float = 51.0, status: int | None = 500, **others: str | bool) -> Outcome:
    fields = {"model": "one", "problem": "worker_died", **others}
    return Outcome(at=at, operation="/v1/completions", status=status, **fields)  # type: ignore[arg-type]


def sample(at: float, **others: int) -> Sample:
    usual: dict[str, int] = {"memory": 100 << 20, "descriptors": 40, "threads": 6}
    more = {"worker_memory": 50 << 20, "temporary_files": 0}
    return Sample(at=at, workers=(), **{**usual, **more, **others})


def verdict(*outcomes: Outcome, faults: tuple[Fault, ...] = ()) -> Verdict:
    return judge(
        outcomes,
        faults,
        [sample(50), sample(90)],
        seconds=100,
        workers=3,
        left_behind=0,
        exit_code=0,
    )


def test_a_run_without_problems_went_well() -> None:
    assert verdict(outcome(status=200, problem=None)).well  # type: ignore[arg-type]
    assert verdict(outcome(status=429, problem="queue_full")).well
    assert verdict(outcome(status=None, problem="", left=True)).answers == {"left": 1}


@pytest.mark.parametrize(
    ("failed", "fault"),
    [
        (outcome(), KILLED),
        (outcome(status=200), KILLED),
        (outcome(problem="store_unavailable", status=503), FULL),
        (outcome(problem="store_unavailable", status=503, at=60.0), FULL),
    ],
)
def test_a_failure_after_its_fault_is_explained(failed: Outcome, fault: Fault) -> None:
    found = verdict(failed, faults=(fault,))
    assert found.well
    assert sum(found.problems.values()) == 1
    assert not verdict(failed).well


@pytest.mark.parametrize(
    ("failed", "fault"),
    [
        (outcome(at=49.0), KILLED),
        (outcome(at=80.0), KILLED),
        (outcome(model="two"), KILLED),
        (outcome(problem="store_unavailable"), KILLED),
        (outcome(), FULL),
        (outcome(), Fault("clock", 50.0, 50.0)),
        (outcome(status=200, problem="cut"), KILLED),
        (outcome(status=None, problem="ReadTimeout"), KILLED),
    ],
)
def test_a_failure_that_no_fault_explains_is_told(failed: Outcome, fault: Fault) -> None:
    found = verdict(failed, faults=(fault,))
    assert not found.well
    assert sum(found.unexplained.values()) == 1


@pytest.mark.parametrize(
    "grown",
    [
        {"memory": 110 << 20},
        {"worker_memory": 70 << 20},
        {"descriptors": 60},
        {"threads": 9},
        {"temporary_files": 3},
    ],
)
def test_what_grows_after_the_warm_up_is_told(grown: dict[str, int]) -> None:
    ran = [sample(50), sample(90, **grown)]
    assert not judge([], [], ran, seconds=100, workers=3, left_behind=0, exit_code=0).well


def test_a_process_left_behind_or_an_exit_code_is_told() -> None:
    calm = [sample(50), sample(90)]
    for left, code in ((1, 0), (0, 1), (0, -9)):
        assert not judge(
            [], [], calm, seconds=100, workers=3, left_behind=left, exit_code=code
        ).well


@pytest.mark.parametrize(
    ("status", "received", "problem"),
    [
        (200, '{"id": 1}', None),
        (503, '{"error": {"code": "overloaded", "type": "server_error"}}', "overloaded"),
        (500, '{"error": {"code": null, "type": "server_error"}}', "error"),
        (500, '{"error": {"message": "Too bad.", "code": null}}', "error: Too bad."),
        (500, '{"error": {"message": "The worker of model x died."}}', "worker_died"),
        (500, "<html>", "not in our shape: '<html>'"),
        (200, 'data: {"a": 1}\n\ndata: [DONE]\n\n', None),
        (200, 'data: {"a": 1}\n\n', "cut"),
        (200, 'data: {"error":{"code":"worker_died"}}\n\n', "worker_died"),
        (200, 'event: error\ndata: {"type":"error"}\n\n', "error"),
        (200, "event: response.completed\ndata: {}\n\n", None),
        (200, 'event: response.failed\ndata: {"error":{"code":"server_error"}}\n\n', "error"),
    ],
)
def test_a_problem_is_found_in_bodies_and_in_streams(
    status: int, received: str, problem: str | None
) -> None:
    assert problem_of(status, received) == problem
