"""The counts of `make fuzz`: kept by run, and as the generated part of docs/reliability.md."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

FUZZ = Path(__file__).parent / "fuzz.json"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The finished rounds of a run, in which every promise was kept.

    ``answers`` counts them by endpoint and status. The ``command`` has the seed that all follows
    from.
    """

    command: str
    machine: str
    seconds: float
    answers: dict[str, dict[str, int]]

    @property
    def requests(self) -> int:
        """The number of answers."""
        return sum(sum(codes.values()) for codes in self.answers.values())


def machine() -> str:
    """This machine, in words."""
    system = f"{platform.system()}, Python {platform.python_version()}"
    return f"{platform.machine()}, {os.cpu_count()} cores, {system}"


def by_endpoint(answers: Mapping[tuple[str, int], int]) -> dict[str, dict[str, int]]:
    """Counts by endpoint, then by status, in order."""
    found: dict[str, dict[str, int]] = {}
    for (endpoint, code), count in sorted(answers.items()):
        found.setdefault(endpoint, {})[str(code)] = count
    return found


def table(runs: Iterable[Mapping[str, Mapping[str, int]]]) -> str:
    """The answers of all ``runs`` together, by endpoint, as Markdown."""
    sums: dict[str, Counter[str]] = {}
    for answers in runs:
        for endpoint, codes in answers.items():
            sums.setdefault(endpoint, Counter()).update(codes)
    rows = [
        f"| {endpoint} | {codes.total():,} | "
        + ", ".join(f"{count:,} x {code}" for code, count in sorted(codes.items()))
        + " |"
        for endpoint, codes in sorted(sums.items())
    ]
    return "\n".join(["| endpoint | requests | answers |", "| --- | --- | --- |", *rows])


def read(file: Path) -> list[Run]:
    """The runs in ``file``; none where there is no file yet."""
    return msgspec.json.decode(file.read_bytes(), type=list[Run]) if file.exists() else []


def saved(runs: list[Run], file: Path) -> None:
    """Write ``runs`` to ``file``."""
    file.write_bytes(msgspec.json.format(msgspec.json.encode(runs), indent=2) + b"\n")


def fuzz_part() -> str:
    """All saved runs and what they count together, for docs/reliability.md."""
    runs = read(FUZZ)
    total = sum(run.requests for run in runs)
    seconds = sum(run.seconds for run in runs)
    lines = [
        f"{total:,} requests in {seconds / 60:,.0f} minutes; no answer was 5xx, no worker died.",
        "",
        *(f"- `{run.command}`: {run.requests:,} on {run.machine}" for run in runs),
        "",
        table(run.answers for run in runs),
    ]
    return "\n".join(lines)
