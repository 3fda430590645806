"""Whether a run went well: errors all have a fault before them, and nothing grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from statistics import median

import msgspec

from tests.soak.faults import Fault
from tests.soak.samples import Sample
from tests.soak.traffic import Outcome

WARM_UP = 1 / 3
"""The share of a run in which memory may still grow: models, caches and pools fill."""
# How long a fault is felt: a worker is loaded again, the disk's room is found again.
_FELT_SECONDS = 15.0
CODES: Mapping[str, Container[str]] = {
    "killed worker": {"worker_died", "model_unavailable"},
    "full disk": {"store_unavailable"},
    "clock": (),
}
"""The errors that each fault explains."""


class _Everything:
    """Contains everything."""

    def __contains__(self, _: object) -> bool:
        return True


ANY_CODES = dict.fromkeys(CODES, _Everything())
"""For a server whose codes are not known: what fails after a fault is explained by it."""


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """The median of a measure after the warm-up and at the end of a run."""

    early: float
    late: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it grew by no more than allowed."""
        return self.late <= self.early + self.allowed


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a run."""

    seconds: float
    requests: int
    answers: dict[str, int]
    problems: dict[str, int]
    unexplained: dict[str, int]
    faults: dict[str, int]
    growth: dict[str, Growth]
    workers: int
    left_behind: int
    exit_code: int | None

    @property
    def well(self) -> bool:
        """Whether all promises were kept."""
        grown = [name for name, growth in self.growth.items() if not growth.flat]
        return not (self.unexplained or grown or self.left_behind or self.exit_code)


def judge(
    outcomes: Sequence[Outcome],
    faults: Sequence[Fault],
    samples: Sequence[Sample],
    *,
    seconds: float,
    workers: int,
    left_behind: int,
    exit_code: int | None,
    codes: Mapping[str, Container[str]] = CODES,
) -> Verdict:
    """The verdict on a run of so many ``seconds``, in which so many ``workers`` were started.

    ``codes``: the errors that each fault explains.
    """
    problems = [each for each in outcomes if _is_problem(each)]
    unexplained = [each for each in problems if not _is_explained(each, faults, codes)]
    return Verdict(
        seconds=seconds,
        requests=len(outcomes),
        answers=_counted(_answer(each) for each in outcomes),
        problems=_counted(_told(each) for each in problems),
        unexplained=_counted(_told(each) for each in unexplained),
        faults=_counted(each.kind for each in faults),
        growth={
            "memory of the API process, MiB": _growth(
                samples, seconds, lambda sample: sample.memory / (1 << 20), share=0.05, least=4
            ),
            "memory of the largest worker, MiB": _growth(
                samples, seconds, lambda sample: sample.worker_memory / (1 << 20), 0.1, 8
            ),
            "descriptors of the API process": _growth(
                samples, seconds, lambda sample: sample.descriptors, 0.1, 16
            ),
            "threads of the API process": _growth(
                samples, seconds, lambda sample: sample.threads, 0.0, 2
            ),
            "temporary files": _growth(
                samples, seconds, lambda sample: sample.temporary_files, 0.0, 2
            ),
        },
        workers=workers,
        left_behind=left_behind,
        exit_code=exit_code,
    )


def _is_problem(outcome: Outcome) -> bool:
    """Whether the server failed to answer; a request that it refuses with 4xx is answered."""
    if outcome.left:
        return False
    return (
        outcome.status is None
        or outcome.status >= 500
        or (outcome.status < 400 and outcome.problem is not None)
    )


def _is_explained(
    outcome: Outcome, faults: Iterable[Fault], codes: Mapping[str, Container[str]]
) -> bool:
    return any(
        fault.began <= outcome.at <= fault.ended + _FELT_SECONDS
        and outcome.problem in codes[fault.kind]
        and fault.what in {"", outcome.model}
        for fault in faults
    )


def _answer(outcome: Outcome) -> str:
    if outcome.left:
        return "left"
    return str(outcome.status or "broken connection")


def _told(outcome: Outcome) -> str:
    return f"{outcome.operation} {outcome.status or '-'} {outcome.problem}"


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def _growth(
    samples: Sequence[Sample],
    seconds: float,
    measure: Callable[[Sample], float],
    share: float,
    least: float,
) -> Growth:
    """The growth of a measure from the third after the warm-up to the last third."""
    early = [measure(each) for each in samples if WARM_UP <= each.at / seconds < 2 * WARM_UP]
    late = [measure(each) for each in samples if each.at / seconds >= 2 * WARM_UP]
    first = median(early) if early else 0.0
    return Growth(
        early=round(first, 1),
        late=round(median(late), 1) if late else 0.0,
        allowed=round(max(first * share, least), 1),
    )
